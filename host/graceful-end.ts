import diagnostics from 'node:diagnostics_channel'
import type http from 'node:http'
import type http2 from 'node:http2'
import https from 'node:https'
import type net from 'node:net'

/**
 * How connections end that a server which is drained cannot move: HTTP over TLS, and HTTP/2. Nobody's request fails by it: each gets the
 * response that it waits for, and is told that it was the last one here.
 */
export interface GracefulEnd {
  /** Ends connections from now on, those that come meanwhile included. */
  begin(): void
  stop(): void
}

// What Node's HTTP publishes (node:diagnostics_channel).
const requestStarted = 'http.server.request.start'
const responseFinished = 'http.server.response.finish'

/** Sessions of servers that speak HTTP/2. */
const sessions = new WeakMap<net.Server, Set<http2.ServerHttp2Session>>()

/** `server` listens: Node tells of HTTP/2 sessions only when they begin. */
export function followSessions(server: net.Server): void {
  if (!isHttp2(server) || sessions.has(server)) return
  const open = new Set<http2.ServerHttp2Session>()
  sessions.set(server, open)
  server.on('session', (session: http2.ServerHttp2Session) => {
    open.add(session)
    session.once('close', () => open.delete(session))
  })
}

/** How connections of `server` end, or null for one whose protocol nobody knows here. */
export function gracefulEndOf(server: net.Server): GracefulEnd | null {
  if (isHttp2(server)) return new Http2End(server)
  return server instanceof https.Server ? new HttpsEnd(server) : null
}

/** The classes of Node's HTTP/2 servers have no names. */
function isHttp2(server: net.Server): server is http2.Http2Server {
  return 'updateSettings' in server
}

interface HttpMessage {
  readonly server: net.Server
  readonly response: http.ServerResponse
}

/** As `close` does it, but that the server goes on listening: who is idle goes, who is not goes with its response. */
class HttpsEnd implements GracefulEnd {
  readonly #server: https.Server
  readonly #onStart = (message: unknown) => {
    const { server, response } = message as HttpMessage
    // "Connection: close": the client sends nothing more on it (RFC 9112 §9.6).
    if (server === this.#server) response.shouldKeepAlive = false
  }
  readonly #onFinish = (message: unknown) => {
    // Of a response whose head had gone before; once Node has put it away.
    if ((message as HttpMessage).server === this.#server) process.nextTick(() => this.#server.closeIdleConnections())
  }

  constructor(server: https.Server) {
    this.#server = server
  }

  begin(): void {
    diagnostics.subscribe(requestStarted, this.#onStart)
    diagnostics.subscribe(responseFinished, this.#onFinish)
    this.#server.closeIdleConnections()
  }

  stop(): void {
    diagnostics.unsubscribe(requestStarted, this.#onStart)
    diagnostics.unsubscribe(responseFinished, this.#onFinish)
  }
}

/** GOAWAY (RFC 9113 §6.8): streams that are open come to their end, new ones are opened elsewhere. */
class Http2End implements GracefulEnd {
  readonly #server: net.Server
  /** One that has just come may have been sent here for want of another server: it gets its first response. */
  readonly #onSession = (session: http2.ServerHttp2Session) => {
    session.once('stream', (stream) => stream.once('close', () => session.close()))
  }

  constructor(server: net.Server) {
    this.#server = server
  }

  begin(): void {
    this.#server.on('session', this.#onSession)
    for (const session of sessions.get(this.#server) ?? []) session.close()
  }

  stop(): void {
    this.#server.off('session', this.#onSession)
  }
}
