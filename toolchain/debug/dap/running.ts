/** Requests that let the farm run, forward and back. */
import type { StepKind, Stop } from '../session/api.ts'
import { type Arguments, RequestError } from './arguments.ts'
import type { DapContext, Handlers } from './context.ts'

/** Requests whose answer goes before the events that they cause. */
export const RUNNING_REQUESTS: ReadonlySet<string> = new Set([
  'continue',
  'reverseContinue',
  'next',
  'stepIn',
  'stepOut',
  'stepBack',
  'pause',
])

/** Starts to run; @throws (later) what is wrong, if it is found at once. */
async function start(running: Promise<Stop>): Promise<void> {
  const wrong = running.then(
    () => undefined,
    (error: unknown) => error ?? new RequestError('the farm does not run'),
  )
  const soon = new Promise<undefined>((resolve) => setImmediate(() => resolve(undefined)))
  const error = await Promise.race([wrong, soon])
  if (error !== undefined) throw error
}

function stepKind(args: Arguments, byLine: StepKind, byInstruction: StepKind): StepKind {
  return args.textOr('granularity', 'line') === 'instruction' ? byInstruction : byLine
}

export function runningHandlers(context: DapContext): Handlers {
  const thread = (args: Arguments): number => {
    const id = args.integer('threadId')
    if (!context.session.threads.some((item) => item.id === id)) throw new RequestError(`there is no thread ${id}`)
    return id
  }
  const step = async (args: Arguments, kind: StepKind) => {
    await start(context.session.step(thread(args), kind))
    return {}
  }
  return {
    async continue(args) {
      thread(args)
      await start(context.session.continue())
      return { allThreadsContinued: true }
    },
    async reverseContinue(args) {
      thread(args)
      await start(context.session.reverseContinue())
      return {}
    },
    next: (args) => step(args, stepKind(args, 'over', 'instruction-over')),
    stepIn: (args) => step(args, stepKind(args, 'in', 'instruction')),
    stepOut: (args) => step(args, 'out'),
    async stepBack(args) {
      await start(context.session.stepBack(thread(args), stepKind(args, 'over', 'instruction-over')))
      return {}
    },
    async pause() {
      if (context.session.state === 'running') await start(context.session.pause())
      return {}
    },
  }
}
