/**
 * What the card adds to Node's sockets, for TypeScript: `/// <reference types="inic/host/migration" />`, and `socket.migrate`,
 * `server.drain` and the events around them are there on what `node:net` and `node:http` export. What they do: docs/applications.md.
 */
import 'node:net'

declare module 'net' {
  interface MigrateOptions {
    /**
     * The connection is between two requests: it reaches any server that listens on the port, as an ordinary 'connection'. There is
     * no state then.
     */
    asNew?: boolean
  }

  interface DrainOptions {
    /** Name or IPv4 address of the server that takes the connections; the card chooses if there is none. */
    to?: string
    /** Ends the drain, whatever is left then; without it, it goes on until nothing is. */
    timeoutMs?: number
  }

  interface DrainResult {
    /** Connections that other servers have taken over. */
    moved: number
    /** Connections that are left, because `timeoutMs` was over. */
    left: number
  }

  interface Socket {
    /**
     * Moves the connection, with all that was written to it and all that was not read from it, to `server`: a name or IPv4 address, or
     * the one that the card finds best. There `server.on('migrate')` gets it, with `state`.
     *
     * Resolves when it is there: the socket has been destroyed then, with 'close' and neither 'end' nor 'error'. If it cannot move the
     * promise rejects, as with ECONNREFUSED, and the connection goes on here. What is written meanwhile waits for the outcome.
     *
     * @param state undefined, bytes, or anything that JSON can carry; at most 65535 bytes
     */
    migrate(server?: string, state?: unknown, options?: MigrateOptions): Promise<void>
  }

  interface Server {
    /**
     * Moves this server's connections to other servers, and those that it accepts meanwhile. An http.Server's move by themselves, each as
     * soon as it is between two requests. Of the others, and of responses that are being sent, the application hears by 'drain'. Resolves
     * when no connection is left.
     */
    drain(options?: DrainOptions): Promise<DrainResult>

    /** 'migrate': a connection that `socket.migrate` has handed over on another server, and the state that came with it. */
    on(event: 'migrate', listener: (socket: Socket, state: unknown) => void): this
    /** 'drain': `drain` asks the application to hand `socket` over: `socket.migrate(to, state)`. */
    on(event: 'drain', listener: (socket: Socket, to: string | undefined) => void): this
    once(event: 'migrate', listener: (socket: Socket, state: unknown) => void): this
    once(event: 'drain', listener: (socket: Socket, to: string | undefined) => void): this
    addListener(event: 'migrate', listener: (socket: Socket, state: unknown) => void): this
    addListener(event: 'drain', listener: (socket: Socket, to: string | undefined) => void): this
    emit(event: 'migrate', socket: Socket, state: unknown): boolean
    emit(event: 'drain', socket: Socket, to: string | undefined): boolean
  }
}
