/** Commands that let the farm run, forward and back. */
import type { StepKind, Stop } from '../session/api.ts'
import { parseCount, parseNumber, type ReplCommand } from './command.ts'
import { type ReplContext, ReplError } from './context.ts'
import { showDisplays } from './display-commands.ts'
import { parseBreakpoint } from './locations.ts'
import { formatPosition, showStop } from './show.ts'

/** A loop that `until` waits for may not be longer, lines. */
const MAXIMUM_UNTIL_STEPS = 100_000

/** Runs until the next stop and shows it. */
export async function go(context: ReplContext, run: () => Promise<Stop>): Promise<Stop> {
  const stop = await run()
  await arrive(context, stop)
  return stop
}

/** Selects where the farm stopped, shows it, and does what the breakpoints' commands say. */
export async function arrive(context: ReplContext, stop: Stop): Promise<void> {
  context.select(stop)
  showStop(context, stop)
  showDisplays(context)
  for (const id of stop.breakpoints) {
    const number = context.book.byEngineId(id)?.number
    const script = number === undefined ? undefined : context.scripts.get(number)
    if (script !== undefined) await context.runLines(script)
  }
}

/** Steps so often, or until something else stops it. */
async function repeat(context: ReplContext, args: string, run: () => Promise<Stop>): Promise<void> {
  const times = parseCount(args)
  for (let count = 1; count < times; count++) {
    const stop = await run()
    context.thread = stop.thread
    if (stop.reason !== 'step') return arrive(context, stop)
  }
  await go(context, run)
}

function step(kind: StepKind): ReplCommand['run'] {
  return (context, args) => repeat(context, args, () => context.session.step(context.thread, kind))
}

function stepBack(kind: StepKind): ReplCommand['run'] {
  return (context, args) => repeat(context, args, () => context.session.stepBack(context.thread, kind))
}

/** Runs until a line below this one, in this function, or its caller: a loop is over then. */
async function untilBelow(context: ReplContext): Promise<void> {
  const start = context.session.frames(context.thread)
  const line = start[0]?.source?.line
  if (line === undefined) throw new ReplError('no source line is selected')
  for (let steps = 0; steps < MAXIMUM_UNTIL_STEPS; steps++) {
    const stop = await context.session.step(context.thread, 'over')
    const frames = stop.thread === context.thread ? context.session.frames(context.thread) : []
    const below = frames.length < start.length || (frames[0]?.source?.line ?? 0) > line
    if (stop.reason !== 'step' || below) return arrive(context, stop)
  }
  throw new ReplError(`after ${MAXIMUM_UNTIL_STEPS} steps the loop is not over`)
}

async function untilLocation(context: ReplContext, location: string): Promise<void> {
  const breakpoint = context.session.addBreakpoint({ ...parseBreakpoint(context, location), temporary: true })
  try {
    if (!breakpoint.verified) throw new ReplError(breakpoint.message ?? `nothing can stop at ${location}`)
    await go(context, () => context.session.continue())
  } finally {
    context.session.removeBreakpoint(breakpoint.id)
  }
}

export const RUN_COMMANDS: readonly ReplCommand[] = [
  {
    names: ['continue', 'c', 'fg'],
    section: 'running',
    usage: 'continue [N]',
    summary: 'let the farm run to the next stop; with N pass a breakpoint that was hit N - 1 times more',
    repeats: 'bare',
    async run(context, args) {
      const times = parseCount(args)
      for (let count = 1; count < times; count++) await context.session.continue()
      await go(context, () => context.session.continue())
    },
  },
  {
    names: ['step', 's'],
    section: 'running',
    usage: 'step [N]',
    summary: 'to the next line, into calls',
    repeats: 'same',
    run: step('in'),
  },
  {
    names: ['next', 'n'],
    section: 'running',
    usage: 'next [N]',
    summary: 'to the next line, over calls',
    repeats: 'same',
    run: step('over'),
  },
  {
    names: ['stepi', 'si'],
    section: 'running',
    usage: 'stepi [N]',
    summary: 'one instruction, into calls',
    repeats: 'same',
    run: step('instruction'),
  },
  {
    names: ['nexti', 'ni'],
    section: 'running',
    usage: 'nexti [N]',
    summary: 'one instruction, over calls',
    repeats: 'same',
    run: step('instruction-over'),
  },
  {
    names: ['finish', 'fin'],
    section: 'running',
    usage: 'finish',
    summary: 'until this function returns to its caller',
    repeats: 'same',
    run: step('out'),
  },
  {
    names: ['until', 'u'],
    section: 'running',
    usage: 'until [LOCATION]',
    summary: 'until a line below this one, out of a loop; or until the location',
    repeats: 'same',
    run: (context, args) => (args === '' ? untilBelow(context) : untilLocation(context, args)),
  },
  {
    names: ['reverse-step', 'rs'],
    section: 'back in time',
    usage: 'reverse-step [N]',
    summary: 'to the line before, into calls from their end',
    repeats: 'same',
    run: stepBack('in'),
  },
  {
    names: ['reverse-next', 'rn'],
    section: 'back in time',
    usage: 'reverse-next [N]',
    summary: 'to the line before, over calls',
    repeats: 'same',
    run: stepBack('over'),
  },
  {
    names: ['reverse-stepi', 'rsi'],
    section: 'back in time',
    usage: 'reverse-stepi [N]',
    summary: 'one instruction back',
    repeats: 'same',
    run: stepBack('instruction'),
  },
  {
    names: ['reverse-nexti', 'rni'],
    section: 'back in time',
    usage: 'reverse-nexti [N]',
    summary: 'one instruction back, over calls',
    repeats: 'same',
    run: stepBack('instruction-over'),
  },
  {
    names: ['reverse-finish', 'rf'],
    section: 'back in time',
    usage: 'reverse-finish',
    summary: 'back to the call of this function',
    repeats: 'same',
    run: stepBack('out'),
  },
  {
    names: ['reverse-continue', 'rc'],
    section: 'back in time',
    usage: 'reverse-continue',
    summary: 'back to the last stop before here',
    repeats: 'same',
    async run(context) {
      await go(context, () => context.session.reverseContinue())
    },
  },
  {
    names: ['goto'],
    section: 'back in time',
    usage: 'goto SLICE',
    summary: 'to the moment before that slice of the timeline; info position tells where we are',
    async run(context, args) {
      const slice = parseNumber(args, 'slice of the timeline')
      await go(context, () => context.session.goTo(slice))
      context.print(formatPosition(context.session.position))
    },
  },
  {
    names: ['live'],
    section: 'back in time',
    usage: 'live',
    summary: 'from the past to the present',
    async run(context) {
      await go(context, () => context.session.goLive())
    },
  },
]
