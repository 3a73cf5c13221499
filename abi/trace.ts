/** Trace events: number, and what a (u16), b and c (u32) hold. */
export const TRACE_BOOT = 1 // b = memory bytes
export const TRACE_TCP_STATE = 2 // a = old << 8 | new state, b = handle, c = remote port << 16 | local port
export const TRACE_TCP_RETRANSMIT = 3 // a = 1 timeout, 2 fast, b = handle, c = sequence number
export const TRACE_ATTACH = 4 // a = queue set, b = handle
export const TRACE_DROP = 5 // a = DROP_*, b, c by reason
export const TRACE_QUEUE = 6 // a = queue, b = state, c = epoch
export const TRACE_ARP = 7 // a = port, b = address, c = 1 learned, 2 conflict, 3 failed
export const TRACE_MIGRATE = 8 // a = phase entered (firmware/ipos/migration.ts) | other server's row << 8, b = handle, c = thread port

/** Events from here on belong to firmware of one's own. */
export const TRACE_OWN = 0x8000

export const DROP_NONE = 0
export const DROP_ETHERNET_SHORT = 1
export const DROP_ETHERNET_TYPE = 2
export const DROP_IPV4_HEADER = 3
export const DROP_IPV4_CHECKSUM = 4
export const DROP_IPV4_DESTINATION = 5
export const DROP_FRAGMENT = 6
export const DROP_TCP_HEADER = 7
export const DROP_TCP_CHECKSUM = 8
export const DROP_UDP_HEADER = 9
export const DROP_UDP_CHECKSUM = 10
export const DROP_ICMP_HEADER = 11
export const DROP_NO_SOCKET = 12
export const DROP_NO_MEMORY = 13
export const DROP_ARP = 14
export const DROP_TCP_WINDOW = 15
export const DROP_TCP_PAWS = 16
export const DROP_PROTOCOL = 17
export const DROP_TTL = 18
export const DROP_IPOS = 19
export const DROP_HELD = 20
