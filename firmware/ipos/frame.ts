import { IPOS_SERVER_ADDRESS, IPOS_SERVER_PORT } from '../../abi/ipos.ts'
import { transmitClaim, transmitCommit } from '../hal/mac.ts'
import { counters, state } from '../state.ts'
import { ETHERNET_HEADER_BYTES, ethernetWrite, MAC_BROADCAST } from '../wire/ethernet.ts'
import { iposHeader, iposSeal, iposStore16, iposStore32 } from '../wire/ipos.ts'
import { SELF, serverAt } from './server.ts'

/** Sending on the synchronization hub. */

/** The client, the server's address that it uses, and the thread port: what every packet about an endpoint names. */
@unmanaged
export class Naming {
  client: u32
  clientPort: u32
  server: u32
  serverPort: u32
  thread: u32
  /** IPOS_TCP or IPOS_UDP */
  protocol: u32
}

/** Address of the ipOS header of a frame to be filled in and sent by `iposCommit`, or 0 if the ring is full. */
export function iposClaim(): u32 {
  const frame = transmitClaim(state().hubPort)
  return frame ? frame + ETHERNET_HEADER_BYTES : 0
}

/** Sends the frame whose header and payload stand at `header`. @param row of the receiver, SELF = all @param bytes of both */
export function iposCommit(header: u32, row: u32, bytes: u32): void {
  const st = state()
  iposSeal(header, bytes)
  const destination = row == SELF ? MAC_BROADCAST : serverAt(row).mac
  ethernetWrite(header - ETHERNET_HEADER_BYTES, destination, serverAt(SELF).mac, st.iposEtherType)
  transmitCommit(st.hubPort, ETHERNET_HEADER_BYTES + bytes)
  counters().iposOut++
}

/** Begins a packet about an endpoint: header and connection information. Returns the header's address, or 0 if the ring is full. */
export function iposBegin(type: u32, row: u32, naming: Naming): u32 {
  const header = iposClaim()
  if (!header) return 0
  iposHeader(header, type, naming.protocol, naming.client, naming.clientPort, serverAt(row).address, naming.thread)
  iposStore32(header, IPOS_SERVER_ADDRESS, naming.server)
  iposStore16(header, IPOS_SERVER_PORT, naming.serverPort)
  return header
}
