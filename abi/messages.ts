/**
 * Messages between host sockets and firmware, carried by the four queues of a queue set. Little-endian. Sockets are named
 * by a *handle* that the card chose (never 0, not used again soon) or, before there is one, by a *cookie* that the host chose.
 * IPv4 addresses are numbers: 192.0.2.1 is 0xc0000201.
 */

// ── host to card: one record a chain, header of 16 bytes, payload or further fields from byte 16 ──
export const COMMAND_OP = 0 // u16
export const COMMAND_FLAGS = 2 // u16
export const COMMAND_SOCKET = 4 // u32 handle or cookie
export const COMMAND_A = 8 // u32
export const COMMAND_B = 12 // u32
export const COMMAND_HEADER_BYTES = 16
export const COMMAND_MAXIMUM_BYTES = 64 // commands other than data

// Control queue.
/** cookie; A = local address (0 = any); B = port (0 = choose) | backlog << 16 (not used by the card: its SYN backlog is the board's setting); then the fields below. Answer: EVENT_LISTENING. */
export const OP_LISTEN = 1
export const LISTEN_FIRST_SPEAKER = 16 // u32 FIRST_SPEAKER_*
export const LISTEN_PLACE_AFTER_MS = 20 // u32, 0 = the board's setting
export const LISTEN_PROCESS = 24 // u32 process id, for the Listening Sockets table
export const LISTEN_OPTIONS = 28 // u32 SOCKET_OPTION_* bits given to accepted sockets
export const LISTEN_BYTES = 32
/** cookie of a listener; unattached endpoints of it are reset. Answer: EVENT_UNLISTENED. */
export const OP_UNLISTEN = 2
/** cookie; A = remote address; B = remote port | local port << 16 (0 = choose). Answer: EVENT_CONNECTED or EVENT_CONNECT_FAILED. */
export const OP_CONNECT = 3
export const CONNECT_LOCAL_ADDRESS = 16 // u32, 0 = choose
export const CONNECT_OPTIONS = 20 // u32 SOCKET_OPTION_* bits
export const CONNECT_BYTES = 24
/** cookie of a connect that is not answered yet: forget it. No answer. */
export const OP_CANCEL = 4
/** handle; A = OPTION_*; B = value. */
export const OP_SET_OPTION = 5
/** cookie; A = local address (0 = any); B = port (0 = choose) | flags << 16 (UDP_*). Answer: EVENT_UDP_BOUND. */
export const OP_UDP_BIND = 6

/** state of the main board, for the Server State table; fields below. No answer. */
export const OP_BOARD_STATE = 8
export const BOARD_STATE_CPU = 16 // u32 per mille
export const BOARD_STATE_MEMORY_AVAILABLE = 20 // u32 KiB
export const BOARD_STATE_MEMORY_TOTAL = 24 // u32 KiB, 0 = not known
export const BOARD_STATE_BANDWIDTH_AVAILABLE = 28 // u32 kbit/s
export const BOARD_STATE_BANDWIDTH_TOTAL = 32 // u32 kbit/s, 0 = not known
export const BOARD_STATE_CONNECTIONS = 36 // u32: connections to report instead of those counted, + 1; 0 = as counted
export const BOARD_STATE_BYTES = 40
/** Application Information table: A = process id. No answer. */
export const OP_PROCESS_STATE = 9
export const PROCESS_STATE_MEMORY = 16 // u32 KiB that the process needs
export const PROCESS_STATE_CPU = 20 // u32 per mille
export const PROCESS_STATE_BYTES = 24
/** cookie of a listener; A = SOCKET_OPTION_* bits from now on. No answer. */
export const OP_LISTENER_OPTIONS = 10
/** A = 1: this server takes nothing new until A = 0. No answer. */
export const OP_DRAIN = 11

// TX queue: in order with the stream.
/** handle; payload from byte 16, at most MAXIMUM_DATA_BYTES; DATA_FLAG_FIN: this ends the stream (payload may be empty). */
export const OP_DATA = 16
/** handle; A = bytes that the application has consumed since the last OP_CREDIT. */
export const OP_CREDIT = 17
/** handle: the application has let go. Unsent data and a FIN still go out; if received data was not consumed or comes later, RST (RFC 9293 §3.6.1, RFC 1122 §4.2.2.13). */
export const OP_CLOSE = 18
/** handle: send RST now. */
export const OP_ABORT = 19
/** handle; A = remote address; B = remote port; payload from byte 16. */
export const OP_UDP_SEND = 20
/** handle; on this queue because it must not overtake the datagrams sent just before. */
export const OP_UDP_CLOSE = 7

/** handle; payload: bytes that were delivered and that nobody has consumed go back, in order; may come in several records. */
export const OP_RETURN = 21
/** handle; payload: a piece of the state that the application hands over; at most MAXIMUM_STATE_BYTES in all. */
export const OP_STATE = 22
/**
 * handle; A = address of the server to move to, 0 = the best; B = 0; MIGRATE_FLAG_*. Answer: EVENT_MIGRATED. Before it the host has sent
 * OP_CREDIT for all that was consumed, and OP_RETURN for all that was delivered and not consumed; OP_STATE brought the state. Between this
 * command and its answer the host sends nothing for the handle but OP_ABORT. If the move fails the returned bytes are delivered again.
 */
export const OP_MIGRATE = 23
/** The application hands over: another one that takes such connections must be there. */
export const MIGRATE_FLAG_HANDED_OVER = 1
/** OP_DATA beyond the granted credit, just before OP_MIGRATE: what the host had queued goes along. */
export const DATA_FLAG_MIGRATING = 2
/**
 * cookie; flags = FLASH_OP_*; A = offset in the slot that updates are written to; B = bytes; FLASH_OP_WRITE: so many bytes of payload. One at
 * a time: the next after the answer, which is EVENT_FLASH, or for a read that went well RX_FLASH.
 */
export const OP_FLASH = 24
export const FLASH_OP_READ = 1 // at most MAXIMUM_FLASH_BYTES
export const FLASH_OP_WRITE = 2 // the same; multiples of the write granule
export const FLASH_OP_ERASE = 3 // multiples of the erase block
export const FLASH_OP_CONFIRM = 4 // the running image; A = B = 0
/** Bytes of one read or write: with the header of its record they fill a chunk of the card's. */
export const MAXIMUM_FLASH_BYTES = 2032
/** State of one hand-over, bytes. */
export const MAXIMUM_STATE_BYTES = 65536
/** What OP_DATA with DATA_FLAG_MIGRATING may exceed the credit by, bytes. */
export const MAXIMUM_MIGRATING_BYTES = 1048576

export const DATA_FLAG_FIN = 1
/** Payload of one OP_DATA, bytes. */
export const MAXIMUM_DATA_BYTES = 65536

export const FIRST_SPEAKER_AUTO = 0 // at the request, or after placeAfterMs of silence
export const FIRST_SPEAKER_CLIENT = 1 // at the request alone
export const FIRST_SPEAKER_SERVER = 2 // at the handshake

export const SOCKET_OPTION_NO_DELAY = 1 // Nagle off (RFC 9293 §3.7.4)
export const SOCKET_OPTION_KEEP_ALIVE = 2
/** Of a listener: its application takes connections that another one hands over. */
export const SOCKET_OPTION_TAKES_OVER = 4

export const OPTION_NO_DELAY = 1 // value 0 or 1
export const OPTION_KEEP_ALIVE = 2 // value = idle seconds before the first probe, 0 = off
export const OPTION_UDP_BROADCAST = 3 // value 0 or 1
export const OPTION_TTL = 4 // value 1..255

export const UDP_FLAG_REUSE = 1

// ── card to host, RX queue: one record a chain, header of 16 bytes, payload after it ──
export const RX_TYPE = 0 // u16
export const RX_FLAGS = 2 // u16
export const RX_SOCKET = 4 // u32 handle
export const RX_LENGTH = 8 // u32 payload bytes
export const RX_SEQUENCE = 12 // u32, see EVENT_SEQUENCE
export const RX_HEADER_BYTES = 16
/** stream bytes, in order; RX_FLAG_END: the peer's FIN follows them. */
export const RX_DATA = 1
/** one datagram; payload after RX_DATAGRAM_HEADER_BYTES. */
export const RX_DATAGRAM = 2
/** a piece of the state that came with EVENT_ARRIVED; RX_FLAG_END on the last. */
export const RX_STATE = 3
/** bytes that were read from flash; the handle is the command's cookie. */
export const RX_FLASH = 4
export const RX_FLAG_END = 1
export const RX_DATAGRAM_REMOTE_ADDRESS = 16 // u32
export const RX_DATAGRAM_LOCAL_ADDRESS = 20 // u32
export const RX_DATAGRAM_REMOTE_PORT = 24 // u16
export const RX_DATAGRAM_HEADER_BYTES = 32

// ── card to host, event queue: records of EVENT_BYTES ──
export const EVENT_TYPE = 0 // u16
export const EVENT_STATUS = 2 // u16, abi/status.ts
export const EVENT_SOCKET = 4 // u32 handle, 0 if there is none
export const EVENT_COOKIE = 8 // u32
/** u32: RX and event records of a queue set carry one running number; the driver takes them in its order. Starts at 0 with each epoch. */
export const EVENT_SEQUENCE = 12
export const EVENT_LOCAL_ADDRESS = 16 // u32
export const EVENT_REMOTE_ADDRESS = 20 // u32
export const EVENT_LOCAL_PORT = 24 // u16
export const EVENT_REMOTE_PORT = 26 // u16
export const EVENT_VALUE = 28 // u32
export const EVENT_VALUE2 = 32 // u32
export const EVENT_BYTES = 40

/** cookie, status, local port. */
export const EVENT_LISTENING = 1
export const EVENT_UNLISTENED = 2
/** cookie = the listener's; handle, both addresses and ports; VALUE = send credit, VALUE2 = receive credit, bytes. */
export const EVENT_ACCEPTED = 3
/** cookie, handle, both addresses and ports; VALUE and VALUE2 as above. */
export const EVENT_CONNECTED = 4
/** cookie, status. */
export const EVENT_CONNECT_FAILED = 5
/** handle; VALUE = bytes of send credit returned or added. */
export const EVENT_CREDIT = 6
/** handle, status (ECONNRESET, ETIMEDOUT, EHOSTUNREACH...): the handle is dead. */
export const EVENT_RESET = 7
/** cookie, status, handle, local address and port; VALUE2 = receive credit in bytes. */
export const EVENT_UDP_BOUND = 8
/** handle, status, remote address and port: an ICMP error came back for a datagram. */
export const EVENT_UDP_ERROR = 9
/**
 * handle, status: the answer to OP_MIGRATE. OK: the endpoint is another server's, the handle is dead. EAGAIN: bytes were delivered
 * meanwhile, and none more will be; what OP_RETURN and OP_STATE brought stays with the card: the host returns what has come since, and gives
 * OP_MIGRATE again. Otherwise: it stays, and goes on.
 */
export const EVENT_MIGRATED = 10
/**
 * As EVENT_ACCEPTED, for an endpoint that comes from another server in mid-conversation, handed over or as a new one: VALUE is what is left of the send credit, i32, below
 * 0 if a host has overdrawn it (DATA_FLAG_MIGRATING). VALUE3 = bytes of application state, which RX_STATE records bring before any other; 0 = none.
 */
export const EVENT_ARRIVED = 11
export const EVENT_VALUE3 = 36 // u32
/**
 * cookie, status: OP_FLASH was carried out. EAGAIN: another one is under way. EINVAL: not in the slot, or too much. EIO: the flash refused;
 * VALUE = FLASH_ERROR_* (abi/registers.ts).
 */
export const EVENT_FLASH = 12

/**
 * Life of a handle: it starts with ACCEPTED or CONNECTED and is dead, for both sides and without a message, as soon as
 * the host has sent FIN (or CLOSE or ABORT) and the card has delivered END (or RESET). Receive credit: the card delivers
 * at most VALUE2 bytes beyond what OP_CREDIT has returned. Send credit: the host sends at most VALUE bytes of OP_DATA
 * payload beyond what EVENT_CREDIT has returned.
 */
export const HANDLE_NONE = 0
