/** Status of an event: 0 or a Linux errno, so that the host can name it as Node does. */
export const STATUS_OK = 0
export const STATUS_EPERM = 1
export const STATUS_EIO = 5
export const STATUS_EAGAIN = 11
export const STATUS_EACCES = 13
export const STATUS_EINVAL = 22
export const STATUS_EMSGSIZE = 90
export const STATUS_EADDRINUSE = 98
export const STATUS_EADDRNOTAVAIL = 99
export const STATUS_ENETUNREACH = 101
export const STATUS_ECONNABORTED = 103
export const STATUS_ECONNRESET = 104
export const STATUS_ENOBUFS = 105
export const STATUS_ENOTCONN = 107
export const STATUS_ETIMEDOUT = 110
export const STATUS_ECONNREFUSED = 111
export const STATUS_EHOSTUNREACH = 113
