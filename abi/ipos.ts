/**
 * ipOS on the synchronization hub (FIG. 11), and the types that the drawings do not have. All fields are big-endian; offsets
 * count from the ipOS header, which follows the 14 bytes of Ethernet. Frames may be longer than what they carry: no length is taken
 * from the frame. How INICs keep one owner with these packets: docs/protocol.md.
 */

/** Ethernet type of an ipOS frame unless the board says otherwise. Below 0x0600, where IEEE 802.3 expects a length. */
export const IPOS_ETHERTYPE = 0x0007

// ── ipOS encapsulation header ──
/** IPv4 address of the client, in every type that concerns a connection or a datagram; the sender's own in IPOS_STATE. */
export const IPOS_SOURCE_ADDRESS = 0 // u32
export const IPOS_SOURCE_PORT = 4 // u16
/** Address of the server that receives; 255.255.255.255 in IPOS_STATE. */
export const IPOS_DESTINATION_ADDRESS = 6 // u32
/** Thread port: names the waiting endpoint on the receiver; chosen by the sender of the connection packet. */
export const IPOS_DESTINATION_PORT = 10 // u16
export const IPOS_TYPE = 12 // u8
export const IPOS_PROTOCOL = 13 // u8, IPOS_TCP or IPOS_UDP; 0 where there is none
/** Internet checksum (RFC 1071) of header and payload, this field as 0. */
export const IPOS_CHECKSUM = 14 // u16
export const IPOS_HEADER_BYTES = 16

export const IPOS_TCP = 1
export const IPOS_UDP = 2

// ── types of FIG. 11 ──
/** Connection packet: take this endpoint over. Connection information, for TCP with the control block. */
export const IPOS_CONNECT = 0x01
/** Data packet: a whole IP packet, from its header on. */
export const IPOS_DATA = 0x02
/** Endpoint migration acknowledgement: the endpoint is built, silent, and waits. Header alone. */
export const IPOS_ACKNOWLEDGE = 0x03

// ── connection information: first in IPOS_CONNECT and in every type from 0x81 on ──
export const IPOS_SERVER_ADDRESS = 16 // u32, the address that the client uses
export const IPOS_SERVER_PORT = 20 // u16
export const IPOS_CONNECTION_BYTES = 22 // header and connection information

// ── TCP control block, in IPOS_CONNECT ──
export const IPOS_BLOCK = 22
export const IPOS_BLOCK_BYTES = 140
export const BLOCK_VERSION = 0 // u8, BLOCK_VERSION_VALUE
export const BLOCK_STATE = 1 // u8, TCP_ESTABLISHED, TCP_CLOSE_WAIT, TCP_FIN_WAIT_1 or TCP_FIN_WAIT_2
export const BLOCK_FLAGS = 2 // u16, BLOCK_FLAG_*
/** How often this endpoint has moved, this time included: of two words about where it is, the one with more moves is newer. */
export const BLOCK_MOVES = 4 // u32
/** Address of the INIC whose address the client uses, that is the entry INIC; which may be the receiver: the endpoint comes home. */
export const BLOCK_ENTRY = 8 // u32
// Send sequence space (RFC 9293 §3.3.1).
export const BLOCK_ISS = 12 // u32
export const BLOCK_SND_UNA = 16 // u32
export const BLOCK_SND_MAX = 20 // u32, highest SND.NXT so far
export const BLOCK_SND_END = 24 // u32, after the last byte that the application has queued; FIN not counted
export const BLOCK_SND_WND = 28 // u32, bytes, scaled
export const BLOCK_SND_WND_MAXIMUM = 32 // u32, largest window that the client ever offered, bytes
export const BLOCK_SND_WL1 = 36 // u32
export const BLOCK_SND_WL2 = 40 // u32
// Receive sequence space.
export const BLOCK_IRS = 44 // u32
export const BLOCK_RCV_NXT = 48 // u32
export const BLOCK_RCV_READ = 52 // u32, first byte that no application has consumed: bytes from here to RCV.NXT move
export const BLOCK_RCV_ADVERTISED = 56 // u32, right edge of the window; it never moves left
export const BLOCK_RCV_FIN = 60 // u32, sequence number of the client's FIN, if BLOCK_FLAG_FIN_SEEN
// Options agreed (RFC 7323, RFC 2018, RFC 9293 §3.7.1).
export const BLOCK_MSS = 64 // u16, for what we send, without options
export const BLOCK_SND_SCALE = 66 // u8
export const BLOCK_RCV_SCALE = 67 // u8
export const BLOCK_TS_RECENT = 68 // u32
export const BLOCK_TS_RECENT_AGE = 72 // u32, milliseconds since TS.Recent was set (PAWS, RFC 7323 §5.5)
export const BLOCK_TS_CLOCK = 76 // u32, the endpoint's timestamp clock when this packet was built: it goes on from here
export const BLOCK_LAST_ACK_SENT = 80 // u32
// Timing (RFC 6298).
export const BLOCK_SRTT = 84 // u32, microseconds, 0 = not measured
export const BLOCK_RTTVAR = 88 // u32, microseconds
export const BLOCK_RTO = 92 // u32, milliseconds
// Congestion (RFC 5681, RFC 9438).
export const BLOCK_CWND = 96 // u32, bytes
export const BLOCK_SSTHRESH = 100 // u32, bytes
export const BLOCK_CUBIC_WMAX = 104 // f32, segments
/** Timers left, milliseconds from when this packet was built; 0 = not running. The retransmission timer begins anew after a move. */
export const BLOCK_PERSIST_LEFT = 108 // u32
export const BLOCK_KEEP_ALIVE_LEFT = 112 // u32
export const BLOCK_KEEP_ALIVE_IDLE = 116 // u32, milliseconds
export const BLOCK_STALLED_AGE = 120 // u32, milliseconds since the oldest unacknowledged byte was last answered for (RFC 9293 R2)
export const BLOCK_BACKOFF = 124 // u8
export const BLOCK_KEEP_ALIVE_PROBES = 125 // u8
export const BLOCK_SOCKET_OPTIONS = 126 // u16, SOCKET_OPTION_* (abi/messages.ts)
/** Bytes of application state that follow in IPOS_APPLICATION packets. */
export const BLOCK_STATE_BYTES = 128 // u32
/** Incarnation of the receiver (STATE_INCARNATION): what was sent to it before it was switched off is late, and not for it. */
export const BLOCK_RECEIVER = 132 // u32
export const BLOCK_REORDER_STEPS = 136 // u8, reordering window in quarters of a round trip, 0 = no reordering seen (RFC 8985 §6.2)
export const BLOCK_ACK_DELAY = 137 // u8, milliseconds that the client may keep an ACK back for (RFC 8985 §7.2)
export const BLOCK_RESERVED = 138 // 2 bytes, 0

export const BLOCK_VERSION_VALUE = 1
export const BLOCK_FLAG_SACK = 1
export const BLOCK_FLAG_TIMESTAMPS = 2
/** The application has ended its stream: FIN follows BLOCK_SND_END. */
export const BLOCK_FLAG_FIN_QUEUED = 4
export const BLOCK_FLAG_FIN_SENT = 8
export const BLOCK_FLAG_FIN_SEEN = 16
/** The client's FIN is in order: RCV.NXT is past it. */
export const BLOCK_FLAG_FIN_RECEIVED = 32
/** Retransmission after a timeout is going on: the receiver starts again from SND.UNA (docs/protocol.md). */
export const BLOCK_FLAG_LOSS = 64
/** An application hands the connection over: one that takes such connections must be there. Otherwise any listener serves. */
export const BLOCK_FLAG_HANDED_OVER = 128
/** Bytes beyond a gap in what was received move too, as many as IPOS_COMMIT says. Otherwise this block says what there is in all. */
export const BLOCK_FLAG_OUT_OF_ORDER = 256
/** Fast recovery is going on: the receiver repeats the segment at SND.UNA, and the answer says what else is missing. */
export const BLOCK_FLAG_RECOVERY = 512

/** Bytes of an IPOS_CONNECT for TCP, from the ipOS header on: 16 + 6 + 140. */
export const IPOS_CONNECT_TCP_BYTES = 162
/** Bytes of an IPOS_CONNECT for UDP: 16 + 6. */
export const IPOS_CONNECT_UDP_BYTES = 22

// ── types that the drawings do not have ──
/** What an INIC says of its server, to all others, every BOOT_STATE_INTERVAL_MS. */
export const IPOS_STATE = 0x80
/** It is yours from now on, if it was not before: I send no more and never take it back. Tell me what you have. */
export const IPOS_COMMIT = 0x81
/** Answer to IPOS_COMMIT: what has come so far. */
export const IPOS_COMMITTED = 0x82
/** Answer to IPOS_CONNECT: not here. */
export const IPOS_REFUSE = 0x83
/** The endpoint is gone, or was never here: drop the Forward entry. May hand a packet back. */
export const IPOS_RELEASE = 0x84
/** Answer to IPOS_RELEASE. Connection information alone. */
export const IPOS_RELEASED = 0x85
/** I take the endpoint back; it was not committed. Connection information alone, no answer. */
export const IPOS_CANCEL = 0x86
/** A piece of the state that the application hands over. */
export const IPOS_APPLICATION = 0x87
/**
 * To the entry INIC, where that neither gives nor takes: the endpoint is at MOVED_ADDRESS now; forward there. From the taking INIC, whose
 * thread port the header has; or, ahead of that, from the giving INIC, with the one by which the entry INIC knows the endpoint.
 */
export const IPOS_MOVED = 0x88
/** Answer to IPOS_MOVED, to the taking INIC: it is forwarded. Otherwise the answer is IPOS_RELEASE, and none to the giving INIC. */
export const IPOS_MOVED_HEARD = 0x89

export const COMMIT_RECEIVE_END = 22 // u32, RCV.NXT, FIN not counted
export const COMMIT_SEND_END = 26 // u32, as BLOCK_SND_END
export const COMMIT_STATE_BYTES = 30 // u32
export const COMMIT_OUT_OF_ORDER = 34 // u32, bytes beyond a gap in what was received
export const COMMIT_BYTES = 38

export const COMMITTED_RECEIVED = 22 // u32, everything below this is here
export const COMMITTED_QUEUED = 26 // u32, the send queue is complete up to here
export const COMMITTED_STATE_BYTES = 30 // u32
export const COMMITTED_OUT_OF_ORDER = 34 // u32
export const COMMITTED_FLAGS = 38 // u16, COMMITTED_FLAG_*
export const COMMITTED_BYTES = 40
export const COMMITTED_FLAG_COMPLETE = 1 // nothing is missing
export const COMMITTED_FLAG_GAP = 2 // something has come whose predecessor has not: start again at what is here

export const REFUSE_REASON = 22 // u16, REFUSE_*
export const REFUSE_BYTES = 24
export const REFUSE_THREAD_TAKEN = 1 // propose another thread port
export const REFUSE_NO_LISTENER = 2
export const REFUSE_NO_MEMORY = 3
export const REFUSE_WINDOW = 4 // the advertised window is larger than what can be reserved
export const REFUSE_BLOCK = 5 // the control block is not one
export const REFUSE_DRAINING = 6
export const REFUSE_NO_LEASE = 7 // the entry INIC is not heard

export const RELEASE_REASON = 22 // u16, RELEASE_*
/** Initial sequence number of a new connection at least (RFC 1122 §4.2.2.13), if a SYN is handed back; 0 = any. */
export const RELEASE_FLOOR = 24 // u32
export const RELEASE_PACKET_BYTES = 28 // u16, bytes of the IP packet that follows, 0 = none
export const RELEASE_PACKET = 30
export const RELEASE_ENDED = 1 // the client knows
export const RELEASE_UNKNOWN = 2 // no such endpoint, or it is lost: the client may have to be reset

export const APPLICATION_OFFSET = 22 // u32
export const APPLICATION_BYTES = 26 // u16
export const APPLICATION_DATA = 28

export const MOVED_MOVES = 22 // u32, BLOCK_MOVES of the move that it tells of
export const MOVED_ADDRESS = 26 // u32, of the server where it is now
export const MOVED_THREAD = 30 // u16, by which it is known there
export const MOVED_BYTES = 32
export const MOVED_HEARD_MOVES = 22 // u32
export const MOVED_HEARD_BYTES = 26

// IPOS_STATE: header, then these, then HEARD_BYTES for each peer heard of, then SERVICE_BYTES for each port served.
export const STATE_INCARNATION = 16 // u32, another number after each power-on
export const STATE_SEQUENCE = 20 // u32, counts the state messages of an incarnation from 1
export const STATE_FLAGS = 24 // u16, STATE_FLAG_*
export const STATE_CPU = 26 // u16, utilization of the main board's processor, per mille
export const STATE_CONNECTIONS = 28 // u32, established TCP connections
export const STATE_CONNECTIONS_MAXIMUM = 32 // u32
export const STATE_MEMORY_AVAILABLE = 36 // u32, KiB of the main board
export const STATE_MEMORY_TOTAL = 40 // u32, KiB, 0 = not known
export const STATE_BANDWIDTH_AVAILABLE = 44 // u32, kbit/s
export const STATE_BANDWIDTH_TOTAL = 48 // u32, kbit/s, 0 = not known
export const STATE_HEARD_COUNT = 52 // u16
export const STATE_SERVICE_COUNT = 54 // u16
export const STATE_LEASE = 56 // u32, milliseconds, BOOT_LEASE_MS; who has another one than the receiver is not believed
export const STATE_HEARD = 60
export const STATE_FLAG_DRAINING = 1 // takes nothing new

/**
 * The last state message that the sender has heard from a peer: it renews the leases of what that peer holds for the sender. With its
 * incarnation, for sequence numbers begin again: what was heard of a server before it was switched off renews nothing after it.
 */
export const HEARD_ADDRESS = 0 // u32, as the sender knows the peer
export const HEARD_INCARNATION = 4 // u32
export const HEARD_SEQUENCE = 8 // u32
export const HEARD_BYTES = 12

/** A port on which the server's applications listen. */
export const SERVICE_PORT = 0 // u16
export const SERVICE_PROTOCOL = 2 // u8, IPOS_TCP or IPOS_UDP
export const SERVICE_FLAGS = 3 // u8, SERVICE_FLAG_* | FIRST_SPEAKER_* (abi/messages.ts) in the low two bits
export const SERVICE_BYTES = 4
export const SERVICE_FIRST_SPEAKER = 3 // mask of FIRST_SPEAKER_*
/** The application takes connections that another one hands over. */
export const SERVICE_FLAG_TAKES_OVER = 4
export const STATE_MAXIMUM_SERVICES = 256
