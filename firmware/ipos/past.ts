import { carve } from '../mem/carve.ts'
import { state } from '../state.ts'
import { REST_MS } from './forward.ts'
import { inFarm } from './server.ts'

/**
 * Thread ports by which an endpoint was known here, remembered for as long as packets of its move may be on the hub: a connection packet
 * that comes late would build the endpoint once more, and the data behind it bring it to life. Each has its place among the eight of
 * its hash; in a full set the oldest goes early.
 */
@unmanaged
class Past {
  client: u32
  clientPort: u16
  thread: u16
  /** When the endpoint left; 0 = free. */
  leftMs: u32
}

const PAST_BYTES: u32 = 12
const WAYS: u32 = 8

export function pastInitialize(): void {
  const st = state()
  if (!inFarm()) return
  let sets: u32 = 64
  while (sets * WAYS < st.tcbCount * 2) sets <<= 1
  st.pastMask = sets - 1
  st.pastBase = carve(sets * WAYS * PAST_BYTES)
}

function setOf(client: u32, clientPort: u32, thread: u32): u32 {
  const st = state()
  const hash = (client ^ (thread | (clientPort << 16)) ^ <u32>st.hashKey0) * 0x9e3779b1
  return st.pastBase + ((hash >>> 15) & st.pastMask) * (WAYS * PAST_BYTES)
}

export function pastRemember(client: u32, clientPort: u32, thread: u32): void {
  const now = state().nowMs
  const first = setOf(client, clientPort, thread)
  let oldest = changetype<Past>(first)
  for (let way: u32 = 0; way < WAYS && oldest.leftMs != 0; way++) {
    const past = changetype<Past>(first + way * PAST_BYTES)
    if (past.leftMs == 0 || now - past.leftMs > now - oldest.leftMs) oldest = past
  }
  oldest.client = client
  oldest.clientPort = <u16>clientPort
  oldest.thread = <u16>thread
  oldest.leftMs = now ? now : 1
}

/** True if a packet with this thread port is a late one. */
export function pastKnows(client: u32, clientPort: u32, thread: u32): bool {
  const now = state().nowMs
  const first = setOf(client, clientPort, thread)
  for (let way: u32 = 0; way < WAYS; way++) {
    const past = changetype<Past>(first + way * PAST_BYTES)
    if (past.client != client || <u32>past.clientPort != clientPort || <u32>past.thread != thread) continue
    if (past.leftMs != 0 && now - past.leftMs < REST_MS) return true
  }
  return false
}
