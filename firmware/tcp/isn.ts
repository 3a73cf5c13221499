import { sipHash } from '../hal/random.ts'
import { state } from '../state.ts'
import { tablePorts } from './table.ts'

/** Initial sequence number: a 4 µs clock plus a keyed hash of the connection (RFC 6528 §3). */
export function initialSequence(local: u32, remote: u32, localPort: u32, remotePort: u32): u32 {
  const st = state()
  const addresses = <u64>local | ((<u64>remote) << 32)
  return <u32>(st.nowNs / 4000) + <u32>sipHash(st.secret0, st.secret1, addresses, tablePorts(localPort, remotePort))
}

/**
 * Offset of the timestamp clock towards one peer. It is the same for all connections between two addresses, so timestamps grow
 * from one connection of a 4-tuple to the next, which lets a port be used again in TIME-WAIT (RFC 6191, RFC 7323 §5.4).
 */
export function timestampOffset(local: u32, remote: u32): u32 {
  const st = state()
  return <u32>sipHash(st.secret1, st.secret0, <u64>local | ((<u64>remote) << 32), 1)
}
