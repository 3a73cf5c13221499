/** Statuses that the driver finds by itself, in the numbers of abi/status.ts: Linux errno. */

/** The card stopped, or is not there. */
export const STATUS_ENETDOWN = 100
/** The card speaks IPv4 alone. */
export const STATUS_EAFNOSUPPORT = 97
/** The connection is on its way to another server already. */
export const STATUS_EALREADY = 114
