import { TCP_CLOSE_WAIT, TCP_CLOSED, TCP_ESTABLISHED, TCP_SYN_RECEIVED } from '../../abi/tcp.ts'
import { TRACE_TCP_STATE } from '../../abi/trace.ts'
import { PANIC_POOL, panic } from '../hal/panic.ts'
import { trace } from '../hal/trace.ts'
import { migrationDrop } from '../ipos/migration.ts'
import { clearBytes } from '../mem/bytes.ts'
import { carve } from '../mem/carve.ts'
import { chunkReleaseList } from '../mem/chunk.ts'
import { timerCancel } from '../mem/wheel.ts'
import { counters, state } from '../state.ts'

/**
 * Transmission control block (RFC 9293 §3.3.1): one endpoint, attached to a socket or not. The first 16 bytes are the
 * key of the connection table and stand alike in `TimeWait`.
 */
@unmanaged
export class Tcb {
  localAddress: u32
  remoteAddress: u32
  localPort: u16
  remotePort: u16
  /** Next entry of the same bucket (tcp/table.ts). */
  hashNext: u32

  /** What the host calls this endpoint: index | generation << HANDLE_INDEX_BITS. */
  handle: u32
  flags: u32
  /** TCP_*; written by `setState` alone. */
  state: u8
  /** Interface that segments leave by. */
  netInterface: u8
  /** Queue set of the process it is attached to. */
  queueSet: u8
  /** The path's and the peer's windows, as shifts (RFC 7323 §2). */
  sndScale: u8
  rcvScale: u8
  /** Consecutive timeouts without progress. */
  backoff: u8
  dupAcks: u8
  /** Segments received since an ACK was last sent. */
  unackedSegments: u8
  /** Index of the listener that it belongs to while passive and unattached, of the host's cookie otherwise. */
  listener: u32
  /** Cookie of the connect or the listener, for the host. */
  cookie: u32
  /** Next hop on `netInterface`, and the ARP entry that the last segment found, 0 = none. Rows are reused: every segment asks again. */
  nextHop: u32
  arpEntry: u32

  // Links of the lists it can be on.
  outputNext: u32
  hostNext: u32
  neighborNext: u32
  timerNext: u32
  timerPrevious: u32
  /** When the wheel looks at this TCB, not later than any deadline below. */
  timerMs: u32
  timerSlot: u32

  // Deadlines on the millisecond clock; each counts while its TIMER_* bit is set.
  timers: u32
  /** Retransmission or, with a zero window, persist (RFC 6298, RFC 9293 §3.8.6.1). */
  retransmitMs: u32
  delayedAckMs: u32
  keepAliveMs: u32
  /** SYN-RECEIVED, unattached, FIN-WAIT-2: how long it may stay so. */
  stateMs: u32
  /** When the oldest unacknowledged byte was first without an answer (RFC 9293 R2). */
  stalledMs: u32

  // Send sequence space.
  iss: u32
  sndUna: u32
  sndNxt: u32
  /** Highest sndNxt so far: what lies below it is a retransmission. */
  sndMax: u32
  /** Sequence number after the last queued byte, FIN not counted. */
  sndEnd: u32
  /** Peer's window in bytes, already scaled. */
  sndWnd: u32
  sndWl1: u32
  sndWl2: u32
  /** Largest window that the peer ever offered (RFC 9293 §3.8.6.2.1). */
  maxSndWnd: u32
  /** Send queue: chunks with their sequence numbers; the first starts at sndUna. */
  sndHead: u32
  sndTail: u32
  /** A chunk near sndNxt, to find it without a walk; 0 = unknown. */
  sndCursor: u32
  /** Acknowledged bytes that the host has not been told of. */
  creditOwed: u32
  /** Send credit granted so far, bytes. */
  creditGranted: u32

  // Congestion control (RFC 5681, RFC 9438) and loss recovery (RFC 8985).
  cwnd: u32
  ssthresh: u32
  /** Bytes acknowledged towards the next growth of cwnd in congestion avoidance. */
  cwndAcked: u32
  /** RecoveryPoint: recovery ends when this is acknowledged; later, what the last one may have repeated ends here. */
  recover: u32
  /** End of the segment that a tail loss probe repeated; counts while F_PROBE_REPEATED (RFC 8985 §7.4: TLP.end_seq). */
  probeEnd: u32
  /** Proportional rate reduction (RFC 6937): bytes out when this recovery began, delivered and sent since. */
  recoverFlight: u32
  prrDelivered: u32
  prrOut: u32
  /** Chunk with the SACK scoreboard, 0 = nothing is SACKed or repeated (tcp/scoreboard.ts). */
  scoreboard: u32
  cubicWMax: f32
  cubicK: f32
  cubicEpochMs: u32
  cubicWEst: f32

  // Round-trip time (RFC 6298), microseconds; rto in milliseconds.
  srttUs: u32
  rttvarUs: u32
  rtoMs: u32
  /** Shortest round trip measured, 0 = none yet. */
  minRttUs: u32
  /** When a segment with new bytes last left. */
  lastSentMs: u32
  /** Segment being timed: its acknowledgement is at least this; counts while F_TIMING. */
  rttSequence: u32
  rttStartUs: u32

  // Timestamps (RFC 7323).
  tsRecent: u32
  tsRecentMs: u32
  tsOffset: u32
  lastAckSent: u32
  /** When a bare ACK that was not acceptable was last answered. */
  bareAnswerMs: u32

  // Receive sequence space.
  irs: u32
  rcvNxt: u32
  /** Right edge of the window as last advertised; never moves left. */
  rcvAdvertised: u32
  /** Right edge that the host's credit allows. */
  rcvEdge: u32
  /** Sequence number of the peer's FIN; counts while F_FIN_SEEN. */
  rcvFin: u32
  /** In-order bytes not yet handed to the host. */
  unreadHead: u32
  unreadTail: u32
  /** Out-of-order segments, sorted by sequence number. */
  oooHead: u32
  /** Sequence number of the newest out-of-order segment: its block is reported first (RFC 2018 §4). */
  oooNewest: u32
  /** Bytes that came twice, to be reported by the next ACK (RFC 2883); empty = none. */
  twiceStart: u32
  twiceEnd: u32

  /** Row of the ipOS layer while it moves, or serves for another INIC (ipos/migration.ts); 0 = none. */
  migration: u32
  /** Sender maximum segment size: the peer's option and our MTU, without options. */
  mss: u16
  keepAliveProbes: u8
  /** Tail loss probes since something was last acknowledged. */
  probes: u8
  keepAliveIdleMs: u32
  /** Reordering window in quarters of the shortest round trip; 0 = no reordering seen (RFC 8985 §6.2: RACK.reo_wnd_mult). */
  reorderSteps: u8
  /** Recoveries until the window is narrow again (RACK.reo_wnd_persist). */
  reorderKept: u8
  /** Segments that are acknowledged without delay, as the peer is repairing a loss. */
  quickAcks: u8
  /** Longest time that the peer is believed to keep an ACK back for, milliseconds (RFC 8985 §7.2: TLP.max_ack_delay). */
  ackDelayMs: u8
  /** SND.NXT when the window was last widened: once a round trip (RACK.dsack_round). */
  reorderRound: u32
}

export const TCB_BYTES: u32 = 320

export const HANDLE_INDEX_BITS: u32 = 18
export const MAXIMUM_TCBS: u32 = (1 << HANDLE_INDEX_BITS) - 1

// Flags.
/** Attached to a socket of `queueSet`; otherwise in the Temporary table, or on its way out. */
export const F_ATTACHED: u32 = 1 << 0
/** The host knows the handle and wants to hear of it. */
export const F_HOST: u32 = 1 << 1
/** The host has ended its stream: FIN goes after the last queued byte. */
export const F_FIN_QUEUED: u32 = 1 << 2
/** The FIN has been sent at least once; it occupies sndEnd. */
export const F_FIN_SENT: u32 = 1 << 3
export const F_FIN_SEEN: u32 = 1 << 4
/** The peer's FIN is in order: rcvNxt is past it. */
export const F_FIN_RECEIVED: u32 = 1 << 5
export const F_END_DELIVERED: u32 = 1 << 6
export const F_ACK_NOW: u32 = 1 << 7
export const F_NO_DELAY: u32 = 1 << 8
export const F_KEEP_ALIVE: u32 = 1 << 9
export const F_SACK: u32 = 1 << 10
export const F_TIMESTAMPS: u32 = 1 << 11
export const F_TIMING: u32 = 1 << 12
export const F_RECOVERY: u32 = 1 << 13
export const F_ACTIVE: u32 = 1 << 14
export const F_ON_OUTPUT: u32 = 1 << 15
export const F_ON_HOST: u32 = 1 << 16
export const F_ON_NEIGHBOR: u32 = 1 << 17
/** Counted in state().synReceived. */
export const F_SYN_COUNTED: u32 = 1 << 18
/** The acknowledgement being sent is a probe: one byte below the window or a FIN that repeats. */
export const F_PROBE: u32 = 1 << 19
/** In RTO recovery: what was sent before `recover` counts as lost unless SACKed. */
export const F_LOSS: u32 = 1 << 20
/** Attach as soon as the listener's queue set has room. */
export const F_ATTACH_WANTED: u32 = 1 << 21
export const F_CONNECTED_OWED: u32 = 1 << 22
export const F_RESET_OWED: u32 = 1 << 23
export const F_FAILED_OWED: u32 = 1 << 24
export const F_CREDIT_OWED: u32 = 1 << 25
/** It moves: nothing is sent, no timer but the move's own, the client's packets are kept (ipos/). */
export const F_FROZEN: u32 = 1 << 26
/** The segment at sndUna goes once more, whatever the window says. */
export const F_REPEAT_FIRST: u32 = 1 << 27
/** What TIMER_RETRANSMIT waits for is the reordering window or the probe timeout, not the RTO (RFC 8985 §6.3, §7.2). */
export const F_PROBE_TIMER: u32 = 1 << 28
/** A tail loss probe repeated bytes, and it is not known yet whether they were lost. */
export const F_PROBE_REPEATED: u32 = 1 << 29
/** It serves for another INIC, whose address the client uses (FIG. 12: Forward-Connect). */
export const F_GUEST: u32 = 1 << 30
/** Received bytes stay in the card: an application's state goes before them, or a move takes them along. */
export const F_QUIET: u32 = 1 << 31

// Timers.
export const TIMER_RETRANSMIT: u32 = 1
export const TIMER_PERSIST: u32 = 2
export const TIMER_DELAYED_ACK: u32 = 4
export const TIMER_KEEP_ALIVE: u32 = 8
export const TIMER_STATE: u32 = 16

/** Carves the pool. Index 0 is not used. */
export function tcbInitialize(count: u32): void {
  const st = state()
  if (offsetof<Tcb>() > TCB_BYTES) panic(PANIC_POOL, offsetof<Tcb>())
  st.tcbCount = count
  st.tcbBase = carve((count + 1) * TCB_BYTES)
  st.tcbFree = 1
  for (let i: u32 = 1; i < count; i++) tcbAt(i).hashNext = i + 1
}

export function tcbAt(index: u32): Tcb {
  return changetype<Tcb>(state().tcbBase + index * TCB_BYTES)
}

export function tcbIndex(tcb: Tcb): u32 {
  return tcb.handle & MAXIMUM_TCBS
}

/** The live TCB that the host means, or null: a stale handle names nothing. */
export function tcbOfHandle(handle: u32): Tcb | null {
  const index = handle & MAXIMUM_TCBS
  if (index == 0 || index > state().tcbCount) return null
  const tcb = tcbAt(index)
  return tcb.handle == handle && (tcb.flags & F_HOST) != 0 ? tcb : null
}

/** A zeroed TCB with a fresh handle, or null if the pool is empty. */
export function tcbAllocate(): Tcb | null {
  const st = state()
  const index = st.tcbFree
  if (!index) {
    counters().tcpNoMemory++
    return null
  }
  const tcb = tcbAt(index)
  st.tcbFree = tcb.hashNext
  st.tcbUsed++
  const handle = tcb.handle
  clearBytes(<u32>changetype<usize>(tcb), TCB_BYTES)
  // The generation in the high bits moves on, so an old handle does not name the new endpoint.
  // The topmost bit tells UDP handles apart (socket/udp.ts).
  tcb.handle = (((handle & ~MAXIMUM_TCBS) + (MAXIMUM_TCBS + 1)) & 0x7fffffff) | index
  return tcb
}

/** Gives a TCB back with all that it holds. It must be in no table. */
export function tcbRelease(tcb: Tcb): void {
  timerCancel(tcb)
  chunkReleaseList(tcb.sndHead)
  chunkReleaseList(tcb.unreadHead)
  chunkReleaseList(tcb.oooHead)
  chunkReleaseList(tcb.scoreboard)
  tcb.sndHead = tcb.sndTail = tcb.sndCursor = 0
  tcb.unreadHead = tcb.unreadTail = 0
  tcb.oooHead = 0
  tcb.scoreboard = 0
  migrationDrop(tcb)
  countSynReceived(tcb, false)
  changeState(tcb, TCP_CLOSED)
  // It may still be linked on the output, host or neighbour list: whoever empties these frees it then.
  tcb.flags &= F_ON_OUTPUT | F_ON_HOST | F_ON_NEIGHBOR
  if (!tcb.flags) tcbFree(tcb)
  else if (tcb.flags & F_ON_HOST) state().hostLook = state().hostCount
}

/** Puts a released TCB that is on no list any more back into the pool. */
export function tcbFree(tcb: Tcb): void {
  const st = state()
  tcb.hashNext = st.tcbFree
  st.tcbFree = tcbIndex(tcb)
  st.tcbUsed--
}

/** Takes the TCB off a list by clearing its flag there; true if it is still alive. */
export function tcbUnlisted(tcb: Tcb, flag: u32): bool {
  tcb.flags &= ~flag
  if (tcb.state != TCP_CLOSED || (tcb.flags & ~(F_ON_OUTPUT | F_ON_HOST | F_ON_NEIGHBOR)) != 0) return true
  if (!tcb.flags) tcbFree(tcb)
  return false
}

/** The only writer of `state` for a live TCB. Callers name the RFC sentence that the transition carries out. */
export function setState(tcb: Tcb, next: u32): void {
  trace(TRACE_TCP_STATE, ((<u32>tcb.state) << 8) | next, tcb.handle, ((<u32>tcb.remotePort) << 16) | tcb.localPort)
  countSynReceived(tcb, next == TCP_SYN_RECEIVED && (tcb.flags & F_ACTIVE) == 0)
  changeState(tcb, next)
}

function changeState(tcb: Tcb, next: u32): void {
  const st = state()
  if (isEstablished(tcb.state)) st.established--
  if (isEstablished(next)) st.established++
  tcb.state = <u8>next
}

/** RFC 4022: tcpCurrEstab counts ESTABLISHED and CLOSE-WAIT. */
function isEstablished(tcpState: u32): bool {
  return tcpState == TCP_ESTABLISHED || tcpState == TCP_CLOSE_WAIT
}

function countSynReceived(tcb: Tcb, counted: bool): void {
  if (((tcb.flags & F_SYN_COUNTED) != 0) == counted) return
  tcb.flags ^= F_SYN_COUNTED
  state().synReceived += counted ? 1 : -1
}

/** Appends the TCB to the list of those that `tcpOutput` visits at the end of this poll. */
export function wantOutput(tcb: Tcb): void {
  if (tcb.flags & F_ON_OUTPUT) return
  tcb.flags |= F_ON_OUTPUT
  tcb.outputNext = 0
  const st = state()
  const index = tcbIndex(tcb)
  if (st.outputTail) tcbAt(st.outputTail).outputNext = index
  else st.outputHead = index
  st.outputTail = index
}

/** Appends the TCB to the list of those that owe the host something; all of it is looked at before the card rests. */
export function wantHost(tcb: Tcb): void {
  appendHost(tcb)
  const st = state()
  st.hostLook = st.hostCount
}

/** As `wantHost`, for one that was looked at in vain. */
export function appendHost(tcb: Tcb): void {
  if (tcb.flags & F_ON_HOST) return
  tcb.flags |= F_ON_HOST
  tcb.hostNext = 0
  const st = state()
  const index = tcbIndex(tcb)
  if (st.hostTail) tcbAt(st.hostTail).hostNext = index
  else st.hostHead = index
  st.hostTail = index
  st.hostCount++
}
