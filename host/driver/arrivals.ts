import { MAXIMUM_STATE_BYTES } from '../../abi/messages.ts'
import type { ConnectionOwner, TcpConnection } from './connection.ts'
import { NOBODY } from './endings.ts'
import type { TcpListener } from './listener.ts'
import { QueueFault } from './virtqueue.ts'

/** A connection from another server whose state is still coming (abi/messages.ts, EVENT_ARRIVED). */
interface Arrival {
  readonly connection: TcpConnection
  readonly listener: TcpListener
  readonly state: Buffer
  bytes: number
}

/** Owner of a connection that no application knows yet: nothing may come before its state is whole. */
const ARRIVING: ConnectionOwner = {
  ...NOBODY,
  onData() {
    throw new QueueFault('The card delivered data before the state that belongs in front of it.')
  },
}

/** Connections from other servers: each is its server's once the application state that came with it is here. */
export class Arrivals {
  readonly #waiting = new Map<number, Arrival>()

  /** `connection` came for `listener`, with `stateBytes` of state in the records that follow. Throws QueueFault. */
  begin(connection: TcpConnection, listener: TcpListener, stateBytes: number): void {
    if (stateBytes === 0) {
      listener.owner.onArrival(connection, null)
      return
    }
    if (stateBytes > MAXIMUM_STATE_BYTES)
      throw new QueueFault(`The card announced ${stateBytes} bytes of state for socket ${connection.handle}.`)
    connection.owner = ARRIVING
    this.#waiting.set(connection.handle, { connection, listener, state: Buffer.alloc(stateBytes), bytes: 0 })
  }

  /** A piece of the state of `handle`. False if no connection of that handle waits for one. Throws QueueFault. */
  piece(handle: number, data: Uint8Array, last: boolean): boolean {
    const arrival = this.#waiting.get(handle)
    if (arrival === undefined) return false
    const { connection, listener, state } = arrival
    if (data.length > state.length - arrival.bytes || last !== (arrival.bytes + data.length === state.length))
      throw new QueueFault(
        `The card announced ${state.length} bytes of state for socket ${handle}, and delivered ${arrival.bytes + data.length}${last ? ' in all' : ' so far'}.`,
      )
    state.set(data, arrival.bytes)
    arrival.bytes += data.length
    if (!last) return true
    this.#waiting.delete(handle)
    if (connection.dead) return true
    if (listener.closed) connection.abort()
    else listener.owner.onArrival(connection, state)
    return true
  }

  /** The connection is gone. */
  forget(handle: number): void {
    if (this.#waiting.size > 0) this.#waiting.delete(handle)
  }

  clear(): void {
    this.#waiting.clear()
  }
}
