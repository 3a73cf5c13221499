import type { TcpConnection } from './connection.ts'

/** What a listener tells its server. */
export interface ListenerOwner {
  /** Answer to `listen`: STATUS_*, and the port that it listens on. */
  onListening(status: number, port: number): void
  /** A new connection. It is open, and has no owner: the server must give it one at once, or `close` it. */
  onConnection(connection: TcpConnection): void
  /**
   * A connection that another server has handed over, with the state that its application gave; null: with none, it is as good as a new
   * one. As with `onConnection`, it has no owner.
   */
  onArrival(connection: TcpConnection, state: Buffer | null): void
  /** The card stopped: the listener is gone, with STATUS_*. */
  onListenerLost(status: number): void
}

/** What a server asks of the card (abi/messages.ts, OP_LISTEN). */
export interface ListenRequest {
  /** 0 = any of the board's. */
  readonly address: number
  /** 0 = the card chooses. */
  readonly port: number
  readonly backlog: number
  /** FIRST_SPEAKER_*. */
  readonly firstSpeaker: number
  /** 0 = the board's setting. */
  readonly placeAfterMs: number
  /** SOCKET_OPTION_* for accepted connections. */
  readonly options: number
}

/** What a listener needs of the driver. */
export interface ListenerHost {
  unlisten(listener: TcpListener): void
  /** False once it is closed. */
  isListening(listener: TcpListener): boolean
  setListenerOptions(listener: TcpListener, options: number): void
}

/** A listening socket on the card. */
export class TcpListener {
  readonly owner: ListenerOwner
  readonly cookie: number
  readonly #host: ListenerHost

  /** Driver only. */
  constructor(owner: ListenerOwner, cookie: number, host: ListenerHost) {
    this.owner = owner
    this.cookie = cookie
    this.#host = host
  }

  get closed(): boolean {
    return !this.#host.isListening(this)
  }

  /** SOCKET_OPTION_* from now on. */
  setOptions(options: number): void {
    this.#host.setListenerOptions(this, options)
  }

  /** Stops listening; its unattached endpoints are reset. Connections that were accepted stay. */
  close(): void {
    this.#host.unlisten(this)
  }
}
