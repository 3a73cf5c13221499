/**
 * What a wasm module must be to run as firmware. The emulator relies on each of these: snapshots, replay and update in
 * service hold INIC memory and nothing else, and the board offers no import but that memory.
 */
import { CARVE_BASE, CONSTANTS_BASE, MINIMUM_MEMORY_BYTES } from '../../abi/memory.ts'
import { type FunctionType, functionName, readWasmModule, type WasmModule } from './wasm-module.ts'

const PAGE_BYTES = 0x10000

/** asc's own count of arguments for exports with optional parameters; written before each call and dead after it. */
const ARGUMENTS_LENGTH = '~argumentsLength'

const ENTRY_POINTS: ReadonlyMap<string, FunctionType> = new Map([
  ['reset', { parameters: [], results: [] }],
  ['poll', { parameters: ['i32'], results: ['i32'] }],
])

/** Everything that keeps these bytes from being firmware, one sentence each; empty if nothing does. */
export function checkFirmware(wasm: Uint8Array): string[] {
  const module = readWasmModule(wasm)
  return [
    ...checkImports(module),
    ...checkEntryPoints(module),
    ...checkGlobals(module),
    ...checkStart(module),
    ...checkMemory(module),
    ...checkData(module),
  ]
}

function checkImports(module: WasmModule): string[] {
  const problems = module.imports
    .filter(({ module: from, name, kind }) => !(from === 'env' && name === 'memory' && kind === 'memory'))
    .map(
      ({ module: from, name, kind }) =>
        `it imports the ${kind} ${from}.${name}; the board gives env.memory and nothing else. Call devices through their registers` +
        (name === 'abort' ? ', and point asc\'s abort to a function of your own: "use": ["abort=..."]' : ''),
    )
  if (module.importedMemories === 0) {
    problems.push('it does not import env.memory, which is the INIC memory; set "importMemory": true in asconfig.json')
  }
  return problems
}

function checkEntryPoints(module: WasmModule): string[] {
  const problems: string[] = []
  for (const [name, wanted] of ENTRY_POINTS) {
    const found = module.exports.find((item) => item.name === name && item.kind === 'function')
    if (!found) {
      problems.push(`it does not export the function ${name}${signature(wanted)}`)
      continue
    }
    const type = module.functions[found.index]
    if (signature(type) !== signature(wanted)) {
      problems.push(`its export ${name} has the type ${signature(type)}; the board calls ${name}${signature(wanted)}`)
    }
  }
  return problems
}

function checkGlobals(module: WasmModule): string[] {
  return module.globals.flatMap((global, index) =>
    global.mutable && global.name !== ARGUMENTS_LENGTH
      ? [
          `it has the mutable global ${global.name ?? `number ${index}`} (${global.type}); all firmware state lives in INIC memory, so that` +
            ' snapshots and updates hold it. Make it a constant, or a field of a class at an address of the memory map',
        ]
      : [],
  )
}

function checkStart(module: WasmModule): string[] {
  if (module.startFunction === undefined) return []
  return [
    `it has a start function (${functionName(module, module.startFunction)}), which would run before the boot information is there;` +
      ' move top-level statements and initializers that are not constant into reset()',
  ]
}

function checkMemory(module: WasmModule): string[] {
  const problems: string[] = []
  for (const memory of module.memories) {
    if (memory.shared) problems.push('its memory is shared; INIC memory belongs to one processor')
    if (memory.is64) problems.push('its memory is 64-bit; INIC addresses have 32 bits')
    const leastBytes = memory.minimumPages * PAGE_BYTES
    if (leastBytes > MINIMUM_MEMORY_BYTES) {
      problems.push(
        `it asks for ${leastBytes} bytes of memory at least; the smallest board has ${MINIMUM_MEMORY_BYTES}. Lower "initialMemory"`,
      )
    }
    if (memory.maximumPages !== undefined) {
      problems.push(`it limits memory to ${memory.maximumPages} pages; leave out "maximumMemory", the board decides`)
    }
  }
  if (module.memories.length > 1) problems.push(`it has ${module.memories.length} memories; a board has one`)
  return problems
}

function checkData(module: WasmModule): string[] {
  return module.data.flatMap(({ address, bytes }) => {
    if (address === undefined || bytes === 0) return []
    if (address >= CONSTANTS_BASE && address + bytes <= CARVE_BASE) return []
    const range = `0x${address.toString(16)} to 0x${(address + bytes).toString(16)}`
    const region = `0x${CONSTANTS_BASE.toString(16)} to 0x${CARVE_BASE.toString(16)}`
    return [
      `its constants lie at ${range}, outside the region for them (${region}); set "memoryBase": ${CONSTANTS_BASE}, or have fewer`,
    ]
  })
}

function signature(type: FunctionType): string {
  return `(${type.parameters.join(', ')}) → ${type.results.length === 0 ? '()' : type.results.join(', ')}`
}
