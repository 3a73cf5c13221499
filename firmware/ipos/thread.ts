import { MAXIMUM_PEERS } from '../../abi/boot.ts'
import { random32 } from '../hal/random.ts'
import { carve } from '../mem/carve.ts'
import { state } from '../state.ts'
import { REST_MS } from './forward.ts'
import { inFarm, SELF, serverAt } from './server.ts'

/**
 * Thread ports that we propose. Towards one client address and port a number is not used again while packets with it may
 * still be on the hub (docs/protocol.md), and servers share the numbers by their places in the farm, so that nobody proposes what another
 * one has used. Clients share counters by a hash; a counter goes round this server's numbers in sixteen stretches, and enters a
 * stretch only if it left it a packet lifetime ago.
 */
const NUMBERS: u32 = 65536
const COUNTERS: u32 = 1024
const STRETCHES: u32 = 16
/** u32 next, then for each stretch u32 when it was left, in milliseconds; 0 = never. */
const COUNTER_BYTES: u32 = 4 + STRETCHES * 4

export function threadInitialize(): void {
  const st = state()
  if (!inFarm()) return
  st.threadBase = carve(COUNTERS * COUNTER_BYTES)
  let places: u32 = 1
  for (let row: u32 = 0; row < st.serverCount; row++) places = max<u32>(places, placeOf(row) + 1)
  st.threadPlaces = places
  st.threadStretch = NUMBERS / places / STRETCHES
  // What this server proposed before it was switched off should seldom come again.
  const count = st.threadStretch * STRETCHES
  for (let i: u32 = 0; i < COUNTERS; i++) store<u32>(st.threadBase + i * COUNTER_BYTES, random32() % count)
}

function placeOf(row: u32): u32 {
  return serverAt(row).index & MAXIMUM_PEERS
}

/** A thread port for an endpoint of this client, or 0: too many of its endpoints have moved in the last minute. */
export function threadChoose(client: u32, clientPort: u32): u32 {
  const st = state()
  const hash = (client ^ (clientPort << 16) ^ <u32>st.hashKey0) * 0x9e3779b1
  const counter = st.threadBase + (hash >>> 22) * COUNTER_BYTES
  const stretch = st.threadStretch
  while (true) {
    const value = load<u32>(counter)
    const next = value + 1 == stretch * STRETCHES ? 0 : value + 1
    if (next % stretch == 0) {
      const left = load<u32>(counter + 4 + (next / stretch) * 4)
      if (left != 0 && st.nowMs - left < REST_MS) return 0
      store<u32>(counter + 4 + (value / stretch) * 4, st.nowMs ? st.nowMs : 1)
    }
    store<u32>(counter, next)
    const thread = next * st.threadPlaces + placeOf(SELF)
    if (thread) return thread
  }
}
