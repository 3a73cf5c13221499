/** Connections in each state (RFC 9293 §3.3.2), reached through frames and commands alone. */
import * as M from '../../abi/messages.ts'
import { ipNumber } from './packets.ts'
import { Conn, type PeerOptions, type TcpNet } from './tcp-script.ts'

export interface StateOptions extends PeerOptions {
  /** SOCKET_OPTION_* for the connection. */
  socketOptions?: number
  /** What the first round trip takes, milliseconds. Default 0. */
  rttMs?: number
}

const SERVER_SPEAKS = 7001
const CLIENT_SPEAKS = 80

/** A listener of each kind is made once per network. */
const listening = new WeakMap<TcpNet, Map<string, number>>()

function listener(net: TcpNet, port: number, firstSpeaker: number, options: number): number {
  let ports = listening.get(net)
  if (!ports) {
    ports = new Map()
    listening.set(net, ports)
  }
  const key = `${firstSpeaker} ${options}`
  let found = ports.get(key)
  if (found === undefined) {
    found = port + ports.size
    ports.set(key, found)
    net.listen({ port: found, firstSpeaker, options })
  }
  return found
}

/** SYN-RECEIVED: the card has answered our SYN. The listener's server speaks first, so ESTABLISHED is also attached. */
export function synReceived(net: TcpNet, options: StateOptions = {}): Conn {
  const port = listener(net, SERVER_SPEAKS, M.FIRST_SPEAKER_SERVER, options.socketOptions ?? 0)
  return answered(net, { cardPort: port, ...options })
}

function answered(net: TcpNet, options: StateOptions): Conn {
  const c = new Conn(net, options)
  c.sendSyn()
  const answer = c.expect({ flags: 'SA', seq: 0, ack: 1, length: 0 })
  c.stamped = answer.timestamps !== null
  c.scale = answer.windowScale === null ? 0 : (options.windowScale ?? 0)
  return c
}

/** Established, its listener waits for the request: the main board knows nothing of it. */
export function unattached(net: TcpNet, options: StateOptions = {}): Conn {
  const port = listener(net, CLIENT_SPEAKS, M.FIRST_SPEAKER_CLIENT, options.socketOptions ?? 0)
  const c = answered(net, { cardPort: port, ...options })
  c.send({ flags: 'A' })
  c.expectNothing()
  return c
}

/** ESTABLISHED by passive open and attached to a socket; no byte was sent either way. */
export function established(net: TcpNet, options: StateOptions = {}): Conn {
  const c = synReceived(net, options)
  net.wait(options.rttMs ?? 0)
  c.send({ flags: 'A' })
  c.expectEvent(M.EVENT_ACCEPTED)
  c.expectNothing()
  return c
}

/** The card calls; SYN-SENT. Ports of the options are the peer's listening port and the card's, 0 = chosen by the card. */
export function synSent(net: TcpNet, options: StateOptions = {}): Conn {
  const c = new Conn(net, { cardPort: 0, peerPort: 9000, ...options })
  c.cookie = net.cookie()
  const b = c.peerPort | ((options.cardPort ?? 0) << 16)
  const fields = [0, options.socketOptions ?? 0]
  net.control({ op: M.OP_CONNECT, socket: c.cookie, a: ipNumber(c.peer.ip), b, fields })
  c.expect({ flags: 'S', seq: 0, ack: 0, length: 0 })
  return c
}

/** ESTABLISHED by active open. */
export function connected(net: TcpNet, options: StateOptions = {}): Conn {
  const c = synSent(net, options)
  c.stamped = options.timestamps ?? false
  c.scale = options.windowScale ?? 0
  c.sendSyn('SA')
  c.expect({ flags: 'A', seq: 1, ack: 1, length: 0 })
  c.expectEvent(M.EVENT_CONNECTED, 0)
  return c
}

/** Our application has ended its stream; the FIN is not acknowledged. */
export function finWait1(net: TcpNet, options: StateOptions = {}): Conn {
  const c = established(net, options)
  c.end()
  c.expect({ flags: 'FA', seq: 1, ack: 1, length: 0 })
  return c
}

export function finWait2(net: TcpNet, options: StateOptions = {}): Conn {
  const c = finWait1(net, options)
  c.send({ flags: 'A' })
  c.expectNothing()
  return c
}

/** The peer has ended its stream, and the host knows. */
export function closeWait(net: TcpNet, options: StateOptions = {}): Conn {
  const c = established(net, options)
  c.send({ flags: 'FA' })
  c.expect({ flags: 'A', seq: 1, ack: 2, length: 0, after: 40 })
  c.expectEnd()
  return c
}

/** Both FINs are under way, ours unacknowledged. */
export function closing(net: TcpNet, options: StateOptions = {}): Conn {
  const c = finWait1(net, options)
  c.send({ flags: 'FA', ack: 1 })
  c.expect({ flags: 'A', seq: 2, ack: 2, length: 0 })
  return c
}

export function lastAck(net: TcpNet, options: StateOptions = {}): Conn {
  const c = closeWait(net, options)
  c.end()
  c.expect({ flags: 'FA', seq: 1, ack: 2, length: 0 })
  return c
}

/** By the active close: FIN, its ACK, the peer's FIN, our ACK. */
export function timeWait(net: TcpNet, options: StateOptions = {}): Conn {
  const c = finWait2(net, options)
  c.send({ flags: 'FA' })
  c.expect({ flags: 'A', seq: 2, ack: 2, length: 0 })
  c.expectEnd()
  return c
}

/** Every state by its name, for tables of cases. */
export const STATES: Record<string, (net: TcpNet, options?: StateOptions) => Conn> = {
  'SYN-SENT': synSent,
  'SYN-RECEIVED': synReceived,
  unattached,
  ESTABLISHED: established,
  'FIN-WAIT-1': finWait1,
  'FIN-WAIT-2': finWait2,
  'CLOSE-WAIT': closeWait,
  CLOSING: closing,
  'LAST-ACK': lastAck,
  'TIME-WAIT': timeWait,
}
