import { isIP } from 'node:net'
import {
  STATUS_EACCES,
  STATUS_EADDRINUSE,
  STATUS_EADDRNOTAVAIL,
  STATUS_ECONNABORTED,
  STATUS_ECONNREFUSED,
  STATUS_ECONNRESET,
  STATUS_EHOSTUNREACH,
  STATUS_EINVAL,
  STATUS_EIO,
  STATUS_EMSGSIZE,
  STATUS_ENETUNREACH,
  STATUS_ENOBUFS,
  STATUS_ENOTCONN,
  STATUS_EPERM,
  STATUS_ETIMEDOUT,
} from '../abi/status.ts'
import { STATUS_EAFNOSUPPORT, STATUS_EALREADY, STATUS_ENETDOWN } from './status.ts'

/** errno, code and text as libuv has them on Linux; what Node prints must not depend on the machine that the farm runs on. */
const STATUSES = new Map<number, readonly [code: string, text: string]>([
  [STATUS_EPERM, ['EPERM', 'operation not permitted']],
  [STATUS_EIO, ['EIO', 'i/o error']],
  [9, ['EBADF', 'bad file descriptor']],
  [STATUS_EACCES, ['EACCES', 'permission denied']],
  [STATUS_EINVAL, ['EINVAL', 'invalid argument']],
  [32, ['EPIPE', 'broken pipe']],
  [STATUS_EMSGSIZE, ['EMSGSIZE', 'message too long']],
  [95, ['ENOTSUP', 'operation not supported on socket']],
  [STATUS_EAFNOSUPPORT, ['EAFNOSUPPORT', 'address family not supported']],
  [STATUS_EADDRINUSE, ['EADDRINUSE', 'address already in use']],
  [STATUS_EADDRNOTAVAIL, ['EADDRNOTAVAIL', 'address not available']],
  [STATUS_ENETDOWN, ['ENETDOWN', 'network is down']],
  [STATUS_ENETUNREACH, ['ENETUNREACH', 'network is unreachable']],
  [STATUS_ECONNABORTED, ['ECONNABORTED', 'software caused connection abort']],
  [STATUS_ECONNRESET, ['ECONNRESET', 'connection reset by peer']],
  [STATUS_ENOBUFS, ['ENOBUFS', 'no buffer space available']],
  [STATUS_ENOTCONN, ['ENOTCONN', 'socket is not connected']],
  [STATUS_EALREADY, ['EALREADY', 'connection already in progress']],
  [STATUS_ETIMEDOUT, ['ETIMEDOUT', 'connection timed out']],
  [STATUS_ECONNREFUSED, ['ECONNREFUSED', 'connection refused']],
  [STATUS_EHOSTUNREACH, ['EHOSTUNREACH', 'host is unreachable']],
])

export const STATUS_EBADF = 9
export const STATUS_EOPNOTSUPP = 95

/** An error of a system call, as Node's sockets report it. `errno` is negative. */
export interface SystemError extends Error {
  errno: number
  code: string
  syscall: string
  address?: string
  port?: number
  localAddress?: string
  localPort?: number
  hostname?: string
}

function build(message: string, status: number, code: string, syscall: string): SystemError {
  return Object.assign(new Error(message), { errno: -status, code, syscall })
}

function named(status: number): readonly [code: string, text: string] {
  return STATUSES.get(status) ?? [`Unknown system error ${-status}`, `Unknown system error ${-status}`]
}

/** `read ECONNRESET` */
export function systemError(status: number, syscall: string): SystemError {
  const code = named(status)[0]
  return build(`${syscall} ${code}`, status, code, syscall)
}

/** `connect ECONNREFUSED 192.0.2.1:80`, or `... - Local (192.0.2.9:4000)` with the address bound before. */
export function addressError(
  status: number,
  syscall: string,
  address: string,
  port: number | undefined,
  local?: string,
): SystemError {
  const code = named(status)[0]
  const where = port === undefined || port <= 0 ? address : `${address}:${port}`
  const error = build(
    `${syscall} ${code} ${where}${local === undefined ? '' : ` - Local (${local})`}`,
    status,
    code,
    syscall,
  )
  error.address = address
  if (port !== undefined && port > 0) error.port = port
  return error
}

/** `listen EADDRINUSE: address already in use 0.0.0.0:80` */
export function listenError(status: number, address: string, port: number): SystemError {
  const [code, text] = named(status)
  const error = build(`listen ${code}: ${text} ${port > 0 ? `${address}:${port}` : address}`, status, code, 'listen')
  error.address = address
  if (port > 0) error.port = port
  return error
}

/** libuv's number for a name that is not found. */
const UV_EAI_NONAME = 3008

/** `getaddrinfo ENOTFOUND example.com` */
export function notFound(hostname: string, syscall = 'getaddrinfo'): SystemError {
  const error = build(`${syscall} ENOTFOUND ${hostname}`, UV_EAI_NONAME, 'ENOTFOUND', syscall)
  error.hostname = hostname
  return error
}

/** Node's errors of misuse, by their codes: `code` is stable, and the stack shows it as Node's does. */
export function nodeError<E extends Error>(
  type: new (message: string) => E,
  code: string,
  message: string,
): E & { code: string } {
  const error = Object.assign(new type(message), { code })
  // The name carries the code while the stack is captured, and no longer: as in Node.
  error.name = `${type.name} [${code}]`
  Error.captureStackTrace(error, nodeError)
  void error.stack
  Reflect.deleteProperty(error, 'name')
  return error
}

/** What Node says of a call that comes too late: `Cannot call write after a stream was destroyed`. */
export function destroyedError(method: string): Error {
  return nodeError(Error, 'ERR_STREAM_DESTROYED', `Cannot call ${method} after a stream was destroyed`)
}

/** `Received type number (70000)`, as Node describes a wrong value. */
function received(value: unknown): string {
  if (value == null) return `Received ${value}`
  if (typeof value === 'function') return `Received function ${value.name}`
  if (typeof value === 'object') return `Received an instance of ${value.constructor?.name ?? 'Object'}`
  const text = typeof value === 'string' ? `'${value.length > 28 ? `${value.slice(0, 25)}...` : value}'` : String(value)
  return `Received type ${typeof value} (${text})`
}

export function argumentTypeError(name: string, expected: string, value: unknown): TypeError & { code: string } {
  const kind = name.includes('.') ? 'property' : 'argument'
  return nodeError(TypeError, 'ERR_INVALID_ARG_TYPE', `The "${name}" ${kind} must be ${expected}. ${received(value)}`)
}

/** A port as Node takes it: a number or a numeric string, `least` to 65535. Throws RangeError ERR_SOCKET_BAD_PORT. */
export function validatePort(port: unknown, name: string, least: 0 | 1 = 0): number {
  const valid =
    (typeof port === 'number' || (typeof port === 'string' && port.trim().length > 0)) &&
    Number(port) === Number(port) >>> 0 &&
    Number(port) >= least &&
    Number(port) <= 0xffff
  if (!valid) {
    const range = `${least === 0 ? '>= 0' : '> 0'} and < 65536`
    throw nodeError(RangeError, 'ERR_SOCKET_BAD_PORT', `${name} should be ${range}. ${received(port)}.`)
  }
  return Number(port)
}

/** Throws TypeError ERR_INVALID_IP_ADDRESS. */
export function validateAddress(address: string): void {
  if (isIP(address) === 0) throw nodeError(TypeError, 'ERR_INVALID_IP_ADDRESS', `Invalid IP address: ${address}`)
}
