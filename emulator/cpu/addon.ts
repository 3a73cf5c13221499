/** The native addon: its exports as they are, and where to find it. What is for use is in index.ts, debug.ts, tap.ts. */

import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CpuError, type CpuFault, type MemoryGuard, type SliceLimit } from './cpu.ts'

/** Slots of the numbers shared with `poll` and `reset`; `Io` of plain.rs. */
export const CpuIo = { irqs: 0, result: 1, cycles: 2, stored: 3 } as const

/** Slots of the numbers shared with the debugged CPU; `Slot` of panel.rs. */
export const DebugIo = {
  /** In: interrupt lines for `poll`. */
  irqs: 0,
  /** How the last run came back: a `DebugCode` of debug.ts. */
  code: 1,
  result: 2,
  cycles: 3,
  stored: 4,
  pc: 5,
  /** -1 if instructions were not counted. */
  steps: 6,
  /** How many locals the innermost frame has; they are in the second and third buffer. */
  locals: 7,
  /** 1: the request did not fit the state, and nothing ran or changed. */
  refused: 8,
} as const

/** Locals that fit the shared buffer. */
export const DEBUG_VALUES = 512

/** Kinds of values in the shared buffer, by number; `kind_of` of panel.rs. */
export const DEBUG_KINDS = ['ref', 'i32', 'i64', 'f32', 'f64', 'v128'] as const

/** `PlainCpu` of plain.rs. */
export interface NativeCpu extends NativePages {
  /** INIC memory. To be called once. */
  memory(): ArrayBuffer
  /** {@link CpuIo} as a Float64Array. To be called once. */
  io(): ArrayBuffer
  pollFunction(): () => void
  resetFunction(): () => void
  fault(): CpuFault | null
  /** A debugged CPU over the same memory. */
  debugTwin(): NativeDebugCpu
  /** A CPU over the same memory that counts fuel. */
  metered(): NativeCpu
  /** A CPU with another firmware over the same memory, where its data segments are not yet. */
  successor(module: Uint8Array): NativeCpu
  /** The buffer is detached. */
  dispose(memory?: ArrayBuffer): void
}

/** What both CPUs do with the memory they share. */
interface NativePages {
  clearFault(): void
  usedPages(): Uint32Array
}

/** `Value` of frames.rs. */
export type NativeValue =
  | { type: 'i32' | 'f32' | 'f64' | 'ref'; value: number }
  | { type: 'i64' | 'v128'; value: bigint }

/** `DebugFrame` of frames.rs. */
export interface NativeFrame {
  functionIndex: number
  functionName?: string
  pc: number
  locals: NativeValue[]
  stack: NativeValue[]
}

/** `WatchSpec` of watch.rs. */
export interface NativeWatch {
  start: number
  end: number
  stride: number
  offset: number
  bytes: number
  kind: 'read' | 'write' | 'access' | 'change'
}

/** `WatchHit` of watch.rs. */
export interface NativeWatchHit {
  id: number
  kind: 'read' | 'write'
  address: number
  bytes: number
  pc: number
  start: number
  before: Uint8Array
  after: Uint8Array
}

/** `DebugCpu` of debug.rs. */
export interface NativeDebugCpu extends NativePages {
  /** {@link DebugIo} as a Float64Array. To be called once. */
  io(): ArrayBuffer
  /** {@link DEBUG_VALUES} values of 16 bytes, and their kinds, a byte each. To be called once. */
  values(): ArrayBuffer
  kinds(): ArrayBuffer
  resetFunction(): () => void
  pollFunction(): () => void
  resumeFunction(): () => void
  /** The next run stops before this instruction of the call, and before nothing else but a trap. */
  stopAtStep(step: number): void
  /** The same, so many instructions from here. */
  stopAfter(steps: number): void
  /** The next run notes the offset of each instruction, and stops for nothing else but a trap. */
  startTrace(limit: number): void
  takeTrace(): Uint32Array
  setCounting(on: boolean): void
  startProfile(samplePeriod: number, sampleWords: number): void
  stopProfile(): void
  /** Counts by offset in the module. To be called once. */
  histogram(): ArrayBuffer
  takeSamples(): Uint32Array
  addBreakpoint(pc: number): number
  removeBreakpoint(pc: number): boolean
  addWatchpoint(spec: NativeWatch): number
  removeWatchpoint(id: number): boolean
  watchHits(): NativeWatchHit[]
  singleStep(on: boolean): void
  trapKind(): CpuFault['kind'] | null
  frames(): NativeFrame[]
  fault(): CpuFault | null
  abandon(): void
  /** The buffer is detached. */
  dispose(memory?: ArrayBuffer): void
}

/** `TapDevice` of tap.rs. */
export interface NativeTap {
  /** The frame's length, 0 for none, or a negative errno. */
  readFunction(): (frame: Uint8Array, offset: number) => number
  /** 1, 0 if the queue is full, or a negative errno. */
  writeFunction(): (frame: Uint8Array, offset: number, length: number) => number
  name(): string
  mtu(): number
  close(): void
}

/** `DwarfType` of dwarf.rs. */
export interface DwarfType {
  kind: 'signed' | 'unsigned' | 'float' | 'boolean' | 'struct' | 'pointer' | 'vector'
  name: string
  bytes: number
  /** Kinds pointer and vector: index of what is pointed at, or of a lane. */
  target?: number
  /** Kind struct; types by index, offsets in bytes. */
  members?: { name: string; typeIndex: number; offset: number }[]
}

/** `DwarfVariable` of dwarf.rs. */
export interface DwarfVariable {
  name: string
  typeIndex: number
  /** Address, address behind it and index of the wasm local that holds it there, ascending; elsewhere it has no value. */
  places: Uint32Array
  parameter: boolean
}

/** `DwarfFunction` of dwarf.rs. */
export interface DwarfFunction {
  name: string
  linkageName: string
  /** Address of its first instruction, and the one behind its last. */
  start: number
  end: number
  /** Address, file, line and column, ascending by address. Empty: no source. */
  rows: Uint32Array
  /** Index of the type that it returns. */
  result?: number
  variables: DwarfVariable[]
}

/** `DwarfInfo` of dwarf.rs. Addresses count from the contents of the code section. */
export interface DwarfInfo {
  producer: string
  name: string
  /** Folder that file names are relative to. */
  directory: string
  files: string[]
  codeBytes: number
  types: DwarfType[]
  functions: DwarfFunction[]
  constants: { name: string; typeIndex: number; value: number }[]
}

export interface Addon {
  readonly PlainCpu: new (
    module: Uint8Array,
    pages: number,
    fuelPerSlice: number,
    guard: readonly MemoryGuard[],
    watchStart: number,
    watchEnd: number,
    limit?: SliceLimit | undefined,
  ) => NativeCpu
  /** Compiles for CPUs to come, on another thread. */
  precompile(module: Uint8Array, limit?: SliceLimit): Promise<void>
  /** Throws ERR_CPU_DWARF for a description that contradicts itself. */
  dwarfSections(info: DwarfInfo): { name: string; contents: Uint8Array }[]
  /** On Linux. */
  readonly TapDevice?: new (
    name: string,
    options: { mtu?: number; address?: string; up?: boolean },
    onReadable: () => void,
  ) => NativeTap
}

let loaded: Addon | undefined

/**
 * The addon, loaded at the first call.
 *
 * Throws ERR_CPU_ADDON_MISSING: it was not built, or it does not load.
 */
export function loadAddon(): Addon {
  loaded ??= load()
  return loaded
}

/** The addon can be loaded. */
export function hasAddon(): boolean {
  try {
    loadAddon()
    return true
  } catch {
    return false
  }
}

function load(): Addon {
  const folder = join(packageRoot(), 'emulator', 'cpu')
  const require = createRequire(import.meta.url)
  const build = 'node emulator/cpu/build.mjs builds it and needs Rust (https://rustup.rs); --cpu v8 does without'
  // One of them is there: build.mjs names the file for the compiler's target.
  const platforms = process.platform === 'linux' ? ['linux-gnu', 'linux-musl'] : [process.platform]
  for (const platform of platforms) {
    const [system, abi] = platform.split('-')
    const file = join(folder, `inic-cpu.${[system, process.arch, abi].filter(Boolean).join('-')}.node`)
    if (!existsSync(file)) continue
    try {
      return require(file)
    } catch (cause) {
      throw new CpuError('ERR_CPU_ADDON_MISSING', `the CPU addon ${file} does not load: ${cause}. ${build}`, { cause })
    }
  }
  const missing = `the CPU addon is not in ${folder} for ${process.platform} on ${process.arch}`
  throw new CpuError('ERR_CPU_ADDON_MISSING', `${missing}. ${build}`)
}

/** The addon stays with the sources: from dist/ it is up to the folder of package.json and down again. */
function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder)
    if (parent === folder) throw new CpuError('ERR_CPU_ADDON_MISSING', `no package.json above ${import.meta.url}`)
    folder = parent
  }
  return folder
}
