/** The filtering database (IEEE 802.1D §7.9): where stations were last heard. A hash table of sets of four; the one silent for longest makes room. */
import { CARVE_BASE } from 'inic/abi/memory.ts'
import { TRACE_OWN } from 'inic/abi/trace.ts'
import { sipHash } from 'inic/firmware/hal/random.ts'
import { Hal } from 'inic/firmware/hal/state.ts'
import { trace } from 'inic/firmware/hal/trace.ts'

/** Power of two. */
export const ROWS: u32 = 1024
const WAYS: u32 = 4
/** §7.9.2: the recommended ageing time. */
const AGEING_MS: u32 = 300000
export const NO_PORT: u32 = 0xff

// Trace events: a = port, b = the first two bytes of the address, c = the other four.
const TRACE_LEARNED: u32 = TRACE_OWN
const TRACE_FORGOTTEN: u32 = TRACE_OWN + 1

@unmanaged
export class Station {
  mac: u64
  seenMs: u32
  port: u8
  inUse: u8
}

export const STATION_BYTES: u32 = 16

/** Everything that the firmware keeps and that is no table. */
@unmanaged
export class State extends Hal {
  stations: u32
  sweepMs: u32
}

export function state(): State {
  return changetype<State>(CARVE_BASE)
}

function station(row: u32): Station {
  return changetype<Station>(state().stations + row * STATION_BYTES)
}

/** First row of the set that an address belongs to. The key keeps strangers from filling one set on purpose. */
function setOf(mac: u64): u32 {
  return <u32>sipHash(state().hashKey0, state().hashKey1, mac, 0) & (ROWS - WAYS)
}

/** Port on which a station was last heard, or NO_PORT. */
export function lookup(mac: u64): u32 {
  const first = setOf(mac)
  for (let row = first; row < first + WAYS; row++) {
    const s = station(row)
    if (s.inUse && s.mac == mac) return s.port
  }
  return NO_PORT
}

/** Notes that a station was heard on a port; true if that is new. */
export function learn(mac: u64, port: u32): bool {
  const now = state().nowMs
  const first = setOf(mac)
  let place = station(first)
  for (let row = first; row < first + WAYS; row++) {
    const s = station(row)
    if (s.inUse && s.mac == mac) {
      s.seenMs = now
      if (s.port == port) return false
      s.port = <u8>port
      traceStation(TRACE_LEARNED, s)
      return true
    }
    if (place.inUse && (!s.inUse || now - s.seenMs > now - place.seenMs)) place = s
  }
  if (place.inUse) forget(place)
  place.mac = mac
  place.seenMs = now
  place.port = <u8>port
  place.inUse = 1
  traceStation(TRACE_LEARNED, place)
  return true
}

/** Forgets stations that were not heard for AGEING_MS. */
export function forgetSilent(): void {
  const now = state().nowMs
  for (let row: u32 = 0; row < ROWS; row++) {
    const s = station(row)
    if (s.inUse && now - s.seenMs >= AGEING_MS) forget(s)
  }
}

/** Forgets the stations of a port. */
export function forgetPort(port: u32): void {
  for (let row: u32 = 0; row < ROWS; row++) {
    const s = station(row)
    if (s.inUse && s.port == port) forget(s)
  }
}

function forget(s: Station): void {
  s.inUse = 0
  traceStation(TRACE_FORGOTTEN, s)
}

function traceStation(event: u32, s: Station): void {
  trace(event, s.port, <u32>(s.mac >> 32), <u32>s.mac)
}
