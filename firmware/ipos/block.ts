import {
  BLOCK_BACKOFF,
  BLOCK_CUBIC_WMAX,
  BLOCK_CWND,
  BLOCK_ENTRY,
  BLOCK_FLAG_FIN_QUEUED,
  BLOCK_FLAG_FIN_RECEIVED,
  BLOCK_FLAG_FIN_SEEN,
  BLOCK_FLAG_FIN_SENT,
  BLOCK_FLAG_HANDED_OVER,
  BLOCK_FLAG_LOSS,
  BLOCK_FLAG_SACK,
  BLOCK_FLAG_TIMESTAMPS,
  BLOCK_FLAGS,
  BLOCK_IRS,
  BLOCK_ISS,
  BLOCK_KEEP_ALIVE_IDLE,
  BLOCK_KEEP_ALIVE_LEFT,
  BLOCK_KEEP_ALIVE_PROBES,
  BLOCK_LAST_ACK_SENT,
  BLOCK_MOVES,
  BLOCK_MSS,
  BLOCK_PERSIST_LEFT,
  BLOCK_RCV_ADVERTISED,
  BLOCK_RCV_FIN,
  BLOCK_RCV_NXT,
  BLOCK_RCV_READ,
  BLOCK_RCV_SCALE,
  BLOCK_RECEIVER,
  BLOCK_RESERVED,
  BLOCK_RTO,
  BLOCK_RTTVAR,
  BLOCK_SND_END,
  BLOCK_SND_MAX,
  BLOCK_SND_SCALE,
  BLOCK_SND_UNA,
  BLOCK_SND_WL1,
  BLOCK_SND_WL2,
  BLOCK_SND_WND,
  BLOCK_SND_WND_MAXIMUM,
  BLOCK_SOCKET_OPTIONS,
  BLOCK_SRTT,
  BLOCK_SSTHRESH,
  BLOCK_STALLED_AGE,
  BLOCK_STATE,
  BLOCK_STATE_BYTES,
  BLOCK_TS_CLOCK,
  BLOCK_TS_RECENT,
  BLOCK_TS_RECENT_AGE,
  BLOCK_VERSION,
  BLOCK_VERSION_VALUE,
} from '../../abi/ipos.ts'
import { MAXIMUM_STATE_BYTES, SOCKET_OPTION_KEEP_ALIVE, SOCKET_OPTION_NO_DELAY } from '../../abi/messages.ts'
import { TCP_CLOSE_WAIT, TCP_ESTABLISHED, TCP_FIN_WAIT_1, TCP_FIN_WAIT_2 } from '../../abi/tcp.ts'
import { state } from '../state.ts'
import { congestionResume } from '../tcp/congestion.ts'
import { MINIMUM_MSS } from '../tcp/handshake.ts'
import { interfaceMss, timestampNow } from '../tcp/output.ts'
import { seqLeq, seqLt } from '../tcp/sequence.ts'
import {
  F_ATTACHED,
  F_FIN_QUEUED,
  F_FIN_RECEIVED,
  F_FIN_SEEN,
  F_FIN_SENT,
  F_KEEP_ALIVE,
  F_LOSS,
  F_NO_DELAY,
  F_RECOVERY,
  F_SACK,
  F_TIMESTAMPS,
  Tcb,
  TIMER_KEEP_ALIVE,
  TIMER_PERSIST,
} from '../tcp/tcb.ts'
import { RTO_INITIAL_MS, RTO_MAXIMUM_MS } from '../tcp/timer.ts'
import { iposLoad16, iposLoad32, iposStore16, iposStore32 } from '../wire/ipos.ts'
import { Migration, MOVE_FIN_RECEIVED, MOVE_HANDED_OVER } from './migration.ts'
import { serverAt } from './server.ts'

/**
 * The TCP control block of a connection packet (abi/ipos.ts BLOCK_*): everything that a connection needs to go on, but its
 * bytes. What does not move: the SACK scoreboard and the round-trip measurement in progress. A connection in recovery goes on at
 * SND.MAX with the window that its recovery aims at, and the client's next SACK blocks tell again what is missing; one that
 * repeats after a timeout starts again at SND.UNA.
 */

/** True in the states in which an endpoint may move. */
export function blockStateMoves(value: u32): bool {
  return value == TCP_ESTABLISHED || value == TCP_CLOSE_WAIT || value == TCP_FIN_WAIT_1 || value == TCP_FIN_WAIT_2
}

/** First received byte that no application has consumed. */
export function firstUnread(tcb: Tcb): u32 {
  return tcb.flags & F_ATTACHED ? tcb.rcvEdge - state().receiveCredit : tcb.irs + 1
}

/** RCV.NXT without the FIN. */
export function receivedEnd(tcb: Tcb): u32 {
  return tcb.flags & F_FIN_RECEIVED ? tcb.rcvNxt - 1 : tcb.rcvNxt
}

function bit(flags: u32, flag: u32, value: u32): u32 {
  return flags & flag ? value : 0
}

/** Milliseconds from now to a deadline that has not passed, at least 1; 0 if its timer is not running. */
function left(tcb: Tcb, timer: u32, deadlineMs: u32): u32 {
  return tcb.timers & timer ? max<i32>(<i32>(deadlineMs - state().nowMs), 1) : 0
}

/** Writes the 140 bytes at `block`. */
export function blockWrite(block: u32, tcb: Tcb, m: Migration): void {
  const st = state()
  const f = tcb.flags
  let flags = bit(f, F_SACK, BLOCK_FLAG_SACK) | bit(f, F_TIMESTAMPS, BLOCK_FLAG_TIMESTAMPS)
  flags |= bit(f, F_FIN_QUEUED, BLOCK_FLAG_FIN_QUEUED) | bit(f, F_FIN_SENT, BLOCK_FLAG_FIN_SENT)
  flags |= bit(f, F_FIN_SEEN, BLOCK_FLAG_FIN_SEEN) | bit(f, F_FIN_RECEIVED, BLOCK_FLAG_FIN_RECEIVED)
  flags |= bit(f, F_LOSS, BLOCK_FLAG_LOSS) | bit(m.flags, MOVE_HANDED_OVER, BLOCK_FLAG_HANDED_OVER)
  store<u8>(block + BLOCK_VERSION, <u8>BLOCK_VERSION_VALUE)
  store<u8>(block + BLOCK_STATE, tcb.state)
  iposStore16(block, BLOCK_FLAGS, flags)
  iposStore32(block, BLOCK_MOVES, m.moves + 1)
  iposStore32(block, BLOCK_ENTRY, serverAt(m.entry).address)
  iposStore32(block, BLOCK_ISS, tcb.iss)
  iposStore32(block, BLOCK_SND_UNA, tcb.sndUna)
  iposStore32(block, BLOCK_SND_MAX, tcb.sndMax)
  iposStore32(block, BLOCK_SND_END, tcb.sndEnd)
  iposStore32(block, BLOCK_SND_WND, tcb.sndWnd)
  iposStore32(block, BLOCK_SND_WND_MAXIMUM, tcb.maxSndWnd)
  iposStore32(block, BLOCK_SND_WL1, tcb.sndWl1)
  iposStore32(block, BLOCK_SND_WL2, tcb.sndWl2)
  iposStore32(block, BLOCK_IRS, tcb.irs)
  iposStore32(block, BLOCK_RCV_NXT, tcb.rcvNxt)
  iposStore32(block, BLOCK_RCV_READ, firstUnread(tcb))
  iposStore32(block, BLOCK_RCV_ADVERTISED, tcb.rcvAdvertised)
  iposStore32(block, BLOCK_RCV_FIN, tcb.rcvFin)
  iposStore16(block, BLOCK_MSS, tcb.mss)
  store<u8>(block + BLOCK_SND_SCALE, tcb.sndScale)
  store<u8>(block + BLOCK_RCV_SCALE, tcb.rcvScale)
  iposStore32(block, BLOCK_TS_RECENT, tcb.tsRecent)
  iposStore32(block, BLOCK_TS_RECENT_AGE, st.nowMs - tcb.tsRecentMs)
  iposStore32(block, BLOCK_TS_CLOCK, timestampNow(tcb))
  iposStore32(block, BLOCK_LAST_ACK_SENT, tcb.lastAckSent)
  iposStore32(block, BLOCK_SRTT, tcb.srttUs)
  iposStore32(block, BLOCK_RTTVAR, tcb.rttvarUs)
  iposStore32(block, BLOCK_RTO, tcb.rtoMs)
  iposStore32(block, BLOCK_CWND, tcb.flags & F_RECOVERY ? tcb.ssthresh : tcb.cwnd)
  iposStore32(block, BLOCK_SSTHRESH, tcb.ssthresh)
  iposStore32(block, BLOCK_CUBIC_WMAX, reinterpret<u32>(tcb.cubicWMax))
  iposStore32(block, BLOCK_PERSIST_LEFT, left(tcb, TIMER_PERSIST, tcb.retransmitMs))
  iposStore32(block, BLOCK_KEEP_ALIVE_LEFT, left(tcb, TIMER_KEEP_ALIVE, tcb.keepAliveMs))
  iposStore32(block, BLOCK_KEEP_ALIVE_IDLE, tcb.keepAliveIdleMs)
  iposStore32(block, BLOCK_STALLED_AGE, st.nowMs - tcb.stalledMs)
  store<u8>(block + BLOCK_BACKOFF, tcb.backoff)
  store<u8>(block + BLOCK_KEEP_ALIVE_PROBES, <u8>tcb.keepAliveProbes)
  const options = bit(f, F_NO_DELAY, SOCKET_OPTION_NO_DELAY) | bit(f, F_KEEP_ALIVE, SOCKET_OPTION_KEEP_ALIVE)
  iposStore16(block, BLOCK_SOCKET_OPTIONS, options)
  iposStore32(block, BLOCK_STATE_BYTES, m.stateBytes)
  iposStore32(block, BLOCK_RECEIVER, m.peerIncarnation)
  store<u32>(block + BLOCK_RESERVED, 0)
}

/**
 * True if the block can be one: its numbers stand in the order that RFC 9293 §3.3.1 wants, its shifts and sizes are possible. What it says
 * is used without further doubt.
 */
export function blockIsSound(block: u32): bool {
  if (load<u8>(block + BLOCK_VERSION) != <u8>BLOCK_VERSION_VALUE || !blockStateMoves(load<u8>(block + BLOCK_STATE)))
    return false
  const flags = iposLoad16(block, BLOCK_FLAGS)
  const una = iposLoad32(block, BLOCK_SND_UNA)
  const most = iposLoad32(block, BLOCK_SND_MAX)
  const end = iposLoad32(block, BLOCK_SND_END) + (flags & BLOCK_FLAG_FIN_SENT ? 1 : 0)
  const read = iposLoad32(block, BLOCK_RCV_READ)
  const next = iposLoad32(block, BLOCK_RCV_NXT)
  const advertised = iposLoad32(block, BLOCK_RCV_ADVERTISED)
  const finReceived = (flags & BLOCK_FLAG_FIN_RECEIVED) != 0
  return (
    seqLeq(una, most) &&
    seqLeq(una, end) &&
    seqLeq(most, end) &&
    seqLeq(read + (finReceived ? 1 : 0), next) &&
    seqLeq(next, advertised) &&
    (!finReceived || ((flags & BLOCK_FLAG_FIN_SEEN) != 0 && iposLoad32(block, BLOCK_RCV_FIN) + 1 == next)) &&
    iposLoad16(block, BLOCK_MSS) >= MINIMUM_MSS &&
    load<u8>(block + BLOCK_SND_SCALE) <= 14 &&
    load<u8>(block + BLOCK_RCV_SCALE) <= 14 &&
    iposLoad32(block, BLOCK_STATE_BYTES) <= <u32>MAXIMUM_STATE_BYTES
  )
}

/**
 * Fills in a fresh TCB, of which addresses, ports and path are set, and its Migration. The queues are empty: rcvNxt stands at the
 * first unread byte, and the client's FIN is not counted before the bytes are here.
 */
export function blockRead(block: u32, tcb: Tcb, m: Migration): void {
  const st = state()
  const flags = iposLoad16(block, BLOCK_FLAGS)
  let f = bit(flags, BLOCK_FLAG_SACK, F_SACK) | bit(flags, BLOCK_FLAG_TIMESTAMPS, F_TIMESTAMPS)
  f |= bit(flags, BLOCK_FLAG_FIN_QUEUED, F_FIN_QUEUED) | bit(flags, BLOCK_FLAG_FIN_SENT, F_FIN_SENT)
  f |= bit(flags, BLOCK_FLAG_FIN_SEEN, F_FIN_SEEN) | bit(flags, BLOCK_FLAG_LOSS, F_LOSS)
  m.flags |= <u16>(
    (bit(flags, BLOCK_FLAG_FIN_RECEIVED, MOVE_FIN_RECEIVED) | bit(flags, BLOCK_FLAG_HANDED_OVER, MOVE_HANDED_OVER))
  )
  m.moves = iposLoad32(block, BLOCK_MOVES)
  m.stateEnd = iposLoad32(block, BLOCK_STATE_BYTES)
  const options = iposLoad16(block, BLOCK_SOCKET_OPTIONS)
  f |= bit(options, SOCKET_OPTION_NO_DELAY, F_NO_DELAY) | bit(options, SOCKET_OPTION_KEEP_ALIVE, F_KEEP_ALIVE)
  tcb.flags |= f
  tcb.iss = iposLoad32(block, BLOCK_ISS)
  tcb.sndUna = iposLoad32(block, BLOCK_SND_UNA)
  tcb.sndMax = iposLoad32(block, BLOCK_SND_MAX)
  // Grows as the bytes come; of a stream whose FIN is acknowledged it stands before SND.UNA.
  const end = iposLoad32(block, BLOCK_SND_END)
  tcb.sndEnd = seqLt(end, tcb.sndUna) ? end : tcb.sndUna
  tcb.sndNxt = flags & BLOCK_FLAG_LOSS ? tcb.sndUna : tcb.sndMax
  tcb.recover = flags & BLOCK_FLAG_LOSS ? tcb.sndMax : tcb.sndUna
  tcb.sndWnd = iposLoad32(block, BLOCK_SND_WND)
  tcb.maxSndWnd = iposLoad32(block, BLOCK_SND_WND_MAXIMUM)
  tcb.sndWl1 = iposLoad32(block, BLOCK_SND_WL1)
  tcb.sndWl2 = iposLoad32(block, BLOCK_SND_WL2)
  tcb.irs = iposLoad32(block, BLOCK_IRS)
  tcb.rcvNxt = iposLoad32(block, BLOCK_RCV_READ)
  tcb.rcvEdge = tcb.rcvNxt + st.receiveCredit
  tcb.rcvAdvertised = iposLoad32(block, BLOCK_RCV_ADVERTISED)
  tcb.rcvFin = iposLoad32(block, BLOCK_RCV_FIN)
  tcb.mss = <u16>min<u32>(iposLoad16(block, BLOCK_MSS), interfaceMss(tcb.netInterface))
  tcb.sndScale = load<u8>(block + BLOCK_SND_SCALE)
  tcb.rcvScale = load<u8>(block + BLOCK_RCV_SCALE)
  tcb.tsRecent = iposLoad32(block, BLOCK_TS_RECENT)
  tcb.tsRecentMs = st.nowMs - iposLoad32(block, BLOCK_TS_RECENT_AGE)
  tcb.tsOffset = iposLoad32(block, BLOCK_TS_CLOCK) - st.nowMs
  tcb.lastAckSent = iposLoad32(block, BLOCK_LAST_ACK_SENT)
  tcb.srttUs = iposLoad32(block, BLOCK_SRTT)
  tcb.rttvarUs = iposLoad32(block, BLOCK_RTTVAR)
  const rto = iposLoad32(block, BLOCK_RTO)
  tcb.rtoMs = min<u32>(rto ? rto : RTO_INITIAL_MS, RTO_MAXIMUM_MS)
  congestionResume(
    tcb,
    iposLoad32(block, BLOCK_CWND),
    iposLoad32(block, BLOCK_SSTHRESH),
    reinterpret<f32>(iposLoad32(block, BLOCK_CUBIC_WMAX)),
  )
  tcb.keepAliveIdleMs = iposLoad32(block, BLOCK_KEEP_ALIVE_IDLE)
  tcb.stalledMs = st.nowMs - iposLoad32(block, BLOCK_STALLED_AGE)
  tcb.backoff = load<u8>(block + BLOCK_BACKOFF)
  tcb.keepAliveProbes = load<u8>(block + BLOCK_KEEP_ALIVE_PROBES)
  // Deadlines hold from now; timers are armed once the endpoint may speak, and the retransmission timer then begins anew.
  const persist = iposLoad32(block, BLOCK_PERSIST_LEFT)
  if (persist) {
    tcb.timers |= TIMER_PERSIST
    tcb.retransmitMs = st.nowMs + min<u32>(persist, RTO_MAXIMUM_MS)
  }
  const keepAlive = iposLoad32(block, BLOCK_KEEP_ALIVE_LEFT)
  if (keepAlive) {
    tcb.timers |= TIMER_KEEP_ALIVE
    tcb.keepAliveMs = st.nowMs + min<u32>(keepAlive, <u32>i32.MAX_VALUE)
  }
}
