/**
 * The gdb-remote protocol over a debug session, with LLDB's extensions for WebAssembly. One connection, one session.
 *
 * To LLDB the farm is one process, and the INIC that stopped last is its thread. LLDB asks for memory and for locals without saying of
 * which thread, and keeps what it was told until the process runs again; were each INIC a thread, it would show one's memory as another's.
 *
 *            c, s, vCont, bc, bs              stop: T packet
 *   halted ──────────────────────▶ running ──────────────────▶ halted
 *      └── D, k, or the connection ends: the session detaches, the farm runs on
 */
import { EventEmitter, once } from 'node:events'
import type { Duplex } from 'node:stream'
import { errorMessage } from '../../errors.ts'
import { DebugError, type SessionApi, type Stop } from '../session/api.ts'
import { Breakpoints } from './breakpoints.ts'
import { COMMANDS } from './commands.ts'
import { Inferior } from './inferior.ts'
import { encodeHex, encodePacket, hexByte, type Incoming, PacketReader } from './packet.ts'
import { ERROR, PacketError } from './packet-error.ts'
import { encodeStop } from './stop-reply.ts'

/** Text of log points and consoles that is kept for the next time the farm runs, characters. */
const MAXIMUM_PENDING_OUTPUT = 0x10000
/** Bytes of one O packet's text. */
const OUTPUT_CHUNK = 0x1000

export interface GdbOptions {
  /** Folders of firmware projects, in whose builds modules with DWARF are looked for. */
  readonly projects: readonly string[]
  /** Runs a line of `process plugin packet monitor` that is none of the server's own, and gives what it prints. */
  readonly monitor?: (line: string) => Promise<string>
}

export interface GdbEvents {
  /** The connection is over, and the farm runs on. */
  end: [reason: string]
}

/** What a command is answered with: a packet, or none by now. */
export type Answer = string | Buffer | undefined

export class GdbServer extends EventEmitter<GdbEvents> {
  readonly session: SessionApi
  readonly options: GdbOptions
  readonly inferior: Inferior
  readonly breakpoints: Breakpoints
  /** Errors carry a text. */
  errorStrings = false
  readonly #stream: Duplex
  readonly #reader = new PacketReader()
  readonly #closing = new AbortController()
  #acknowledges = true
  #last: Buffer | undefined
  #running = false
  #shown: number | undefined
  #output = ''
  #leaving = false
  #ended = false

  constructor(session: SessionApi, stream: Duplex, options: GdbOptions) {
    super()
    this.session = session
    this.options = options
    this.inferior = new Inferior(session, options.projects)
    this.breakpoints = new Breakpoints(session, this.inferior)
    this.#stream = stream
    session.on('output', this.#onOutput)
    session.on('terminated', this.#onTerminated)
    stream.once('close', () => this.#end('the debugger has gone'))
    stream.once('error', (error) => this.#end(errorMessage(error)))
    this.#serve().catch((error) => this.#end(errorMessage(error)))
  }

  /** Ends the connection; the farm runs on. */
  close(): void {
    this.#end('closed')
  }

  // ── for commands ──

  /** No acknowledgements from the next packet on. */
  stopAcknowledging(): void {
    this.#acknowledges = false
  }

  /** Where the INIC stands, as a packet. */
  stopReply(): string {
    const { id } = this.inferior.thread
    const { stop, position } = this.session
    // Another INIC than the one that stopped halts for no reason of its own.
    const own = stop?.thread === id ? stop : null
    return this.#encodeStop(own ?? { reason: 'pause', thread: id, breakpoints: [], text: 'halted', position })
  }

  /** The next resume shows where the farm is, or that INIC, instead of letting it run: LLDB asks for a place only at a stop. */
  showNext(thread = this.inferior.thread.id): void {
    this.#shown = thread
  }

  /** Lets the farm run; the answer is where it stops. */
  resume(run: () => Promise<Stop>): void {
    if (this.#shown !== undefined) {
      this.inferior.select(this.#shown)
      this.#shown = undefined
      this.#send(this.stopReply())
      return
    }
    this.#running = true
    this.#flushOutput()
    run().then(
      (stop) => {
        this.#running = false
        this.inferior.stoppedAt(stop)
        this.#send(this.#encodeStop(stop))
      },
      (error: unknown) => {
        this.#running = false
        if (!this.#ended) this.#send(this.#encodeError(error))
      },
    )
  }

  /** Lets go after the answer was sent. */
  detach(): void {
    this.#leaving = true
  }

  // ── the stream ──

  async #serve(): Promise<void> {
    if (this.session.state === 'running') this.inferior.stoppedAt(await this.session.pause())
    else if (this.session.stop !== null) this.inferior.stoppedAt(this.session.stop)
    for await (const chunk of this.#stream) {
      for (const incoming of this.#reader.feed(chunk)) {
        if (this.#ended) return
        await this.#handle(incoming)
        // Whoever asks without listening is not heard until it listens.
        if (this.#stream.writableNeedDrain) await once(this.#stream, 'drain', { signal: this.#closing.signal })
      }
    }
    this.#end('the debugger has gone')
  }

  async #handle(incoming: Incoming): Promise<void> {
    switch (incoming.kind) {
      case 'packet':
        if (this.#acknowledges) this.#stream.write('+')
        this.#send(await this.#answer(incoming.data))
        if (this.#leaving) this.#end('detached')
        break
      case 'nack':
        if (this.#acknowledges && this.#last !== undefined) this.#stream.write(this.#last)
        break
      case 'interrupt':
        if (this.#running) this.session.pause().catch(() => {}) // it stopped by itself meanwhile
        break
      case 'malformed':
        if (this.#acknowledges) this.#stream.write('-')
        else this.#send(this.#encodeError(new PacketError(ERROR.malformed, incoming.message)))
    }
  }

  async #answer(data: Buffer): Promise<Answer> {
    const text = data.toString('latin1')
    const command = COMMANDS.find(({ name, exact }) => (exact ? text === name : text.startsWith(name)))
    // An empty answer: the protocol's own word for what is not known.
    if (command === undefined) return ''
    try {
      if (this.#running && !command.whileRunning) throw new PacketError(ERROR.running, 'the farm is running')
      return await command.run(this, text.slice(command.name.length), data.subarray(command.name.length))
    } catch (error) {
      return this.#encodeError(error)
    }
  }

  #send(answer: Answer): void {
    if (answer === undefined || this.#stream.destroyed) return
    this.#last = encodePacket(answer)
    this.#stream.write(this.#last)
  }

  #encodeStop(stop: Stop): string {
    const { thread } = this.inferior
    const own = this.breakpoints.hit(stop)
    const pc = own?.address ?? this.inferior.pc()
    const watchpoint = this.breakpoints.watched(stop)
    const ownBreakpoint = own !== undefined || this.breakpoints.isAt(pc)
    return encodeStop(stop, { thread, pc, ownBreakpoint, watchpoint })
  }

  #encodeError(error: unknown): string {
    const number = error instanceof PacketError ? error.number : ERROR.failed
    const known = error instanceof PacketError || error instanceof DebugError
    const text = known ? error.message : `a defect of inic itself: ${errorMessage(error)}`
    return `E${hexByte(number)}${this.errorStrings ? `;${encodeHex(text)}` : ''}`
  }

  // ── output ──

  readonly #onOutput = (_category: string, source: string, text: string): void => {
    this.print(`${source === '' ? '' : `${source} | `}${text}\n`)
  }

  /** Text for the person in front of LLDB. LLDB takes it while the farm runs; until then the end of it is kept, and while nobody reads. */
  print(text: string): void {
    this.#output = (this.#output + text).slice(-MAXIMUM_PENDING_OUTPUT)
    if (this.#running && this.#stream.writableLength < MAXIMUM_PENDING_OUTPUT) this.#flushOutput()
  }

  /** Text that belongs to the answer of a monitor command. */
  printNow(text: string): void {
    const bytes = Buffer.from(text)
    for (let at = 0; at < bytes.length; at += OUTPUT_CHUNK) {
      this.#stream.write(encodePacket(`O${encodeHex(bytes.subarray(at, at + OUTPUT_CHUNK))}`))
    }
  }

  #flushOutput(): void {
    const text = this.#output
    this.#output = ''
    this.printNow(text)
  }

  // ── the end ──

  readonly #onTerminated = (): void => {
    if (this.#running) this.#send('W00')
    this.#end('the farm has ended')
  }

  #end(reason: string): void {
    if (this.#ended) return
    this.#ended = true
    this.session.off('output', this.#onOutput)
    this.session.off('terminated', this.#onTerminated)
    this.#closing.abort()
    this.#stream.end()
    this.session.detach().then(
      () => this.emit('end', reason),
      (error: unknown) => this.emit('end', `${reason}; ${errorMessage(error)}`),
    )
  }
}
