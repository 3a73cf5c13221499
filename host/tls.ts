import type net from 'node:net'
import tls from 'node:tls'
import { Socket } from './socket.ts'

let supported = false

/**
 * Lets `tls.TLSSocket` take a connected socket of the card. It wraps it as a stream, since there is no handle, but then waits for a 'connect'
 * that has long been: it tells "connected" by the handle alone. So this corrects `connecting` after Node's own set-up, for our
 * sockets and no others.
 */
export function supportTls(): void {
  if (supported) return
  supported = true
  const prototype = tls.TLSSocket.prototype as unknown as { _init(socket: unknown, wrap: unknown): void }
  const init = prototype._init
  prototype._init = function (this: net.Socket, socket, wrap) {
    init.call(this as unknown as typeof prototype, socket, wrap)
    if (socket instanceof Socket) (this as unknown as { connecting: boolean }).connecting = socket.connecting
  }
}
