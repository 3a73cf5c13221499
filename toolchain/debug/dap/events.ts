/** What a client is told without asking. */
import {
  ContinuedEvent,
  Event,
  ExitedEvent,
  InitializedEvent,
  OutputEvent,
  ProgressEndEvent,
  ProgressStartEvent,
  ProgressUpdateEvent,
  StoppedEvent,
  TerminatedEvent,
  ThreadEvent,
} from '@vscode/debugadapter'
import type { DebugProtocol } from '@vscode/debugprotocol'
import { errorMessage } from '../../errors.ts'
import type { DebugTarget } from '../front/target.ts'
import type { Breakpoint, DebugEvents, DebugThread, SessionApi, Stop } from '../session/api.ts'
import type { DapBreakpoints } from './breakpoints.ts'
import type { DapContext } from './context.ts'
import { clientModule } from './sources.ts'

export function outputEvent(
  category: 'console' | 'stdout' | 'stderr' | 'important',
  text: string,
): DebugProtocol.Event {
  return new OutputEvent(text, category)
}

export class DapEvents {
  readonly #context: DapContext
  readonly #breakpoints: DapBreakpoints
  readonly #modules = new Set<number>()
  #session: SessionApi | undefined
  /** The client has sent configurationDone. */
  #begun = false

  constructor(context: DapContext, breakpoints: DapBreakpoints) {
    this.#context = context
    this.#breakpoints = breakpoints
  }

  listen(session: SessionApi): void {
    this.silence()
    this.#session = session
    this.#modules.clear()
    for (const [name, listener] of this.#listeners) session.on(name, listener as () => void)
  }

  silence(): void {
    for (const [name, listener] of this.#listeners) this.#session?.off(name, listener as () => void)
    this.#session = undefined
    this.#begun = false
  }

  /** The farm is there: what it consists of, and that breakpoints may be sent now. */
  announce({ farm, launched, session, published }: DebugTarget): void {
    this.#send(
      new Event('process', {
        name: farm,
        systemProcessId: process.pid,
        isLocalProcess: true,
        startMethod: launched ? 'launch' : 'attach',
      }),
    )
    for (const { id } of session.threads) this.#send(new ThreadEvent('started', id))
    this.#announceModules()
    for (const line of published) this.#send(outputEvent('console', `${line}\n`))
    this.#send(new InitializedEvent())
  }

  begin(): void {
    this.#begun = true
  }

  /** Tells that the farm stands where its session begins. */
  showEntry(): void {
    const stop = this.#session?.stop
    if (stop) this.#onStopped({ ...stop, reason: 'entry', text: 'halted at entry' })
  }

  /** The farm was told to run, and did not. */
  failed(error: unknown): void {
    if (this.#session === undefined) return // it was let go of
    this.#send(outputEvent('important', `${errorMessage(error)}\n`))
    if (this.#session.stop) this.#onStopped(this.#session.stop)
  }

  terminated(): void {
    this.#send(new ExitedEvent(0))
    this.#send(new TerminatedEvent())
  }

  readonly #onStopped = (stop: Stop): void => {
    this.#context.references.reset()
    if (!this.#begun) return
    const hits = stop.breakpoints.flatMap((id) => this.#context.book.byEngineId(id) ?? [])
    const event: DebugProtocol.StoppedEvent = new StoppedEvent(
      stopReason(stop, hits[0]?.spec.kind),
      stop.thread,
      stop.text,
    )
    event.body.description = stop.text
    event.body.allThreadsStopped = true
    event.body.hitBreakpointIds = hits.map(({ number }) => number)
    this.#send(event)
  }

  readonly #onContinued = (): void => {
    this.#context.references.reset()
    if (this.#begun) this.#send(new ContinuedEvent(this.#context.session.threads[0]?.id ?? 1, true))
  }

  readonly #onOutput = (...[category, source, text]: DebugEvents['output']): void => {
    const line = category === 'console' ? `${source} | ${text}\n` : `${text}\n`
    this.#send(outputEvent(category === 'console' ? 'stdout' : 'console', line))
  }

  readonly #onBreakpoint = (breakpoint: Breakpoint, change: 'changed' | 'removed'): void => {
    const entry = this.#context.book.update(breakpoint, change)
    if (entry !== undefined)
      this.#send(new Event('breakpoint', { reason: change, breakpoint: this.#breakpoints.describe(entry) }))
  }

  readonly #onThread = ({ id, state }: DebugThread): void => {
    this.#send(new ThreadEvent(state === 'off' ? 'exited' : 'started', id))
    this.#announceModules()
  }

  readonly #onTerminated = (): void => this.terminated()

  readonly #listeners: readonly (readonly [keyof DebugEvents, (...args: never[]) => void])[] = [
    ['stopped', this.#onStopped],
    ['continued', this.#onContinued],
    ['output', this.#onOutput],
    ['breakpoint', this.#onBreakpoint],
    ['thread', this.#onThread],
    ['terminated', this.#onTerminated],
  ]

  #announceModules(): void {
    for (const { id } of this.#session?.modules ?? []) {
      if (this.#modules.has(id)) continue
      this.#modules.add(id)
      this.#send(new Event('module', { reason: 'new', module: clientModule(this.#context, id) }))
    }
  }

  #send(event: DebugProtocol.Event): void {
    this.#context.send(event)
  }
}

function stopReason({ reason }: Stop, kind: string | undefined): string {
  switch (reason) {
    case 'breakpoint':
      return kind === 'function' || kind === 'instruction' ? `${kind} breakpoint` : 'breakpoint'
    case 'watchpoint':
      return 'data breakpoint'
    case 'frame':
    case 'state':
    case 'row':
    case 'console':
    case 'interrupt':
      // Set by a filter of exceptions; so an editor shows what `exceptionInfo` tells of them.
      return 'exception'
    case 'history':
    case 'live':
      return 'pause'
    default:
      return reason
  }
}

/** Work that takes a while, shown by clients that can. */
export class Progress {
  static #last = 0
  readonly id = `inic-${++Progress.#last}`
  readonly #send: (event: DebugProtocol.Event) => void

  constructor(context: Pick<DapContext, 'send'>, title: string, requestId: number, shown: boolean) {
    this.#send = (event) => {
      if (shown) context.send(event)
    }
    const start: DebugProtocol.ProgressStartEvent = new ProgressStartEvent(this.id, title)
    start.body.requestId = requestId
    start.body.cancellable = true
    this.#send(start)
  }

  update(text: string): void {
    this.#send(new ProgressUpdateEvent(this.id, text))
  }

  end(): void {
    this.#send(new ProgressEndEvent(this.id))
  }
}
