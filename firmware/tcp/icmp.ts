import { STATUS_ECONNREFUSED, STATUS_EHOSTUNREACH, STATUS_ENETUNREACH } from '../../abi/status.ts'
import { TCP_SYN_SENT } from '../../abi/tcp.ts'
import { tcpFail } from './close.ts'
import { seqLt } from './sequence.ts'
import { ENTRY_TAGS, tableFind } from './table.ts'
import { F_LOSS, F_RECOVERY, tcbAt, wantOutput } from './tcb.ts'

const UNREACHABLE: u32 = 3
const CODE_PROTOCOL: u32 = 2
const CODE_PORT: u32 = 3
const CODE_FRAGMENTATION_NEEDED: u32 = 4
/** Smallest path MTU that is believed (RFC 1191 §3: 68; lower values are attacks). */
const MINIMUM_PATH_MTU: u32 = 576

/**
 * An ICMP error quotes a segment of ours (RFC 5927): believed only if the quoted sequence number is one that is outstanding.
 *
 * @param mtu next-hop MTU of "fragmentation needed", 0 for other codes
 */
export function tcpIcmpError(
  local: u32,
  remote: u32,
  localPort: u32,
  remotePort: u32,
  sequence: u32,
  type: u32,
  code: u32,
  mtu: u32,
): void {
  const entry = tableFind(local, remote, localPort, remotePort)
  if (entry == 0 || (entry & ENTRY_TAGS) != 0) return
  const tcb = tcbAt(entry)
  if (seqLt(sequence, tcb.sndUna) || !seqLt(sequence, tcb.sndMax)) return
  if (type == UNREACHABLE && code == CODE_FRAGMENTATION_NEEDED) {
    const path = max<u32>(mtu, MINIMUM_PATH_MTU) - 40
    if (path >= <u32>tcb.mss) return
    tcb.mss = <u16>path
    // What was too big goes again in smaller pieces (RFC 1191 §6.4).
    tcb.flags = (tcb.flags & ~F_RECOVERY) | F_LOSS
    tcb.recover = tcb.sndMax
    tcb.sndNxt = tcb.sndUna
    wantOutput(tcb)
    return
  }
  // Hard errors end an opening connection; on one that works every error is soft (RFC 5461, RFC 5927 §5.2).
  if (tcb.state != TCP_SYN_SENT || type != UNREACHABLE) return
  if (code == CODE_PORT || code == CODE_PROTOCOL) tcpFail(tcb, STATUS_ECONNREFUSED)
  else if (code == 0) tcpFail(tcb, STATUS_ENETUNREACH)
  else tcpFail(tcb, STATUS_EHOSTUNREACH)
}
