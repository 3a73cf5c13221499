/** The REPL of a farm in another process, as the terminal sees it. */
import { EventEmitter } from 'node:events'
import type { Duplex } from 'node:stream'
import { LineReader } from './line-reader.ts'
import type { Outcome } from './repl.ts'
import type { ReplAnswer } from './serve.ts'
import type { CommandLineEvents, TerminalCommandLine } from './terminal.ts'

/** Longest answer, bytes: a farm is not asked for more at once than a person reads. */
const MAXIMUM_ANSWER_BYTES = 64 * 1024 * 1024

export class RemoteRepl extends EventEmitter<CommandLineEvents> implements TerminalCommandLine {
  prompt = ''
  readonly #stream: Duplex
  readonly #waiting = new Map<number, (answer: ReplAnswer | undefined) => void>()
  #lastId = 0
  #gone = false
  #onGreeting: (text: string) => void = () => {}

  constructor(stream: Duplex) {
    super()
    this.#stream = stream
    const lines = new LineReader(MAXIMUM_ANSWER_BYTES, (line) => this.#receive(JSON.parse(line) as ReplAnswer))
    stream.on('data', (chunk: Buffer) => {
      if (!lines.push(chunk)) stream.destroy()
    })
    for (const event of ['end', 'close', 'error'] as const) stream.once(event, () => this.#end())
  }

  /** What the farm says first; resolves with nothing if it ends before. */
  greeting(): Promise<string> {
    return new Promise((resolve) => {
      this.#onGreeting = resolve
      if (this.#gone) resolve('')
    })
  }

  async execute(line: string): Promise<Outcome> {
    const answer = await this.#ask({ execute: line })
    if (answer === undefined || !('text' in answer)) return { text: '', ok: false, ended: 'quit' }
    this.prompt = answer.prompt
    return answer
  }

  async complete(line: string): Promise<readonly string[]> {
    const answer = await this.#ask({ complete: line })
    return answer !== undefined && 'items' in answer ? answer.items : []
  }

  interrupt(): void {
    this.#send({ interrupt: true })
  }

  close(): void {
    this.#stream.end()
  }

  #ask(request: object): Promise<ReplAnswer | undefined> {
    if (this.#gone) return Promise.resolve(undefined)
    const id = ++this.#lastId
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve)
      this.#send({ id, ...request })
    })
  }

  #send(request: object): void {
    if (this.#stream.writable) this.#stream.write(`${JSON.stringify(request)}\n`)
  }

  #receive(answer: ReplAnswer): void {
    if ('greeting' in answer) {
      this.prompt = answer.prompt
      this.#onGreeting(answer.greeting)
    } else if ('output' in answer) this.emit('output', answer.output)
    else if ('terminated' in answer) this.emit('terminated')
    else {
      this.#waiting.get(answer.id)?.(answer)
      this.#waiting.delete(answer.id)
    }
  }

  #end(): void {
    if (this.#gone) return
    this.#gone = true
    this.#onGreeting('')
    this.emit('terminated')
    for (const resolve of this.#waiting.values()) resolve(undefined)
    this.#waiting.clear()
  }
}
