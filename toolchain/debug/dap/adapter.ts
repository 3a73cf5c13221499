/**
 * The Debug Adapter Protocol over one debug session: requests in, answers and events out. It touches the engine by SessionApi only.
 *
 *   initialize ─▶ launch | attach ─▶ «initialized» ─▶ breakpoints … ─▶ configurationDone ─▶ debugging ─▶ disconnect
 */
import { DebugSession, Response } from '@vscode/debugadapter'
import type { DebugProtocol } from '@vscode/debugprotocol'
import { CommandError, errorMessage } from '../../errors.ts'
import { BreakpointBook } from '../front/breakpoint-book.ts'
import { SourceFiles } from '../front/source-files.ts'
import type { DebugTarget } from '../front/target.ts'
import { Repl } from '../repl/repl.ts'
import { DebugError, type SessionApi } from '../session/api.ts'
import { Arguments, RequestError } from './arguments.ts'
import { DapBreakpoints } from './breakpoints.ts'
import { CAPABILITIES } from './capabilities.ts'
import type { DapContext, Handlers } from './context.ts'
import { dataHandlers } from './data.ts'
import { DapEvents, outputEvent, Progress } from './events.ts'
import { type CommandLine, lookingHandlers } from './looking.ts'
import { References } from './references.ts'
import { RUNNING_REQUESTS, runningHandlers } from './running.ts'
import { sourceHandlers } from './sources.ts'

/** Finds the farm that a client wants to debug. */
export interface DapHost {
  /** Starts a farm. @throws RequestError, CommandError, or the signal's reason */
  launch(args: Arguments, onProgress: (text: string) => void, signal: AbortSignal): Promise<DebugTarget>
  /** A farm that runs. @throws RequestError, CommandError */
  attach(args: Arguments): Promise<DebugTarget>
}

/** Errors of requests have one number: their text says what is wrong. */
const ERROR_ID = 1

export class DapAdapter extends DebugSession implements DapContext {
  readonly references = new References()
  readonly sourceNumbers: string[] = []
  readonly counting = {
    lineToClient: (line: number) => this.convertDebuggerLineToClient(line),
    columnToClient: (column: number) => this.convertDebuggerColumnToClient(column),
    lineFromClient: (line: number) => this.convertClientLineToDebugger(line),
    columnFromClient: (column: number) => this.convertClientColumnToDebugger(column),
  }
  readonly #host: DapHost
  readonly #onEnd: () => void
  readonly #breakpoints = new DapBreakpoints(this)
  readonly #events = new DapEvents(this, this.#breakpoints)
  readonly #handlers: ReadonlyMap<string, Handlers[string]>
  #target: DebugTarget | undefined
  #book: BreakpointBook | undefined
  #files: SourceFiles | undefined
  #repl: Repl | undefined
  /** How the farm was launched, to do it again. */
  #launchArgs: Arguments | undefined
  #clientShowsProgress = false
  #stopOnEntry = false
  #noDebug = false
  /** A launch that is under way, and the request that it is. */
  #starting: { readonly requestId: number; readonly progressId: string; readonly abort: AbortController } | undefined
  /** Events that wait for the answer to the request that caused them. */
  #held: DebugProtocol.Event[] | undefined
  #closed = false

  /** @param onEnd is called when the client has said goodbye */
  constructor(host: DapHost, onEnd: () => void) {
    super()
    this.#host = host
    this.#onEnd = onEnd
    this.setDebuggerLinesStartAt1(true)
    this.setDebuggerColumnsStartAt1(true)
    this.#handlers = new Map(
      Object.entries({
        ...this.#lifeCycle(),
        ...this.#breakpoints.handlers,
        ...runningHandlers(this),
        ...lookingHandlers(this, () => this.#commandLine()),
        ...dataHandlers(this),
        ...sourceHandlers(this),
      }),
    )
  }

  get target(): DebugTarget {
    if (this.#target === undefined) throw new RequestError('there is no farm yet: launch or attach comes first')
    return this.#target
  }

  get session(): SessionApi {
    return this.target.session
  }

  get book(): BreakpointBook {
    if (this.#book === undefined) throw new RequestError('there is no farm yet: launch or attach comes first')
    return this.#book
  }

  get files(): SourceFiles {
    this.#files ??= new SourceFiles(() => this.session.sources)
    return this.#files
  }

  get noDebug(): boolean {
    return this.#noDebug
  }

  /** A farm is there, or on its way. */
  get hasFarm(): boolean {
    return this.#target !== undefined || this.#starting !== undefined
  }

  send(event: DebugProtocol.Event): void {
    if (this.#closed) return
    if (this.#held !== undefined) this.#held.push(event)
    else this.sendEvent(event)
  }

  /** Bytes that are no message. */
  nonsense(reason: string): void {
    this.send(outputEvent('stderr', `${reason}\n`))
  }

  /** A message from the client, whatever it is. */
  receive(message: unknown): void {
    if (isRequest(message)) this.handleMessage(message)
    else this.nonsense('a message is no request: it needs type, seq and command')
  }

  /** Answers a request that somebody else looked at. */
  refuse(request: DebugProtocol.Request, error: unknown): void {
    const response: DebugProtocol.Response = new Response(request)
    describeFailure(response, error)
    if (!this.#closed) this.sendResponse(response)
  }

  /** The connection is gone: the session ends, and with it a farm that was launched. */
  async close(): Promise<void> {
    this.#closed = true
    this.#starting?.abort.abort(new RequestError('the client is gone'))
    await this.#letGo()
  }

  protected override dispatchRequest(request: DebugProtocol.Request): void {
    if (request.command === 'initialize') this.#initialize(request)
    else this.#dispatch(request).catch((error: unknown) => this.nonsense(errorMessage(error)))
  }

  protected override initializeRequest(response: DebugProtocol.InitializeResponse): void {
    response.body = CAPABILITIES
    this.sendResponse(response)
  }

  #initialize(request: DebugProtocol.Request): void {
    try {
      const args = new Arguments('initialize', request.arguments)
      this.#clientShowsProgress = args.flag('supportsProgressReporting')
      const pathFormat = args.textOr('pathFormat', 'path')
      super.dispatchRequest({ ...request, arguments: { ...request.arguments, pathFormat } })
    } catch (error) {
      this.refuse(request, error)
    }
  }

  async #dispatch(request: DebugProtocol.Request): Promise<void> {
    const response: DebugProtocol.Response = new Response(request)
    // A client hears that it runs before it hears that it stopped.
    const holds = RUNNING_REQUESTS.has(request.command) && this.#held === undefined
    if (holds) this.#held = []
    try {
      const handler = this.#handlers.get(request.command)
      if (handler === undefined) throw new RequestError(`there is no request '${request.command}'`)
      response.body = await handler(new Arguments(request.command, request.arguments), request.seq)
    } catch (error) {
      describeFailure(response, error)
    }
    if (!this.#closed) this.sendResponse(response)
    if (holds) this.#release()
    if (response.success && !this.#closed) this.#afterwards(request.command)
  }

  #release(): void {
    const held = this.#held ?? []
    this.#held = undefined
    for (const event of held) this.send(event)
  }

  // ── life cycle ──

  #lifeCycle(): Handlers {
    return {
      launch: (args, requestId) => this.#launch(args, requestId),
      attach: (args, requestId) => this.#attach(args, requestId),
      configurationDone: () => this.#configurationDone(),
      restart: (args, requestId) => this.#restart(args, requestId),
      terminate: () => this.#terminate(),
      disconnect: () => this.#disconnect(),
      cancel: (args) => this.#cancel(args),
    }
  }

  /** What follows an answer. The farm may be gone by now: `disconnect` waits for nobody. */
  #afterwards(command: string): void {
    if (command === 'disconnect') this.#onEnd()
    else if (this.#target === undefined) return
    else if (command === 'launch' || command === 'attach') this.#events.announce(this.#target)
    else if (command === 'configurationDone' || command === 'restart') this.#begin()
  }

  async #launch(args: Arguments, requestId: number): Promise<object> {
    this.#stopOnEntry = args.flag('stopOnEntry')
    this.#noDebug = args.flag('noDebug')
    this.#launchArgs = args
    await this.#start(requestId, 'Starting the farm', (onProgress, signal) =>
      this.#host.launch(args, onProgress, signal),
    )
    return {}
  }

  async #attach(args: Arguments, requestId: number): Promise<object> {
    this.#stopOnEntry = args.flag('stopOnEntry')
    await this.#start(requestId, 'Attaching to the farm', () => this.#host.attach(args))
    return {}
  }

  async #start(
    requestId: number,
    title: string,
    open: (onProgress: (text: string) => void, signal: AbortSignal) => Promise<DebugTarget>,
  ): Promise<void> {
    if (this.#target !== undefined || this.#starting !== undefined)
      throw new RequestError('there is a farm already: disconnect comes first')
    const abort = new AbortController()
    const progress = new Progress(this, title, requestId, this.#clientShowsProgress)
    this.#starting = { requestId, progressId: progress.id, abort }
    try {
      const target = await open((text) => progress.update(text), abort.signal)
      if (abort.signal.aborted) {
        await target.end()
        throw abort.signal.reason
      }
      this.#take(target)
    } finally {
      this.#starting = undefined
      progress.end()
    }
  }

  #take(target: DebugTarget): void {
    this.#target = target
    this.references.reset()
    if (this.#book === undefined) this.#book = new BreakpointBook(target.session)
    else this.#book.moveTo(target.session)
    if (this.#noDebug) for (const entry of this.#book.entries) this.#book.remove(entry)
    this.#files = undefined
    this.#repl?.close()
    this.#repl = undefined
    this.#events.listen(target.session)
  }

  #configurationDone(): object {
    void this.target
    return {}
  }

  /** The client has said everything: the farm runs, or shows where it begins. */
  #begin(): void {
    this.#events.begin()
    const { session } = this
    if (session.state === 'running') return
    if (this.#stopOnEntry) this.#events.showEntry()
    else session.continue().catch((error: unknown) => this.#events.failed(error))
  }

  async #restart(args: Arguments, requestId: number): Promise<object> {
    if (!this.target.launched || this.#launchArgs === undefined)
      throw new RequestError('a farm that ran before is not started again from here: end it where it runs')
    const again = args.has('arguments') ? args.object('arguments') : this.#launchArgs
    await this.#letGo()
    await this.#launch(again, requestId)
    return {}
  }

  async #terminate(): Promise<object> {
    await this.#letGo()
    this.#events.terminated()
    return {}
  }

  async #disconnect(): Promise<object> {
    this.#starting?.abort.abort(new RequestError('the client has disconnected'))
    await this.#letGo()
    return {}
  }

  /** Ends the session; a farm that was launched ends with it. */
  async #letGo(): Promise<void> {
    const target = this.#target
    this.#events.silence()
    this.#repl?.close()
    this.#repl = undefined
    this.#target = undefined
    await target?.end()
  }

  #cancel(args: Arguments): object {
    const requestId = args.integerOr('requestId', undefined)
    const progressId = args.textOr('progressId', undefined)
    const starting = this.#starting
    if (starting !== undefined && (starting.requestId === requestId || starting.progressId === progressId))
      starting.abort.abort(new RequestError('cancelled'))
    return {}
  }

  // ── commands of the REPL ──

  #commandLine(): CommandLine {
    this.#repl ??= new Repl(this.session, { colour: false, book: this.book, echoesOutput: false })
    const repl = this.#repl
    return {
      run: async (line) => {
        const { text, ok, ended } = await repl.execute(line)
        if (ended !== undefined) throw new RequestError('disconnect ends the session')
        if (!ok) throw new RequestError(text.trimEnd())
        return text.trimEnd()
      },
      complete: (line) => repl.complete(line),
    }
  }
}

function describeFailure(response: DebugProtocol.Response, error: unknown): void {
  response.success = false
  const known = error instanceof RequestError || error instanceof DebugError || error instanceof CommandError
  const hint = error instanceof CommandError && error.hint !== undefined ? `\n${error.hint}` : ''
  const text = known ? `${error.message}${hint}` : `a defect of inic itself: ${errorMessage(error)}`
  response.message = text
  response.body = { error: { id: ERROR_ID, format: text.replace(/[{}]/g, ''), showUser: known } }
}

function isRequest(message: unknown): message is DebugProtocol.Request {
  if (typeof message !== 'object' || message === null) return false
  const { type, seq, command } = message as Partial<DebugProtocol.Request>
  return type === 'request' && Number.isSafeInteger(seq) && typeof command === 'string' && command.length <= 100
}
