import { sipHash } from '../hal/random.ts'
import { SELF, serverAt } from '../ipos/server.ts'
import { carve } from '../mem/carve.ts'
import { state } from '../state.ts'

/**
 * IPv4 identification of datagrams that may be fragmented (RFC 6864 §4.1): it must not repeat for one source, destination
 * and protocol while old fragments live, and must not tell anybody how much we send to others (RFC 7739 §5.3). So each
 * flow counts from an offset that a keyed hash gives it, on a counter that it shares with few others. Servers of a farm send under each
 * other's addresses, so the low bits are the sender's place in the farm.
 */
const COUNTERS: u32 = 1024

export function identificationInitialize(): void {
  state().ipIdentification = carve(COUNTERS * 2)
}

/** The next identification, 0..65535. */
export function ipv4Identify(source: u32, destination: u32, protocol: u32): u32 {
  const st = state()
  const hash = sipHash(st.secret0, st.secret1, ((<u64>source) << 32) | destination, protocol)
  const counter = st.ipIdentification + (<u32>hash & (COUNTERS - 1)) * 2
  const count: u32 = load<u16>(counter)
  store<u16>(counter, <u16>(count + 1))
  const bits = st.identificationBits
  return (((count + <u32>(hash >> 48)) << bits) | serverAt(SELF).index) & 0xffff
}
