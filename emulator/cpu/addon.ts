/** The native addon: its exports as they are, and where to find it. What is for use is in index.ts, debug.ts, tap.ts. */

import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CpuError, type CpuFault, type MemoryGuard } from './cpu.ts'

/** Slots of the numbers shared with `poll` and `reset`; `Io` of plain.rs. */
export const CpuIo = { irqs: 0, result: 1, cycles: 2, stored: 3 } as const

/** `PlainCpu` of plain.rs. */
export interface NativeCpu {
  /** INIC memory. To be called once. */
  memory(): ArrayBuffer
  /** {@link CpuIo} as a Float64Array. To be called once. */
  io(): ArrayBuffer
  pollFunction(): () => void
  resetFunction(): () => void
  fault(): CpuFault | null
  dispose(memory: ArrayBuffer): void
}

/** `Outcome` of debug.rs. */
export interface NativeOutcome {
  state: 'stopped' | 'done' | 'fault'
  reason?: 'breakpoint' | 'step' | 'trap'
  trap?: CpuFault['kind']
  result?: number
  fault?: CpuFault
}

/** `Value` of debug.rs. */
export type NativeValue =
  | { type: 'i32' | 'f32' | 'f64' | 'ref'; value: number }
  | { type: 'i64' | 'v128'; value: bigint }

/** `DebugFrame` of debug.rs. */
export interface NativeFrame {
  functionIndex: number
  functionName?: string
  pc: number
  locals: NativeValue[]
  stack: NativeValue[]
}

/** `DebugCpu` of debug.rs. */
export interface NativeDebugCpu {
  memory(): ArrayBuffer
  reset(): NativeOutcome
  poll(irqs: number): NativeOutcome
  resume(): NativeOutcome
  addBreakpoint(pc: number): number
  removeBreakpoint(pc: number): boolean
  singleStep(on: boolean): void
  frames(): NativeFrame[]
  cycles(): number
  dispose(memory: ArrayBuffer): void
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

type NativeCpuArguments = [module: Uint8Array, pages: number, fuelPerSlice: number, guard: readonly MemoryGuard[]]

export interface Addon {
  readonly PlainCpu: new (...args: [...NativeCpuArguments, watchStart: number, watchEnd: number]) => NativeCpu
  readonly DebugCpu: new (...args: NativeCpuArguments) => NativeDebugCpu
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
