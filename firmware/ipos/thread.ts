import { random32 } from '../hal/random.ts'
import { carve } from '../mem/carve.ts'
import { state } from '../state.ts'
import { REST_MS } from './forward.ts'
import { inFarm } from './server.ts'

/**
 * Thread ports that we propose. Towards one client address and port a number is not used again while packets with it may
 * still be on the hub (docs/protocol.md). Clients share counters by a hash; a counter goes round its 65,536 numbers in sixteen
 * stretches, and enters a stretch only if it left it a packet lifetime ago.
 */
const COUNTERS: u32 = 1024
const STRETCHES: u32 = 16
const STRETCH: u32 = 65536 / STRETCHES
/** u32 next, then for each stretch u32 when it was left, in milliseconds; 0 = never. */
const COUNTER_BYTES: u32 = 4 + STRETCHES * 4

export function threadInitialize(): void {
  const st = state()
  if (!inFarm()) return
  st.threadBase = carve(COUNTERS * COUNTER_BYTES)
  // Two servers that move the same client's connections to a third should seldom propose the same.
  for (let i: u32 = 0; i < COUNTERS; i++) store<u32>(st.threadBase + i * COUNTER_BYTES, random32() & 0xffff)
}

/** A thread port for an endpoint of this client, or 0: too many of its endpoints have moved in the last minute. */
export function threadChoose(client: u32, clientPort: u32): u32 {
  const st = state()
  const hash = (client ^ (clientPort << 16) ^ <u32>st.hashKey0) * 0x9e3779b1
  const counter = st.threadBase + (hash >>> 22) * COUNTER_BYTES
  while (true) {
    const value = load<u32>(counter)
    const next = (value + 1) & 0xffff
    if (next % STRETCH == 0) {
      const left = load<u32>(counter + 4 + (next / STRETCH) * 4)
      if (left != 0 && st.nowMs - left < REST_MS) return 0
      store<u32>(counter + 4 + (value / STRETCH) * 4, st.nowMs ? st.nowMs : 1)
    }
    store<u32>(counter, next)
    if (next) return next
  }
}
