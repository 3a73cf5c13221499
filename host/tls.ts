import type net from 'node:net'
import tls from 'node:tls'
import { Socket } from './socket.ts'

let supported = false

/**
 * Lets `tls.TLSSocket` take a socket of the card, which it wraps as a stream, since there is no handle. Node's own set-up then leaves two things
 * to be put right, for our sockets and no others: it tells "connected" by the handle alone, and so waits for a 'connect' that has
 * long been; and the socket below would end itself at the peer's end, although what TLS has still to send waits above it.
 */
export function supportTls(): void {
  if (supported) return
  supported = true
  const prototype = tls.TLSSocket.prototype as unknown as { _init(socket: unknown, wrap: unknown): void }
  const init = prototype._init
  prototype._init = function (this: net.Socket, socket, wrap) {
    init.call(this as unknown as typeof prototype, socket, wrap)
    if (!(socket instanceof Socket)) return
    ;(this as unknown as { connecting: boolean }).connecting = socket.connecting
    socket.allowHalfOpen = true
  }
}
