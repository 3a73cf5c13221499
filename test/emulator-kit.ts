/** What the emulator's tests share: test firmware compiled by asc, and a port that remembers frames. */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import asc from 'assemblyscript/asc'
import type { FrameSink, Port } from '../emulator/link/link.ts'
import { NOWHERE } from '../emulator/link/link.ts'

/** Folder of package.json; tests run from dist/. */
export const ROOT = (() => {
  let folder = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(folder, 'package.json'))) folder = dirname(folder)
  return folder
})()

/** INIC memory that the test firmware needs, bytes. */
export const TEST_MEMORY_BYTES = 0x200000

const compiled = new Map<string, Promise<Uint8Array>>()

/** test/firmware/NAME.as.ts as a wasm module. */
export function firmware(name: string): Promise<Uint8Array> {
  let module = compiled.get(name)
  if (module === undefined) {
    module = compile(name)
    compiled.set(name, module)
  }
  return module
}

async function compile(name: string): Promise<Uint8Array> {
  let binary: Uint8Array | null = null
  const { error, stderr } = await asc.main(
    [
      `test/firmware/${name}.as.ts`,
      ...['--baseDir', ROOT, '--outFile', 'firmware.wasm', '--runtime', 'stub', '--importMemory', '--noExportMemory'],
      ...['--initialMemory', String(TEST_MEMORY_BYTES / 65536), '--memoryBase', String(0x12000), '--stackSize', '0'],
      ...['--use', 'abort=test/firmware/card.as/abort', '-O2', '--noAssert', '--debug', '--enable', 'bulk-memory'],
    ],
    {
      writeFile(_file: string, contents: Uint8Array | string) {
        if (typeof contents !== 'string') binary = contents
      },
    },
  )
  if (error || binary === null) throw new Error(`test firmware ${name}: ${error?.message}\n${stderr.toString()}`)
  return binary
}

/** A port at the end of a cable that keeps what it receives and sends what it is told. */
export class TestPort implements Port {
  readonly name: string
  readonly frames: { bytes: Uint8Array; timeNs: number }[] = []
  carrier = false
  #outlet: FrameSink = NOWHERE

  constructor(name: string) {
    this.name = name
  }

  plug(outlet: FrameSink | null): void {
    this.#outlet = outlet ?? NOWHERE
  }

  setCarrier(up: boolean): void {
    this.carrier = up
  }

  frame(memory: Uint8Array, offset: number, length: number, nowNs: number): void {
    this.frames.push({ bytes: Uint8Array.from(memory.subarray(offset, offset + length)), timeNs: nowNs })
  }

  send(bytes: Uint8Array, nowNs: number): void {
    this.#outlet.frame(bytes, 0, bytes.length, nowNs)
  }
}

/** A frame with the given addresses, padded to `length` bytes with 0, 1, 2, ... from byte 14. */
export function testFrame(to: Uint8Array, from: Uint8Array, length = 64): Uint8Array {
  const bytes = Uint8Array.from({ length }, (_, n) => (n - 14) & 0xff)
  bytes.set(to, 0)
  bytes.set(from, 6)
  bytes.set([0x88, 0xb5], 12)
  return bytes
}
