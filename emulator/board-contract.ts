/** What a board is made of, what it counts, and what it needs from its farm. */
import type { Board } from './board.ts'
import type { BootLoader, BootSettings, SourceResolver } from './boot.ts'
import type { CountSink, CpuKind } from './cpu/index.ts'
import type { CrashReport } from './crash.ts'
import type { DmaStatistics } from './devices/dma.ts'
import type { Flash } from './devices/flash.ts'
import type { MacStatistics } from './devices/mac.ts'
import type { HostRunner, InterruptLine } from './process.ts'
import type { Supervisor } from './supervisor.ts'

export interface BoardOptions {
  /** Default 'auto': Wasmtime where the addon was built. */
  cpu?: CpuKind | 'auto'
  /** INIC memory; a multiple of 64 KiB. Default DEFAULT_MEMORY_BYTES. */
  memoryBytes?: number
  /** Fuel a second. Default 1e9: one unit of fuel lasts one nanosecond. */
  clockHz?: number
  /** Fuel that one slice may spend before the watchdog stops the board; where fuel is not counted, `sliceLimit` stops it. */
  fuelPerSlice?: number
  /** Six bytes a port. The default derives from the board's number in its farm. */
  macAddresses?: readonly Uint8Array[]
  flash?: Flash
  bootLoader?: BootLoader
  boot?: BootSettings
  /** For firmware handed to `powerOn` as bytes; a boot loader brings its own. */
  resolveSource?: SourceResolver
}

/** Nanoseconds spent by part, while profiling is switched on. */
export interface Profile {
  firmwareNs: number
  /** From the transmit ring to the receive ring or whatever else is at the other end. */
  linkNs: number
  dmaNs: number
  hostNs: number
  slices: number
}

/** Counters of a board since power-on. */
export interface BoardStatistics {
  slices: number
  /** Of slices whose fuel was counted: all in virtual time, those that were recorded in real time; none on v8. */
  fuel: number
  ports: MacStatistics[]
  dma: DmaStatistics
  /** Interrupts of each process of the main board, by queue set. */
  interrupts: Record<number, number>
}

/** What a board needs from its farm. */
export interface BoardHost extends HostRunner {
  /** The board has work and is not in a slice. */
  ready(board: Board): void
  /** The board's alarm rang. */
  due(board: Board): void
  /** Time is simulated. */
  readonly virtual: boolean
  /** Raises an interrupt line that is not raised yet. */
  interrupt(line: InterruptLine): void
  consoleLine(board: Board, line: string): void
  crashed(board: Board, report: CrashReport): void
  /** 32 bytes that follow from the farm's seed and `name`. */
  seedBytes(name: string): Uint8Array
  /** The board's CPU is halted in mid-slice: nothing in the farm goes on until `Farm.resume`. */
  halted(board: Board): void
  /** Null while profiling is off. */
  readonly profile: Profile | null
  readonly supervisor: Supervisor | null
  /** Takes how often each instruction of every board ran; null: nobody counts. */
  readonly counts: CountSink | null
}
