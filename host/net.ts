import net from 'node:net'
import { drainServer } from './drain.ts'
import { listenOnCard } from './server.ts'
import { Socket as CardSocket, connectSocket, createSocket, type SocketOptions } from './socket.ts'
import type { Stack } from './stack.ts'
import { supportTls } from './tls.ts'

/** node:net, on the card: the members of Node's module that have to do with TCP, and `attach`. */
export interface Net {
  readonly Socket: typeof net.Socket
  readonly Stream: typeof net.Socket
  readonly Server: typeof net.Server
  connect: typeof net.connect
  createConnection: typeof net.createConnection
  createServer: typeof net.createServer
  isIP: typeof net.isIP
  isIPv4: typeof net.isIPv4
  isIPv6: typeof net.isIPv6
  readonly BlockList: typeof net.BlockList
  readonly SocketAddress: typeof net.SocketAddress
  /** Has a server that was made elsewhere (`http.createServer()`, `tls.createServer()`) listen on the card; the arguments are those of `listen`. */
  attach<S extends net.Server>(server: S, ...args: unknown[]): S
}

/** The `net` module of one process. Several processes may live on one thread: each has sockets and servers of its own. */
export function createNet(stack: Stack): Net {
  supportTls()

  /** Stands for `net.Socket`; all processes' sockets share one class, and with it the compiled code. */
  function Socket(options?: SocketOptions): CardSocket {
    const socket = createSocket(stack, options)
    if (new.target !== undefined && new.target.prototype !== CardSocket.prototype) {
      Object.setPrototypeOf(socket, new.target.prototype)
    }
    return socket
  }
  Socket.prototype = CardSocket.prototype

  class Server extends net.Server {
    override listen(...args: unknown[]): this {
      listenOnCard(this, stack, args)
      return this
    }

    override drain(options?: net.DrainOptions): Promise<net.DrainResult> {
      return drainServer(this, options)
    }
  }

  const SocketClass = Socket as unknown as typeof net.Socket
  const connect = ((...args: unknown[]) => connectSocket(stack, args)) as typeof net.connect
  return {
    Socket: SocketClass,
    Stream: SocketClass,
    // Callable without `new`, as Node's is.
    Server: new Proxy(Server, { apply: (target, _self, args) => Reflect.construct(target, args) }),
    connect,
    createConnection: connect,
    createServer: (...args: unknown[]) => Reflect.construct(Server, args),
    isIP: net.isIP,
    isIPv4: net.isIPv4,
    isIPv6: net.isIPv6,
    BlockList: net.BlockList,
    SocketAddress: net.SocketAddress,
    attach(server, ...args) {
      listenOnCard(server, stack, args)
      Object.defineProperty(server, 'drain', { value: Server.prototype.drain, configurable: true, writable: true })
      return server
    },
  }
}
