/** TCP connection states (RFC 9293 §3.3.2), as the firmware numbers them. */
export const TCP_CLOSED = 0
export const TCP_SYN_SENT = 1
export const TCP_SYN_RECEIVED = 2
export const TCP_ESTABLISHED = 3
export const TCP_FIN_WAIT_1 = 4
export const TCP_FIN_WAIT_2 = 5
export const TCP_CLOSE_WAIT = 6
export const TCP_CLOSING = 7
export const TCP_LAST_ACK = 8
export const TCP_TIME_WAIT = 9
