/** The control socket of a running farm: for its owner alone (mode 0600). */
import { chmodSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { CommandError, EXIT_FAILED, EXIT_FARM_STATE, EXIT_USAGE, errorCode, errorMessage } from '../errors.ts'
import type { FarmState } from '../state.ts'
import { type ControlAnswer, type ControlRequest, MAXIMUM_LINE_BYTES } from './protocol.ts'

const MAXIMUM_CONNECTIONS = 32
/** How long connections that were handed over may take to end. */
const CLOSE_GRACE_MS = 300

/**
 * An answer after which the connection is no longer the protocol's: `take` gets it once the answer is on its way, and gives a
 * function that ends it in order when the server closes.
 */
export class Handover {
  readonly result: unknown
  readonly take: (socket: Socket) => () => void

  constructor(result: unknown, take: (socket: Socket) => () => void) {
    this.result = result
    this.take = take
  }
}

/** Carries out one method. What it throws is the answer: CommandErrors with their hint, others with their message. */
export type ControlHandler = (params: Readonly<Record<string, unknown>>) => unknown

export class ControlServer {
  readonly #server: Server
  readonly #path: string
  readonly #handlers: ReadonlyMap<string, ControlHandler>
  /** Connections, and how those that were handed over are ended. */
  readonly #open = new Map<Socket, (() => void) | undefined>()

  private constructor(path: string, handlers: ReadonlyMap<string, ControlHandler>) {
    this.#path = path
    this.#handlers = handlers
    this.#server = createServer((socket) => this.#serve(socket))
    this.#server.maxConnections = MAXIMUM_CONNECTIONS
  }

  /** Listens at the state's socket. @throws CommandError (exit code 3) if a farm with this state runs already. */
  static async open(state: FarmState, handlers: ReadonlyMap<string, ControlHandler>): Promise<ControlServer> {
    state.make()
    const server = new ControlServer(state.socketPath, handlers)
    try {
      await server.#listen()
    } catch (error) {
      if (errorCode(error) !== 'EADDRINUSE') throw error
      if (await state.isRunning()) {
        throw new CommandError(`this farm is running already, with its state in ${state.directory}`, {
          exitCode: EXIT_FARM_STATE,
          hint: 'stop it first, or give this one a state of its own: --state DIR',
        })
      }
      // What a farm left behind that was killed.
      rmSync(state.socketPath, { force: true })
      await server.#listen()
    }
    return server
  }

  /** Ends every connection and takes the socket away. */
  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.close(() => resolve())
      for (const [socket, end] of this.#open) {
        if (end === undefined) socket.destroy()
        else end()
      }
      setTimeout(() => {
        for (const socket of this.#open.keys()) socket.destroy()
      }, CLOSE_GRACE_MS).unref()
    })
  }

  #listen(): Promise<void> {
    // The socket must never be open to others, not even for the moment before a chmod.
    const mask = process.umask(0o177)
    return new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject)
      this.#server.listen(this.#path, () => {
        this.#server.off('error', reject)
        chmodSync(this.#path, 0o600)
        resolve()
      })
      process.umask(mask)
    })
  }

  #serve(socket: Socket): void {
    this.#open.set(socket, undefined)
    socket.once('close', () => this.#open.delete(socket))
    socket.on('error', () => socket.destroy())
    const onEnd = () => socket.end()
    socket.on('end', onEnd)
    let pending = ''
    let busy = Promise.resolve()
    const onData = (chunk: Buffer) => {
      pending += chunk.toString('utf8')
      const lines = pending.split('\n')
      pending = lines.pop() ?? ''
      if (pending.length > MAXIMUM_LINE_BYTES || lines.some((line) => line.length > MAXIMUM_LINE_BYTES)) {
        socket.destroy()
        return
      }
      for (const line of lines) {
        // One after the other, and no more is read meanwhile: a client cannot pile up work.
        busy = busy.then(async () => {
          if (socket.destroyed) return
          socket.pause()
          const handover = await this.#answer(socket, line)
          if (handover) {
            socket.off('data', onData).off('end', onEnd)
            this.#open.set(socket, handover.take(socket))
          }
          // Whoever does not read the answers gets no more of them.
          if (socket.writableNeedDrain) await drained(socket)
          socket.resume()
        })
      }
    }
    socket.on('data', onData)
  }

  async #answer(socket: Socket, line: string): Promise<Handover | undefined> {
    let id = 0
    try {
      const request = parseRequest(line)
      id = request.id
      const handler = this.#handlers.get(request.method)
      if (!handler) throw new CommandError(`there is no method '${request.method}'`, { exitCode: EXIT_USAGE })
      const result = await handler(request.params ?? {})
      send(socket, { id, result: result instanceof Handover ? result.result : result })
      return result instanceof Handover ? result : undefined
    } catch (error) {
      const { exitCode, hint } = error instanceof CommandError ? error : { exitCode: EXIT_FAILED, hint: undefined }
      send(socket, { id, error: { message: errorMessage(error), exitCode, ...(hint !== undefined && { hint }) } })
      return undefined
    }
  }
}

/** Settles when the socket takes more, or is gone. */
function drained(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    socket.once('drain', resolve).once('close', resolve)
  })
}

function send(socket: Socket, answer: ControlAnswer): void {
  if (!socket.destroyed) socket.write(`${JSON.stringify(answer)}\n`)
}

function parseRequest(line: string): ControlRequest {
  let request: unknown
  try {
    request = JSON.parse(line)
  } catch {
    request = undefined
  }
  if (!isRequest(request))
    throw new CommandError('no request: { "id": 1, "method": "...", "params": {} }', { exitCode: EXIT_USAGE })
  return request
}

function isRequest(value: unknown): value is ControlRequest {
  if (typeof value !== 'object' || value === null || !('id' in value) || !('method' in value)) return false
  const params = 'params' in value ? value.params : {}
  return (
    typeof value.id === 'number' && typeof value.method === 'string' && typeof params === 'object' && params !== null
  )
}
