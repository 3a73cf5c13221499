import { CARVE_BASE } from '../abi/memory.ts'
import { COUNTERS_BASE, Hal, HalCounters } from './hal/state.ts'

/**
 * Everything that the firmware keeps and that is no table or pool, the hardware layer's part first. It stands at a fixed address,
 * so `state()` costs nothing. There is no mutable global anywhere: a copy of INIC memory is a copy of the firmware.
 */
@unmanaged
export class State extends Hal {
  // Rings to and from the main board (socket/).
  fetchBase: u32
  fetchNext: u32
  fetchPosted: u32
  /** The record whose buffers are still coming. */
  fetchHead: u32
  fetchTail: u32
  deliverBase: u32
  deliverNext: u32
  /** Slots of the deliver ring used in this poll; all are free again at the next. */
  deliverUsed: u32
  deliverHeaders: u32
  /** Chunks that a record of this poll points into; free at the next. */
  deliverChunks: u32
  queueStatus: u32
  queueSets: u32
  /** 1 = the ring was full in this poll: what waits is looked at again in the next. */
  deliverFull: u32
  /** Queue sets that have answers waiting (socket/answer.ts). */
  answersWaiting: u32

  // The record that is open for appending in this poll (socket/deliver.ts).
  openRecordTcb: u32
  openRecordLast: u32
  openRecordHeader: u32
  openRecordBytes: u32

  // Chunk pool (mem/chunk.ts).
  chunkBase: u32
  chunkMeta: u32
  chunkCount: u32
  chunkFree: u32
  chunkFreeCount: u32

  // Tables.
  interfaces: u32
  arpBase: u32
  listenerBase: u32
  udpBase: u32
  listenerBuckets: u32
  listenerFree: u32
  tcbBase: u32
  tcbCount: u32
  tcbFree: u32
  tcbUsed: u32
  timeWaitBase: u32
  timeWaitCount: u32
  timeWaitFree: u32
  timeWaitOldest: u32
  timeWaitNewest: u32
  timeWaitUsed: u32
  connectionBuckets: u32
  connectionMask: u32
  reassemblyBase: u32
  reassemblyUsed: u32
  datagramBuffer: u32

  // Network layer (net/, socket/udp.ts).
  /** 0 = no timer, 1 = `netNextMs` holds, 2 = the first poll is still to come. */
  netArmed: u32
  netNextMs: u32
  arpBuckets: u32
  arpFree: u32
  arpUsed: u32
  arpIncomplete: u32
  arpSweepMs: u32
  /** Packets that wait for a neighbour's MAC address, over all neighbours. */
  arpQueued: u32
  udpBuckets: u32
  udpFree: u32
  udpHeader: u32

  // Timer wheel (mem/wheel.ts).
  wheelSlots: u32
  wheelBitmap: u32
  wheelSummary: u64
  /** The next millisecond whose slot has not been served. */
  wheelMs: u32
  /** Millisecond in which timers were last served: none comes due within it, unless there were too many for one poll. */
  timersMs: u32
  timersLeft: u32

  // Lists of TCBs, linked through their own fields, 0 = empty.
  outputHead: u32
  outputTail: u32
  hostHead: u32
  hostTail: u32
  /** Length of the host list, and how many of it are still to be looked at since something changed. */
  hostCount: u32
  hostLook: u32
  neighborWaiters: u32

  // TCP.
  synReceived: u32
  ephemeralCounter: u32
  /** When a SYN cookie was last sent. */
  cookieMs: u32
  challengeWindowMs: u32
  challengesSent: u32
  resetWindowMs: u32
  resetsSent: u32
  ipIdentification: u32
  icmpWindowMs: u32
  icmpSent: u32

  // ipOS (ipos/).
  /** Server State table, and how many rows it has; 1 = no peers. */
  serverBase: u32
  serverCount: u32
  /** 1 = there are other servers, and a hub to reach them by. */
  farm: u32
  /** Port on the synchronization hub; 0xff = none. */
  hubPort: u32
  forwardBase: u32
  forwardCount: u32
  forwardFree: u32
  forwardUsed: u32
  forwardLists: u32
  migrationBase: u32
  migrationCount: u32
  migrationFree: u32
  migrationUsed: u32
  /** Forward-Connect table: buckets (ipos/migration.ts). */
  connectBuckets: u32
  connectMask: u32
  threadBase: u32
  /** Places in the farm, and how many numbers of this one's a stretch has. */
  threadPlaces: u32
  threadStretch: u32
  /** Thread ports that are past (ipos/past.ts). */
  pastBase: u32
  pastMask: u32
  flowBuckets: u32
  flowMask: u32
  flowUsed: u32
  /** Low bits of an IPv4 identification that are this server's place in the farm. */
  identificationBits: u32
  /** Next row that `lossServe` looks at, 0 = none. */
  lossNext: u32
  /** The data packet being served: row of its sender, and its thread port. */
  dataFrom: u32
  dataThread: u32
  /** Initial sequence number of the connection that a handed back SYN opens at least; 0 = any. */
  isnFloor: u32

  // Server state (ipos/state.ts).
  /** When a message was sent, by its sequence number. */
  stateSentBase: u32
  /** When the next message leaves, and when anything has to be looked at. */
  stateSendMs: u32
  /** The next state message is told once more soon after, as it has news and may be lost. */
  stateNews: u32
  stateNextMs: u32
  /** BOARD_STATE_CONNECTIONS */
  connectionsPinned: u32
  /** 1 = we were switched on less than a lease ago, which ends then. */
  newcomer: u32
  newcomerEndMs: u32
  /** Endpoints in ESTABLISHED or CLOSE-WAIT (RFC 4022: tcpCurrEstab). */
  established: u32

  // Ports that servers serve (ipos/service.ts), applications (ipos/application.ts).
  serviceBase: u32
  serviceBuckets: u32
  serviceFree: u32
  serviceLists: u32
  /** 1 = our own list is to be made anew. */
  servicesChanged: u32
  applicationBase: u32

  // Updates (socket/flash.ts).
  /** The chunk that a flash command works on; 0 = none is under way. */
  flashChunk: u32
  /** Who gave it, FLASH_OP_*, and how many bytes it is about. */
  flashSet: u32
  flashCookie: u32
  flashOp: u32
  flashBytes: u32

  // Settings (abi/boot.ts), defaults filled in.
  flags: u32
  synBacklog: u32
  placeAfterMs: u32
  timeWaitMs: u32
  rtoMinimumMs: u32
  receiveCredit: u32
  sendCredit: u32
  congestionControl: u32
  iposEtherType: u32
  userTimeoutMs: u32
  unattachedTimeoutMs: u32
  /** PLACEMENT_* */
  placement: u32
  /** Per cent. */
  weightCpu: u32
  weightMemory: u32
  weightBandwidth: u32
  weightConnections: u32
  /** Per mille. */
  localLimit: u32
  loadLimit: u32
  stateIntervalMs: u32
  leaseMs: u32
}

/** Counters, free-running; shown by `inic inspect`. */
@unmanaged
export class Counters extends HalCounters {
  arpRequests: u64
  arpReplies: u64
  ipv4In: u64
  ipv4Fragments: u64
  ipv4Reassembled: u64
  icmpIn: u64
  icmpOut: u64
  udpIn: u64
  udpOut: u64
  tcpIn: u64
  tcpOut: u64
  tcpRetransmits: u64
  tcpTimeouts: u64
  tcpFastRetransmits: u64
  tcpTailProbes: u64
  tcpOutOfOrder: u64
  tcpDuplicates: u64
  tcpActiveOpens: u64
  tcpPassiveOpens: u64
  tcpResetsIn: u64
  tcpResetsOut: u64
  tcpCookiesSent: u64
  tcpCookiesAccepted: u64
  tcpCookiesRefused: u64
  tcpChallengeAcks: u64
  tcpKeepAliveProbes: u64
  tcpZeroWindowProbes: u64
  /** Connections refused or ended because a pool was empty. */
  tcpNoMemory: u64
  attached: u64
  /** Records that found no host buffer and were lost with their process. */
  recordsDropped: u64
  commandsBad: u64
  /** Datagrams for an endpoint that had no credit or no host buffer. */
  udpDropped: u64
  udpNoPort: u64
  /** Datagrams given up: timeout, overlap, eviction. */
  ipv4ReassemblyFailed: u64
  /** ICMP errors held back by the rate limit. */
  icmpSuppressed: u64
  arpConflicts: u64
  arpFailures: u64
  iposIn: u64
  iposOut: u64
  /** ipOS frames from strangers, on the wrong port, with a wrong checksum or length, or of an unknown type. */
  iposRefused: u64
  /** Processes that found no row in the Application Information table. */
  applicationsDropped: u64
  /** Packets sent on to another server. */
  forwarded: u64
  /** Endpoints: offered to another server, given, taken back, taken, refused, and forwarded ones that were lost with their server. */
  migrationsOffered: u64
  migrationsGiven: u64
  migrationsFailed: u64
  migrationsTaken: u64
  migrationsRefused: u64
  migrationsLost: u64
}

export function state(): State {
  return changetype<State>(CARVE_BASE)
}

export function counters(): Counters {
  return changetype<Counters>(COUNTERS_BASE)
}
