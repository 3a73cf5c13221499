import { IPOS_HEADER_BYTES, IPOS_SERVER_ADDRESS, IPOS_SERVER_PORT } from '../../abi/ipos.ts'
import { CARVE_BASE } from '../../abi/memory.ts'
import { transmitClaim, transmitCommit } from '../hal/mac.ts'
import { counters, state } from '../state.ts'
import { checksumAdd } from '../wire/checksum.ts'
import { ETHERNET_HEADER_BYTES, ethernetWrite, MAC_BROADCAST } from '../wire/ethernet.ts'
import {
  iposHeader,
  iposProtocol,
  iposSeal,
  iposServer,
  iposServerPort,
  iposSource,
  iposSourcePort,
  iposStore16,
  iposStore32,
  iposThread,
} from '../wire/ipos.ts'
import { SELF, serverAt } from './server.ts'

/** Sending on the synchronization hub. */

/** What every packet about an endpoint names: the client, the server's address that it uses, and the thread port. */
@unmanaged
export class Naming {
  client: u32
  server: u32
  clientPort: u16
  serverPort: u16
  thread: u16
  /** IPOS_TCP or IPOS_UDP */
  protocol: u16
}

const NAMING_BASE: u32 = CARVE_BASE + 0x980

/** Scratch: filled in just before a packet is built, kept by nobody. */
export function naming(client: u32, clientPort: u32, server: u32, serverPort: u32, thread: u32, protocol: u32): Naming {
  const n = changetype<Naming>(NAMING_BASE)
  n.client = client
  n.server = server
  n.clientPort = <u16>clientPort
  n.serverPort = <u16>serverPort
  n.thread = <u16>thread
  n.protocol = <u16>protocol
  return n
}

/** Address of the ipOS header of a frame to be filled in and sent by `iposCommit`, or 0 if the ring is full. */
export function iposClaim(): u32 {
  const frame = transmitClaim(state().hubPort)
  return frame ? frame + ETHERNET_HEADER_BYTES : 0
}

/** Sends the frame whose header and payload stand at `header`. @param row of the receiver, SELF = all @param bytes of both */
export function iposCommit(header: u32, row: u32, bytes: u32): void {
  send(header, row, bytes, checksumAdd(header, bytes, 0))
}

/** As `iposCommit`, where the sum of the payload is known. */
export function iposCommitSummed(header: u32, row: u32, bytes: u32, payloadSum: u32): void {
  send(header, row, bytes, checksumAdd(header, IPOS_HEADER_BYTES, payloadSum))
}

function send(header: u32, row: u32, bytes: u32, sum: u32): void {
  const st = state()
  iposSeal(header, sum)
  const destination = row == SELF ? MAC_BROADCAST : serverAt(row).mac
  ethernetWrite(header - ETHERNET_HEADER_BYTES, destination, serverAt(SELF).mac, st.iposEtherType)
  transmitCommit(st.hubPort, ETHERNET_HEADER_BYTES + bytes)
  counters().iposOut++
}

/** Begins a packet about an endpoint: header alone. Returns its address, or 0 if the ring is full. */
export function iposBeginBare(type: u32, row: u32, n: Naming): u32 {
  const header = iposClaim()
  if (!header) return 0
  iposHeader(header, type, n.protocol, n.client, n.clientPort, serverAt(row).address, n.thread)
  return header
}

/** As `iposBeginBare`, with the connection information behind the header. */
export function iposBegin(type: u32, row: u32, n: Naming): u32 {
  const header = iposBeginBare(type, row, n)
  if (!header) return 0
  iposStore32(header, IPOS_SERVER_ADDRESS, n.server)
  iposStore16(header, IPOS_SERVER_PORT, n.serverPort)
  return header
}

/** The names in a packet with connection information, for its answer. */
export function namesIn(header: u32): Naming {
  const protocol = iposProtocol(header)
  const server = iposServer(header)
  return naming(
    iposSource(header),
    iposSourcePort(header),
    server,
    iposServerPort(header),
    iposThread(header),
    protocol,
  )
}
