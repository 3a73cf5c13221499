import { transmitClaim, transmitCommit } from '../hal/mac.ts'
import { random32 } from '../hal/random.ts'
import { LOOPBACK_PORT } from '../hal/state.ts'
import { arpLookup } from '../net/arp.ts'
import { ethernetHeader } from '../net/ethernet.ts'
import { ipv4Header } from '../net/ipv4.ts'
import { ipv4Send } from '../net/output.ts'
import { nextHop, routeTo } from '../net/route.ts'
import { counters, state } from '../state.ts'
import { checksumAdd, checksumFinish, pseudoHeaderSum } from '../wire/checksum.ts'
import { ETHERNET_HEADER_BYTES, ETHERTYPE_IPV4 } from '../wire/ethernet.ts'
import { IPV4_HEADER_BYTES, IPV4_PROTOCOL_TCP, ipv4Destination, ipv4Source } from '../wire/ipv4.ts'
import {
  TCP_ACK,
  TCP_CHECKSUM,
  TCP_FIN,
  TCP_HEADER_BYTES,
  TCP_RST,
  TCP_SYN,
  TIMESTAMPS_BYTES,
  tcpAcknowledgement,
  tcpDestinationPort,
  tcpFlags,
  tcpHeader,
  tcpSequence,
  tcpSourcePort,
  tcpTimestamps,
} from '../wire/tcp.ts'
import { tcpAbandon } from './close.ts'
import { F_ACK_NOW, Tcb, wantOutput } from './tcb.ts'

/** Resets and challenge ACKs that one second may bring out, so that a flood does not make us one (RFC 5961 §7). */
const RESETS_PER_SECOND: u32 = 1000
const CHALLENGES_PER_SECOND: u32 = 100
const TTL: u32 = 64

/** Resets a connection whose application will not take what comes (RFC 9293 §3.6.1). */
export function reset(tcb: Tcb): void {
  tcpAbandon(tcb, true)
}

/** Answers a segment that is not what it should be with the ACK that a real peer can put right (RFC 5961 §3.2, §4.2, §5.2). */
export function challengeAck(tcb: Tcb): void {
  if (!challengeAllowed()) return
  tcb.flags |= F_ACK_NOW
  wantOutput(tcb)
}

/** True if one more challenge ACK may go out in this second; counts it. */
export function challengeAllowed(): bool {
  const st = state()
  if (st.nowMs - st.challengeWindowMs >= 1000) {
    st.challengeWindowMs = st.nowMs
    // A limit that is known to the last ACK would tell an attacker who probes it whether he guessed right (CVE-2016-5696).
    st.challengesSent = random32() % (CHALLENGES_PER_SECOND / 2)
  }
  if (st.challengesSent >= CHALLENGES_PER_SECOND) return false
  st.challengesSent++
  counters().tcpChallengeAcks++
  return true
}

/** RST in answer to a segment that belongs to no connection (RFC 9293 §3.5.2, §3.10.7.1). */
export function replyReset(packet: u32, segment: u32, bytes: u32): void {
  const st = state()
  const flags = tcpFlags(segment)
  if (flags & TCP_RST) return
  if (st.nowMs - st.resetWindowMs >= 1000) {
    st.resetWindowMs = st.nowMs
    st.resetsSent = 0
  }
  if (st.resetsSent >= RESETS_PER_SECOND) return
  st.resetsSent++
  counters().tcpResetsOut++
  const local = ipv4Destination(packet)
  const remote = ipv4Source(packet)
  if (flags & TCP_ACK) {
    sendBare(
      local,
      remote,
      tcpDestinationPort(segment),
      tcpSourcePort(segment),
      tcpAcknowledgement(segment),
      0,
      TCP_RST,
      0,
      0,
      0,
    )
    return
  }
  const end = tcpSequence(segment) + bytes + (flags & TCP_SYN ? 1 : 0) + (flags & TCP_FIN ? 1 : 0)
  sendBare(local, remote, tcpDestinationPort(segment), tcpSourcePort(segment), 0, end, TCP_RST | TCP_ACK, 0, 0, 0)
}

/**
 * Sends a segment without payload for which there is no TCB. Best effort: dropped if the ring is full. It may wait for its neighbour's
 * address, as datagrams do.
 *
 * @param window as it stands in the header
 * @param tsValue with `tsEcho`, a timestamps option; both 0 = none
 */
export function sendBare(
  local: u32,
  remote: u32,
  localPort: u32,
  remotePort: u32,
  sequence: u32,
  acknowledgement: u32,
  flags: u32,
  window: u32,
  tsValue: u32,
  tsEcho: u32,
): void {
  const index = routeTo(remote, local)
  if (index < 0) return
  const arp = <u32>index == LOOPBACK_PORT ? 0 : arpLookup(index, nextHop(index, remote))
  const waits = arp == 0 && <u32>index != LOOPBACK_PORT
  const frame = waits ? 0 : transmitClaim(index)
  if (!frame && !waits) return
  const segment = waits ? state().datagramBuffer : frame + ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES
  let headerBytes = TCP_HEADER_BYTES
  if ((tsValue | tsEcho) != 0) {
    tcpTimestamps(segment + headerBytes, tsValue, tsEcho)
    headerBytes += TIMESTAMPS_BYTES
  }
  tcpHeader(segment, localPort, remotePort, sequence, acknowledgement, headerBytes, flags, window)
  if (!waits) {
    finishBare(frame, index, arp, local, remote, headerBytes)
    return
  }
  segmentChecksum(segment, local, remote, headerBytes)
  if (ipv4Send(index, local, remote, IPV4_PROTOCOL_TCP, TTL, segment, headerBytes)) counters().tcpOut++
}

/** Checksums, IP and Ethernet headers of a segment built in a claimed slot, and off it goes. */
export function finishBare(frame: u32, interfaceIndex: u32, arp: u32, local: u32, remote: u32, headerBytes: u32): void {
  const packet = frame + ETHERNET_HEADER_BYTES
  const segment = packet + IPV4_HEADER_BYTES
  segmentChecksum(segment, local, remote, headerBytes)
  ipv4Header(packet, IPV4_HEADER_BYTES + headerBytes, IPV4_PROTOCOL_TCP, local, remote, TTL, true)
  ethernetHeader(frame, interfaceIndex, arp, ETHERTYPE_IPV4)
  transmitCommit(interfaceIndex, ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES + headerBytes)
  counters().tcpOut++
}

function segmentChecksum(segment: u32, local: u32, remote: u32, bytes: u32): void {
  const sum = checksumAdd(segment, bytes, pseudoHeaderSum(local, remote, IPV4_PROTOCOL_TCP, bytes))
  store<u16>(segment + TCP_CHECKSUM, <u16>checksumFinish(sum))
}
