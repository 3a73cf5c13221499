import {
  BLOCK_ACK_DELAY,
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
  BLOCK_FLAG_OUT_OF_ORDER,
  BLOCK_FLAG_RECOVERY,
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
  BLOCK_REORDER_STEPS,
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
import { CARVE_BASE } from '../../abi/memory.ts'
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
  F_REPEAT_FIRST,
  F_SACK,
  F_TIMESTAMPS,
  Tcb,
  TIMER_KEEP_ALIVE,
  TIMER_PERSIST,
} from '../tcp/tcb.ts'
import { RTO_INITIAL_MS, RTO_MAXIMUM_MS } from '../tcp/timer.ts'
import { copyWords } from '../wire/order.ts'
import { Migration, MOVE_ENDS_KNOWN, MOVE_FIN_RECEIVED, MOVE_HANDED_OVER } from './migration.ts'
import { serverAt } from './server.ts'

/**
 * The TCP control block of a connection packet (abi/ipos.ts BLOCK_*): everything that a connection needs to go on, but its
 * bytes. What does not move: the SACK scoreboard and the round-trip measurement in progress. A connection in recovery repeats the segment
 * at SND.UNA, and the SACK blocks of the answer tell again what is missing; one that repeats after a timeout starts again there.
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

// A block is written and read in the processor's byte order, and turned over as a whole: numbers of 4 bytes stand where they do on the
// wire, smaller ones mirrored within their 4 bytes.

const ORDERED_BASE: u32 = CARVE_BASE + 0xa00
/** IPOS_BLOCK_BYTES, in whole pieces of 48. */
const ORDERED_BYTES: u32 = 144

/** A copy of the block at `block` for the functions that read one; good until the next call. Reads 4 bytes behind it. */
export function blockOpen(block: u32): u32 {
  copyWords(ORDERED_BASE, block, ORDERED_BYTES)
  return ORDERED_BASE
}

/** Field of 4 bytes of an open block. */
export function block32(block: u32, field: u32): u32 {
  return load<u32>(block + field)
}

/** Field of 2 bytes. */
export function block16(block: u32, field: u32): u32 {
  return load<u16>(block + (field ^ 2))
}

/** Field of 1 byte. */
export function block8(block: u32, field: u32): u8 {
  return load<u8>(block + (field ^ 3))
}

function store32(block: u32, field: u32, value: u32): void {
  store<u32>(block + field, value)
}

function store16(block: u32, field: u32, value: u32): void {
  store<u16>(block + (field ^ 2), <u16>value)
}

function store8(block: u32, field: u32, value: u32): void {
  store<u8>(block + (field ^ 3), <u8>value)
}

/** Writes the 140 bytes at `block`, and turns over what stands in the 4 behind them. */
export function blockWrite(block: u32, tcb: Tcb, m: Migration): void {
  const st = state()
  const f = tcb.flags
  let flags = bit(f, F_SACK, BLOCK_FLAG_SACK) | bit(f, F_TIMESTAMPS, BLOCK_FLAG_TIMESTAMPS)
  flags |= bit(f, F_FIN_QUEUED, BLOCK_FLAG_FIN_QUEUED) | bit(f, F_FIN_SENT, BLOCK_FLAG_FIN_SENT)
  flags |= bit(f, F_FIN_SEEN, BLOCK_FLAG_FIN_SEEN) | bit(f, F_FIN_RECEIVED, BLOCK_FLAG_FIN_RECEIVED)
  flags |= bit(f, F_LOSS, BLOCK_FLAG_LOSS) | bit(f, F_RECOVERY, BLOCK_FLAG_RECOVERY)
  flags |= bit(m.flags, MOVE_HANDED_OVER, BLOCK_FLAG_HANDED_OVER)
  if (tcb.oooHead) flags |= BLOCK_FLAG_OUT_OF_ORDER
  store8(block, BLOCK_VERSION, BLOCK_VERSION_VALUE)
  store8(block, BLOCK_STATE, tcb.state)
  store16(block, BLOCK_FLAGS, flags)
  store32(block, BLOCK_MOVES, m.moves + 1)
  store32(block, BLOCK_ENTRY, serverAt(m.entry).address)
  store32(block, BLOCK_ISS, tcb.iss)
  store32(block, BLOCK_SND_UNA, tcb.sndUna)
  store32(block, BLOCK_SND_MAX, tcb.sndMax)
  store32(block, BLOCK_SND_END, tcb.sndEnd)
  store32(block, BLOCK_SND_WND, tcb.sndWnd)
  store32(block, BLOCK_SND_WND_MAXIMUM, tcb.maxSndWnd)
  store32(block, BLOCK_SND_WL1, tcb.sndWl1)
  store32(block, BLOCK_SND_WL2, tcb.sndWl2)
  store32(block, BLOCK_IRS, tcb.irs)
  store32(block, BLOCK_RCV_NXT, tcb.rcvNxt)
  store32(block, BLOCK_RCV_READ, firstUnread(tcb))
  store32(block, BLOCK_RCV_ADVERTISED, tcb.rcvAdvertised)
  store32(block, BLOCK_RCV_FIN, tcb.rcvFin)
  store16(block, BLOCK_MSS, tcb.mss)
  store8(block, BLOCK_SND_SCALE, tcb.sndScale)
  store8(block, BLOCK_RCV_SCALE, tcb.rcvScale)
  store32(block, BLOCK_TS_RECENT, tcb.tsRecent)
  store32(block, BLOCK_TS_RECENT_AGE, st.nowMs - tcb.tsRecentMs)
  store32(block, BLOCK_TS_CLOCK, timestampNow(tcb))
  store32(block, BLOCK_LAST_ACK_SENT, tcb.lastAckSent)
  store32(block, BLOCK_SRTT, tcb.srttUs)
  store32(block, BLOCK_RTTVAR, tcb.rttvarUs)
  store32(block, BLOCK_RTO, tcb.rtoMs)
  store32(block, BLOCK_CWND, tcb.flags & F_RECOVERY ? tcb.ssthresh : tcb.cwnd)
  store32(block, BLOCK_SSTHRESH, tcb.ssthresh)
  store32(block, BLOCK_CUBIC_WMAX, reinterpret<u32>(tcb.cubicWMax))
  store32(block, BLOCK_PERSIST_LEFT, left(tcb, TIMER_PERSIST, tcb.retransmitMs))
  store32(block, BLOCK_KEEP_ALIVE_LEFT, left(tcb, TIMER_KEEP_ALIVE, tcb.keepAliveMs))
  store32(block, BLOCK_KEEP_ALIVE_IDLE, tcb.keepAliveIdleMs)
  store32(block, BLOCK_STALLED_AGE, st.nowMs - tcb.stalledMs)
  store8(block, BLOCK_BACKOFF, tcb.backoff)
  store8(block, BLOCK_KEEP_ALIVE_PROBES, tcb.keepAliveProbes)
  const options = bit(f, F_NO_DELAY, SOCKET_OPTION_NO_DELAY) | bit(f, F_KEEP_ALIVE, SOCKET_OPTION_KEEP_ALIVE)
  store16(block, BLOCK_SOCKET_OPTIONS, options)
  store32(block, BLOCK_STATE_BYTES, m.stateBytes)
  store32(block, BLOCK_RECEIVER, m.peerIncarnation)
  store8(block, BLOCK_REORDER_STEPS, tcb.reorderSteps)
  store8(block, BLOCK_ACK_DELAY, tcb.ackDelayMs)
  store16(block, BLOCK_RESERVED, 0)
  copyWords(block, block, ORDERED_BYTES)
}

/**
 * True if the (open) block can be one: its numbers stand in the order that RFC 9293 §3.3.1 wants, its shifts and sizes are possible. What it says
 * is used without further doubt.
 */
export function blockIsSound(block: u32): bool {
  if (block8(block, BLOCK_VERSION) != <u8>BLOCK_VERSION_VALUE || !blockStateMoves(block8(block, BLOCK_STATE)))
    return false
  const flags = block16(block, BLOCK_FLAGS)
  const una = block32(block, BLOCK_SND_UNA)
  const most = block32(block, BLOCK_SND_MAX)
  const end = block32(block, BLOCK_SND_END) + (flags & BLOCK_FLAG_FIN_SENT ? 1 : 0)
  const read = block32(block, BLOCK_RCV_READ)
  const next = block32(block, BLOCK_RCV_NXT)
  const advertised = block32(block, BLOCK_RCV_ADVERTISED)
  const finReceived = (flags & BLOCK_FLAG_FIN_RECEIVED) != 0
  return (
    seqLeq(una, most) &&
    seqLeq(una, end) &&
    ((flags & BLOCK_FLAG_RECOVERY) == 0 || una != most) &&
    seqLeq(most, end) &&
    seqLeq(read + (finReceived ? 1 : 0), next) &&
    seqLeq(next, advertised) &&
    (!finReceived || ((flags & BLOCK_FLAG_FIN_SEEN) != 0 && block32(block, BLOCK_RCV_FIN) + 1 == next)) &&
    block16(block, BLOCK_MSS) >= MINIMUM_MSS &&
    block8(block, BLOCK_SND_SCALE) <= 14 &&
    block8(block, BLOCK_RCV_SCALE) <= 14 &&
    block32(block, BLOCK_STATE_BYTES) <= <u32>MAXIMUM_STATE_BYTES
  )
}

/**
 * Fills in from an open block a fresh TCB, of which addresses, ports and path are set, and its Migration. The queues are empty: rcvNxt stands at the
 * first unread byte, and the client's FIN is not counted before the bytes are here.
 */
export function blockRead(block: u32, tcb: Tcb, m: Migration): void {
  const st = state()
  const flags = block16(block, BLOCK_FLAGS)
  let f = bit(flags, BLOCK_FLAG_SACK, F_SACK) | bit(flags, BLOCK_FLAG_TIMESTAMPS, F_TIMESTAMPS)
  f |= bit(flags, BLOCK_FLAG_FIN_QUEUED, F_FIN_QUEUED) | bit(flags, BLOCK_FLAG_FIN_SENT, F_FIN_SENT)
  f |= bit(flags, BLOCK_FLAG_FIN_SEEN, F_FIN_SEEN) | bit(flags, BLOCK_FLAG_LOSS, F_LOSS)
  m.flags |= <u16>(
    (bit(flags, BLOCK_FLAG_FIN_RECEIVED, MOVE_FIN_RECEIVED) | bit(flags, BLOCK_FLAG_HANDED_OVER, MOVE_HANDED_OVER))
  )
  m.moves = block32(block, BLOCK_MOVES)
  m.receiveEnd = block32(block, BLOCK_RCV_NXT) - (flags & BLOCK_FLAG_FIN_RECEIVED ? 1 : 0)
  m.sendEnd = block32(block, BLOCK_SND_END)
  m.stateEnd = block32(block, BLOCK_STATE_BYTES)
  if ((flags & BLOCK_FLAG_OUT_OF_ORDER) == 0) m.flags |= <u16>MOVE_ENDS_KNOWN
  const options = block16(block, BLOCK_SOCKET_OPTIONS)
  f |= bit(options, SOCKET_OPTION_NO_DELAY, F_NO_DELAY) | bit(options, SOCKET_OPTION_KEEP_ALIVE, F_KEEP_ALIVE)
  tcb.flags |= f
  tcb.iss = block32(block, BLOCK_ISS)
  tcb.sndUna = block32(block, BLOCK_SND_UNA)
  tcb.sndMax = block32(block, BLOCK_SND_MAX)
  // Grows as the bytes come; of a stream whose FIN is acknowledged it stands before SND.UNA.
  tcb.sndEnd = seqLt(m.sendEnd, tcb.sndUna) ? m.sendEnd : tcb.sndUna
  tcb.sndNxt = flags & BLOCK_FLAG_LOSS ? tcb.sndUna : tcb.sndMax
  tcb.recover = tcb.sndUna
  if (flags & (BLOCK_FLAG_LOSS | BLOCK_FLAG_RECOVERY)) {
    tcb.recover = tcb.sndMax
    tcb.recoverFlight = tcb.sndMax - tcb.sndUna
    if (flags & BLOCK_FLAG_RECOVERY) tcb.flags |= F_RECOVERY | F_REPEAT_FIRST
  }
  tcb.sndWnd = block32(block, BLOCK_SND_WND)
  tcb.maxSndWnd = block32(block, BLOCK_SND_WND_MAXIMUM)
  tcb.sndWl1 = block32(block, BLOCK_SND_WL1)
  tcb.sndWl2 = block32(block, BLOCK_SND_WL2)
  tcb.irs = block32(block, BLOCK_IRS)
  tcb.rcvNxt = block32(block, BLOCK_RCV_READ)
  tcb.rcvEdge = tcb.rcvNxt + st.receiveCredit
  tcb.rcvAdvertised = block32(block, BLOCK_RCV_ADVERTISED)
  tcb.rcvFin = block32(block, BLOCK_RCV_FIN)
  tcb.mss = <u16>min<u32>(block16(block, BLOCK_MSS), interfaceMss(tcb.netInterface))
  tcb.sndScale = block8(block, BLOCK_SND_SCALE)
  tcb.rcvScale = block8(block, BLOCK_RCV_SCALE)
  tcb.tsRecent = block32(block, BLOCK_TS_RECENT)
  tcb.tsRecentMs = st.nowMs - block32(block, BLOCK_TS_RECENT_AGE)
  tcb.tsOffset = block32(block, BLOCK_TS_CLOCK) - st.nowMs
  tcb.lastAckSent = block32(block, BLOCK_LAST_ACK_SENT)
  tcb.srttUs = block32(block, BLOCK_SRTT)
  tcb.rttvarUs = block32(block, BLOCK_RTTVAR)
  const rto = block32(block, BLOCK_RTO)
  tcb.rtoMs = min<u32>(rto ? rto : RTO_INITIAL_MS, RTO_MAXIMUM_MS)
  congestionResume(
    tcb,
    block32(block, BLOCK_CWND),
    block32(block, BLOCK_SSTHRESH),
    reinterpret<f32>(block32(block, BLOCK_CUBIC_WMAX)),
  )
  tcb.keepAliveIdleMs = block32(block, BLOCK_KEEP_ALIVE_IDLE)
  tcb.stalledMs = st.nowMs - block32(block, BLOCK_STALLED_AGE)
  tcb.backoff = block8(block, BLOCK_BACKOFF)
  tcb.keepAliveProbes = block8(block, BLOCK_KEEP_ALIVE_PROBES)
  tcb.reorderSteps = block8(block, BLOCK_REORDER_STEPS)
  tcb.ackDelayMs = block8(block, BLOCK_ACK_DELAY)
  // Deadlines hold from now; timers are armed once the endpoint may speak, and the retransmission timer then begins anew.
  const persist = block32(block, BLOCK_PERSIST_LEFT)
  if (persist) {
    tcb.timers |= TIMER_PERSIST
    tcb.retransmitMs = st.nowMs + min<u32>(persist, RTO_MAXIMUM_MS)
  }
  const keepAlive = block32(block, BLOCK_KEEP_ALIVE_LEFT)
  if (keepAlive) {
    tcb.timers |= TIMER_KEEP_ALIVE
    tcb.keepAliveMs = st.nowMs + min<u32>(keepAlive, <u32>i32.MAX_VALUE)
  }
}
