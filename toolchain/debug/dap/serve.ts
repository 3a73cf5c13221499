/** Carries the protocol over a pair of streams: standard input and output, a TCP connection, the control socket of a farm. */
import type { Duplex, Readable, Writable } from 'node:stream'
import type { DebugProtocol } from '@vscode/debugprotocol'
import { DapAdapter, type DapHost } from './adapter.ts'
import { Arguments } from './arguments.ts'
import { encodeMessage, MessageReader } from './wire.ts'

/** What a client may leave unread before output events are dropped, bytes. */
const MAXIMUM_BACKLOG_BYTES = 16 * 1024 * 1024

/** Connects to the adapter in the process of a farm that runs. @throws RequestError, CommandError */
export type ConnectToFarm = (args: Arguments) => Promise<Duplex>

export interface DapServer {
  /** Resolves when the session is over, and its farm let go of. */
  readonly done: Promise<void>
  end(): void
}

/**
 * Serves one client until either side ends.
 *
 * @param connect given where `attach` means a farm in another process: from then on that one's adapter answers
 */
export function serveDap(input: Readable, output: Writable, host: DapHost, connect?: ConnectToFarm): DapServer {
  let over = false
  let finish = () => {}
  const done = new Promise<void>((resolve) => {
    finish = resolve
  })
  const end = () => {
    if (over) return
    over = true
    input.off('data', onData)
    relay?.end()
    void adapter
      .close()
      .catch(() => {}) // there is nobody left to tell
      .finally(() => {
        output.end()
        finish()
      })
  }
  let lastSeq = 0
  const write = (message: DebugProtocol.ProtocolMessage) => {
    if (!output.writable) return
    lastSeq = message.seq
    const droppable = 'event' in message && message.event === 'output'
    if (droppable && output.writableLength > MAXIMUM_BACKLOG_BYTES) return
    output.write(encodeMessage(message))
    // Whoever does not read the answers is not asked for more.
    if (output.writableNeedDrain && !input.isPaused()) {
      input.pause()
      output.once('drain', () => input.resume())
    }
  }
  const adapter = new DapAdapter(host, end)
  adapter.onDidSendMessage((message) => write(message as DebugProtocol.ProtocolMessage))

  let initialize: DebugProtocol.Request | undefined
  let relay: Relay | undefined
  /** Messages that came while the farm was being connected to. */
  let waiting: unknown[] | undefined
  const receive = (message: unknown) => {
    if (relay !== undefined) relay.send(message)
    else if (waiting !== undefined) waiting.push(message)
    else if (connect !== undefined && isRequest(message, 'attach') && !adapter.hasFarm) void attach(message)
    else {
      if (isRequest(message, 'initialize')) initialize = message
      adapter.receive(message)
    }
  }
  const attach = async (request: DebugProtocol.Request) => {
    waiting = []
    try {
      const remote = await connect!(new Arguments('attach', request.arguments))
      if (over) return void remote.destroy()
      relay = new Relay(remote, (message) => write({ ...message, seq: lastSeq + 1 }), end)
      if (initialize !== undefined) relay.hide(initialize)
      relay.send(request)
    } catch (error) {
      adapter.refuse(request, error)
    }
    const held = waiting
    waiting = undefined
    for (const message of held) receive(message)
  }
  const reader = new MessageReader({ message: receive, nonsense: (reason) => adapter.nonsense(reason) })
  const onData = (chunk: Buffer) => reader.push(chunk)
  input.on('data', onData)
  for (const event of ['end', 'close', 'error'] as const) input.once(event, end)
  for (const event of ['close', 'error'] as const) output.once(event, end)
  return { done, end }
}

/** Messages to and from the adapter of a farm in another process. */
class Relay {
  readonly #remote: Duplex
  /** A request whose answer the client has already. */
  #hidden: number | undefined

  constructor(remote: Duplex, onMessage: (message: DebugProtocol.ProtocolMessage) => void, onEnd: () => void) {
    this.#remote = remote
    const reader = new MessageReader({
      message: (message) => {
        if (!this.#isHidden(message)) onMessage(message as DebugProtocol.ProtocolMessage)
      },
      nonsense: onEnd, // no adapter of ours
    })
    remote.on('data', (chunk: Buffer) => reader.push(chunk))
    for (const event of ['end', 'close', 'error'] as const) remote.once(event, onEnd)
  }

  hide(request: DebugProtocol.Request): void {
    this.#hidden = request.seq
    this.send(request)
  }

  send(message: unknown): void {
    if (this.#remote.writable && typeof message === 'object' && message !== null)
      this.#remote.write(encodeMessage(message))
  }

  end(): void {
    this.#remote.end()
  }

  #isHidden(message: unknown): boolean {
    const { type, command, request_seq } = message as Partial<DebugProtocol.Response>
    return type === 'response' && command === 'initialize' && request_seq === this.#hidden
  }
}

function isRequest(message: unknown, command: string): message is DebugProtocol.Request {
  if (typeof message !== 'object' || message === null) return false
  const request = message as Partial<DebugProtocol.Request>
  return request.type === 'request' && request.command === command && Number.isSafeInteger(request.seq)
}
