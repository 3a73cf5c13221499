import asc from 'assemblyscript/asc'

/** Compiled so far: several tests of a file use the same source. */
const assembled = new Map<string, Promise<Uint8Array>>()

/**
 * Compiles AssemblyScript in memory, as firmware is: INIC memory imported, no runtime, no `abort`. `memoryBase` 0x10000
 * leaves the bus space alone. Throws with asc's messages.
 */
export function assemble(source: string, ...flags: string[]): Promise<Uint8Array> {
  const key = JSON.stringify([source, flags])
  const known = assembled.get(key) ?? compile(source, flags)
  assembled.set(key, known)
  return known
}

async function compile(source: string, flags: readonly string[]): Promise<Uint8Array> {
  let wasm: Uint8Array | undefined
  const { error, stderr } = await asc.main(
    [
      'firmware.ts',
      ...['--outFile', 'firmware.wasm', '--runtime', 'stub', '--importMemory', '--noExportMemory'],
      ...['--initialMemory', '2', '--memoryBase', '65536', '--use', 'abort=', '--debug', '--enable', 'simd', ...flags],
    ],
    {
      readFile: (name) => (name === 'firmware.ts' ? source : null),
      writeFile: (name, contents) => {
        if (name === 'firmware.wasm') wasm = contents as Uint8Array
      },
      listFiles: () => [],
    },
  )
  if (error || !wasm) throw new Error(`${error?.message}\n${stderr}`)
  return wasm
}
