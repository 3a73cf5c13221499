import type { ConnectionOwner, TcpConnection } from './connection.ts'
import type { DatagramOwner, UdpEndpoint } from './udp.ts'

/** How sockets end when it is not they who end: each dies first and hears of it then, so that it may start anew at once. */

export function failConnect(connection: TcpConnection, status: number): void {
  connection.kill()
  connection.owner.onConnectFailed(status)
}

export function resetConnection(connection: TcpConnection, status: number): void {
  connection.kill()
  connection.owner.onReset(status)
}

export function loseEndpoint(endpoint: UdpEndpoint, status: number): void {
  endpoint.kill()
  endpoint.owner.onLost(status)
}

/** Runs all of `actions` from `first`, although some throw: those after it run a tick later. */
export function runAll(actions: readonly (() => void)[], first = 0): void {
  let i = first
  try {
    while (i < actions.length) actions[i++]!()
  } finally {
    if (i < actions.length) process.nextTick(runAll, actions, i)
  }
}

const nothing = () => {}
/** Owner of a connection that nobody has taken. */
export const NOBODY: ConnectionOwner = {
  onConnected: nothing,
  onConnectFailed: nothing,
  onData: nothing,
  onEnd: nothing,
  onRoom: nothing,
  onReset: nothing,
}
export const NO_DATAGRAMS: DatagramOwner = {
  onBound: nothing,
  onDatagram: nothing,
  onDatagramError: nothing,
  onRoom: nothing,
  onLost: nothing,
}
