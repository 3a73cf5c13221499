import dgram from 'node:dgram'
import dns from 'node:dns'
import { syncBuiltinESMExports } from 'node:module'
import net from 'node:net'
import tls from 'node:tls'
import { createDgram } from '../dgram.ts'
import { drainServer } from '../drain.ts'
import { StreamEndpoint } from '../endpoint.ts'
import { addressError, notFound, STATUS_EOPNOTSUPP } from '../errors.ts'
import { isOnRead } from '../on-read.ts'
import { isForeignListen, listenOnCard } from '../server.ts'
import { connectSocket, kEndpoint, normalizeConnect, Socket } from '../socket.ts'
import { resolveHost, type Stack } from '../stack.ts'
import { supportTls } from '../tls.ts'

/**
 * Puts the card under a program that knows nothing of it: from now on `net`, `dgram`, and all that is built on them, `http`, `https`, `tls`, `http2`,
 * `fetch`, talk through the card. Replaced are methods on prototypes, so that it does not matter who has got hold of which class before.
 * What is not the network's stays Node's own: Unix sockets and pipes, file descriptors, the streams of child processes.
 *
 * One way: a thread on which this ran is a process of the main board for the rest of its life.
 */
export function patchNode(stack: Stack): void {
  supportTls()
  patchListen(stack)
  patchConnect(stack)
  patchTls(stack)
  patchDns(stack)
  Object.assign(dgram, createDgram(stack))
  syncBuiltinESMExports()
}

type Method = (this: unknown, ...args: unknown[]) => unknown

/** Replaces a method; `replacement` gets the old one first. */
function replace(object: object, name: string, replacement: (original: Method) => Method): void {
  const methods = object as Record<string, Method>
  methods[name] = replacement(methods[name]!)
}

function patchListen(stack: Stack): void {
  replace(net.Server.prototype, 'listen', (original) => {
    return function (this: unknown, ...args) {
      if (isForeignListen(args)) return Reflect.apply(original, this, args)
      listenOnCard(this as net.Server, stack, args)
      return this
    }
  })
  // Not enumerable, as a class's own methods are.
  Object.defineProperty(net.Server.prototype, 'drain', {
    value: function drain(this: net.Server, options?: net.DrainOptions) {
      return drainServer(this, options)
    },
    configurable: true,
    writable: true,
  })
}

function patchConnect(stack: Stack): void {
  replace(net.Socket.prototype, 'connect', (original) => {
    return function (this: unknown, ...args) {
      const socket = this as net.Socket
      const [options] = normalizeConnect(args)
      if (options?.path) return Reflect.apply(original, socket, args)
      if (socket instanceof tls.TLSSocket) {
        // Its handle was made for a connection of the machine. `tls.connect` does not come here: see patchTls.
        throw addressError(
          STATUS_EOPNOTSUPP,
          'connect',
          String((options as net.TcpNetConnectOpts).host ?? 'localhost'),
          undefined,
        )
      }
      if (!(kEndpoint in socket)) adopt(socket, stack)
      return Reflect.apply(Socket.prototype.connect, socket, args)
    }
  })
}

/** Members of our Socket that are nobody's in the classes between `prototype` and net.Socket; see `adopt`. */
const derivedPrototypes = new WeakMap<object, object>()

/**
 * Makes a socket that Node's constructor made one of ours, before it connects. Its prototype becomes our class's; that of a program's own
 * subclass becomes one that puts our methods in front of those which the subclass has inherited, and leaves those it has defined.
 */
function adopt(socket: net.Socket, stack: Stack): void {
  const endpoint = new StreamEndpoint(socket as Socket, stack)
  const prototype = Object.getPrototypeOf(socket)
  let derived = derivedPrototypes.get(prototype)
  if (derived === undefined) {
    derived = derive(prototype)
    derivedPrototypes.set(prototype, derived)
  }
  Object.setPrototypeOf(socket, derived)
  Object.defineProperty(socket, kEndpoint, { value: endpoint })
  // Settings made before, which net.Socket keeps under symbols of its own.
  const onread: Record<string, unknown> = {}
  for (const symbol of Object.getOwnPropertySymbols(socket)) {
    const value = (socket as unknown as Record<symbol, unknown>)[symbol]
    if (symbol.description === 'kSetNoDelay') endpoint.noDelay = Boolean(value)
    else if (symbol.description === 'kSetKeepAlive') endpoint.keepAlive = Boolean(value)
    else if (symbol.description === 'kSetKeepAliveInitialDelay') endpoint.keepAliveSeconds = Number(value) || 0
    else if (symbol.description === 'kBuffer' || symbol.description === 'kBufferGen')
      onread.buffer ??= value === true ? null : value
    else if (symbol.description === 'kBufferCb') onread.callback = value
  }
  if (isOnRead(onread)) endpoint.setOnRead(onread)
  if (socket.timeout) {
    const { timeout } = socket
    net.Socket.prototype.setTimeout.call(socket, 0)
    socket.setTimeout(timeout)
  }
}

function derive(prototype: object): object {
  if (prototype === net.Socket.prototype) return Socket.prototype
  const derived = Object.create(prototype)
  for (const [name, property] of Object.entries(Object.getOwnPropertyDescriptors(Socket.prototype))) {
    if (!definesBelowSocket(prototype, name)) Object.defineProperty(derived, name, property)
  }
  return derived
}

function definesBelowSocket(prototype: object, name: string): boolean {
  for (let p: object | null = prototype; p !== null && p !== net.Socket.prototype; p = Object.getPrototypeOf(p)) {
    if (Object.hasOwn(p, name)) return true
  }
  return false
}

/** A TLSSocket makes its own connection by a handle of the machine: it is given a socket of the card instead. */
function patchTls(stack: Stack): void {
  replace(tls, 'connect', (original) => {
    return function (this: unknown, ...args) {
      const options = tlsOptions(args)
      if (options.socket || options.path) return Reflect.apply(original, this, args)
      const { host, port, localAddress, localPort, family, lookup, timeout } = options
      const target = { host, port, localAddress, localPort, family, lookup, timeout } as net.NetConnectOpts
      const callback = args.findLast((arg) => typeof arg === 'function')
      return Reflect.apply(original, this, [{ ...options, socket: connectSocket(stack, [target]) }, callback])
    }
  })
}

/** (options[, cb]), (port[, host][, options][, cb]) or (path[, options][, cb]). */
function tlsOptions(args: readonly unknown[]): tls.ConnectionOptions & net.TcpNetConnectOpts {
  const [base] = normalizeConnect(args)
  const extra = args.slice(1).find((arg) => typeof arg === 'object' && arg !== null)
  return { ...base, ...(extra as object | undefined) } as tls.ConnectionOptions & net.TcpNetConnectOpts
}

/** Names are those of the farm; the machine's resolver is not asked. */
function patchDns(stack: Stack): void {
  const lookup = (host: string, options: dns.LookupOptions): dns.LookupAddress | dns.LookupAddress[] => {
    const family = options.family === 'IPv6' || options.family === 6 ? 6 : 4
    const address = net.isIPv6(host) ? host : family === 6 ? null : resolveHost(stack, host)
    if (address === null) throw notFound(host)
    const entry = { address, family: net.isIP(address) }
    return options.all ? [entry] : entry
  }
  const normalize = (options: unknown): dns.LookupOptions =>
    typeof options === 'number' ? { family: options } : typeof options === 'object' && options !== null ? options : {}
  const callbackLookup = (host: string, options: unknown, callback?: unknown): void => {
    const done = (typeof options === 'function' ? options : callback) as (...results: unknown[]) => void
    let results: unknown[]
    try {
      const found = lookup(host, normalize(options))
      results = Array.isArray(found) ? [null, found] : [null, found.address, found.family]
    } catch (error) {
      results = [error]
    }
    process.nextTick(done, ...results)
  }
  Object.assign(dns, { lookup: callbackLookup })
  Object.assign(dns.promises, { lookup: async (host: string, options?: unknown) => lookup(host, normalize(options)) })
}
