import { CARVE_BASE } from '../../abi/memory.ts'
import { MAC_PORTS } from '../../abi/registers.ts'

/**
 * What the hardware layer keeps, at a fixed address. A firmware that keeps more extends it, and reads its own class there:
 *
 *     CARVE_BASE ┌──────────────────────────────┐
 *                │ Hal, or a class that extends │ STATE_BYTES at most
 *     + 0x400    ├──────────────────────────────┤
 *                │ Port, one for each MAC port  │
 *     + 0x500    ├──────────────────────────────┤
 *                │ Counters, likewise           │ COUNTERS_BYTES at most
 *     + 0x1000   ├──────────────────────────────┤
 *                │ what `carve` hands out       │
 *                └──────────────────────────────┘
 *
 * There is no mutable global anywhere: a copy of INIC memory is a copy of the firmware.
 */
@unmanaged
export class Hal {
  // Time at the start of this poll (hal/timer.ts).
  nowNs: u64
  /** Milliseconds since power-on. Wraps after 49 days. */
  nowMs: u32
  /** Microseconds since power-on. Wraps after 71 minutes. */
  nowUs: u32

  // Carving of INIC memory at reset (mem/carve.ts).
  carveNext: u32
  memoryBytes: u32

  // Random numbers (hal/random.ts).
  random0: u64
  random1: u64
  random2: u64
  random3: u64
  /** Keys of hashes that a remote peer must not predict (RFC 6528, RFC 4987, RFC 6056, hash tables). */
  hashKey0: u64
  hashKey1: u64
  secret0: u64
  secret1: u64

  // Rings (hal/uart.ts, hal/trace.ts).
  uartBase: u32
  uartHead: u32
  traceBase: u32
  traceHead: u32
}

/** Per-port state of the MAC rings; MAC_PORTS + 1 of them, the last is the loopback inside the card. */
@unmanaged
export class Port {
  // Addresses of descriptors: of the ring's first, of the one whose turn is next, and behind its last.
  rxBase: u32
  rxNext: u32
  rxEnd: u32
  txBase: u32
  txNext: u32
  txEnd: u32
  /** Who may read the next received frame. */
  rxOwner: u32
  txBuffers: u32
}

/** Counters of the hardware layer, free-running; shown by `inic inspect`. A firmware that counts more extends them. */
@unmanaged
export class HalCounters {
  framesIn: u64
  framesOut: u64
  framesDropped: u64
  /** No transmit slot was free. */
  transmitBusy: u64
}

export const STATE_BYTES: u32 = 0x400
export const PORT_BYTES = 32
export const LOOPBACK_PORT = MAC_PORTS
const PORTS_BASE = CARVE_BASE + STATE_BYTES
export const COUNTERS_BASE = CARVE_BASE + 0x500
/** First address that `carve` hands out. */
export const CARVE_START = CARVE_BASE + 0x1000
export const COUNTERS_BYTES: u32 = CARVE_START - COUNTERS_BASE

export function hal(): Hal {
  return changetype<Hal>(CARVE_BASE)
}

export function halCounters(): HalCounters {
  return changetype<HalCounters>(COUNTERS_BASE)
}

/** @param index 0..MAC_PORTS - 1, or LOOPBACK_PORT */
export function port(index: u32): Port {
  return changetype<Port>(PORTS_BASE + index * PORT_BYTES)
}
