import type { TcpConnection } from './connection.ts'

/** What a listener tells its server. */
export interface ListenerOwner {
  /** Answer to `listen`: STATUS_*, and the port that it listens on. */
  onListening(status: number, port: number): void
  /** A new connection. It is open, and has no owner: the server must give it one at once, or `close` it. */
  onConnection(connection: TcpConnection): void
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

/** A listening socket on the card. */
export class TcpListener {
  readonly owner: ListenerOwner
  readonly cookie: number
  readonly #unlisten: (listener: TcpListener) => void

  /** Driver only. */
  constructor(owner: ListenerOwner, cookie: number, unlisten: (listener: TcpListener) => void) {
    this.owner = owner
    this.cookie = cookie
    this.#unlisten = unlisten
  }

  /** Stops listening; its unattached endpoints are reset. Connections that were accepted stay. */
  close(): void {
    this.#unlisten(this)
  }
}
