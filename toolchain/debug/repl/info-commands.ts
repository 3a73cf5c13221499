/** `info`: what there is. */
import { packetValues } from '../front/packet.ts'
import { registersOf, stateOf, tablesOf } from '../front/roots.ts'
import type { Value } from '../session/api.ts'
import { showBreakpoints } from './breakpoint-commands.ts'
import type { ReplCommand } from './command.ts'
import { type ReplContext, ReplError } from './context.ts'
import { formatPosition, showPlace, showValue } from './show.ts'

interface Topic {
  readonly name: string
  readonly summary: string
  run(context: ReplContext, args: string): void
}

function showValues(context: ReplContext, values: readonly Value[], none: string): void {
  if (values.length === 0) return context.print(none)
  for (const value of values) showValue(context, value, { depth: 0 })
}

function threads(context: ReplContext): void {
  for (const { id, name, state } of context.session.threads) {
    const mark = id === context.thread ? '*' : ' '
    const frame = state === 'halted' || state === 'crashed' ? context.session.frames(id)[0] : undefined
    const where =
      frame === undefined ? '' : `  ${context.paint('yellow', frame.functionName)} at ${context.place(frame)}`
    context.print(`${mark} ${String(id).padEnd(3)} ${context.paint('cyan', name.padEnd(12))} ${state}${where}`)
  }
}

function registers(context: ReplContext, args: string): void {
  const wanted = args.split(/\s+/).filter((name) => name !== '')
  const all = registersOf(context.session, context.thread)
  const values =
    wanted.length === 0 ? all : all.filter(({ name }) => wanted.includes(name.toUpperCase()) || wanted.includes(name))
  const frame = context.selectedFrame()
  if (frame !== undefined && (wanted.length === 0 || wanted.includes('pc')))
    context.print(`pc = 0x${frame.pc.toString(16)}`)
  showValues(context, values, `${context.threadName(context.thread)} has no such register`)
}

function frameDetails(context: ReplContext): void {
  const frame = context.selectedFrame()
  if (frame === undefined) throw new ReplError('there is no call stack between two slices')
  context.print(
    `#${frame.index} of ${context.session.frames(context.thread).length} on ${context.threadName(context.thread)}`,
  )
  showPlace(context)
  context.print(`pc 0x${frame.pc.toString(16)}, wasm frame ${frame.physical}${frame.inlined ? ', inlined' : ''}`)
  const { locals, stack } = context.session.machineState(context.thread, context.frame)
  for (const value of locals) context.print(`  local ${value.name} = ${value.display}`)
  for (const value of stack) context.print(`  stack ${value.name} = ${value.display}`)
}

function modules(context: ReplContext): void {
  for (const { id, description, wasm, threads: ids, hasSource } of context.session.modules) {
    const names = ids.map((thread) => context.threadName(thread)).join(', ')
    context.print(`${id}  ${description}, ${wasm.length} bytes${hasSource ? '' : ', no source map'}: ${names}`)
  }
}

const TOPICS: readonly Topic[] = [
  { name: 'breakpoints', summary: 'breakpoints and watchpoints', run: showBreakpoints },
  {
    name: 'locals',
    summary: 'parameters and locals of the selected frame',
    run: (context) => {
      if (context.selectedFrame() === undefined) throw new ReplError('there is no call stack between two slices')
      showValues(context, context.session.locals(context.thread, context.frame), 'No locals.')
    },
  },
  { name: 'threads', summary: 'the INICs', run: threads },
  { name: 'registers', summary: 'registers of the card', run: registers },
  {
    name: 'tables',
    summary: 'tables in INIC memory; print looks into them',
    run: (context) => showValues(context, tablesOf(context.session, context.thread), 'This firmware has no tables.'),
  },
  {
    name: 'state',
    summary: "the firmware's State",
    run: (context) => {
      const state = stateOf(context.session, context.thread)
      if (state === undefined) throw new ReplError('this firmware has no State')
      showValue(context, state)
    },
  },
  {
    name: 'packet',
    summary: 'the frame that the farm stopped for, decoded',
    run: (context) => {
      const frame = context.session.stop?.frame
      if (frame === undefined) throw new ReplError('the farm did not stop for a frame; try break frame FILTER')
      context.print(context.session.stop!.text)
      for (const value of packetValues(frame)) showValue(context, value, { depth: 2 })
    },
  },
  { name: 'frame', summary: 'the selected frame of the call stack, as the machine has it', run: frameDetails },
  { name: 'line', summary: 'where the selected frame stands', run: (context) => showPlace(context) },
  {
    name: 'position',
    summary: 'where we are on the timeline',
    run: (context) => {
      const { position } = context.session
      context.print(`${formatPosition(position)}; history reaches back to slice ${position.oldestSlice}`)
    },
  },
  {
    name: 'source',
    summary: 'the source file of the selected frame',
    run: (context) => {
      const file = context.selectedFrame()?.source?.file
      if (file === undefined) throw new ReplError('no source line is selected')
      context.print(context.files.path(file) ?? `${file}, which is not on this machine`)
    },
  },
  {
    name: 'sources',
    summary: 'files that code comes from',
    run: (context) => {
      for (const file of context.session.sources) context.print(context.files.shortName(file))
    },
  },
  { name: 'modules', summary: 'firmware that runs', run: modules },
  {
    name: 'display',
    summary: 'what is shown at every stop',
    run: (context) => {
      if (context.displays.length === 0) context.print('Nothing is displayed.')
      for (const { number, expression, format } of context.displays)
        context.print(`${number}: ${format === '' ? '' : `/${format} `}${expression}`)
    },
  },
]

/** Words that are no unique prefix and yet mean one. */
const TOPIC_WORDS: Readonly<Record<string, string>> = {
  b: 'breakpoints',
  s: 'source',
  f: 'frame',
  files: 'sources',
  l: 'locals',
  r: 'registers',
  t: 'threads',
  p: 'packet',
}

function findTopic(word: string): Topic {
  const name = TOPIC_WORDS[word] ?? word
  const exact = TOPICS.find((topic) => topic.name === name)
  if (exact) return exact
  const found = TOPICS.filter((topic) => topic.name.startsWith(name))
  if (found.length === 1) return found[0]
  const names = (found.length > 1 ? found : TOPICS).map((topic) => topic.name).join(', ')
  throw new ReplError(found.length > 1 ? `'${word}' may be ${names}` : `info knows: ${names}`)
}

export const INFO_COMMANDS: readonly ReplCommand[] = [
  {
    names: ['info', 'i'],
    section: 'looking',
    usage: 'info TOPIC',
    summary: 'what there is',
    details: TOPICS.map(({ name, summary }) => `  ${name.padEnd(12)} ${summary}`),
    run: (context, args) => {
      const match = /^(\S*)\s*(.*)$/s.exec(args)!
      if (match[1] === '') {
        for (const { name, summary } of TOPICS) context.print(`info ${name.padEnd(12)} ${summary}`)
        return
      }
      findTopic(match[1]).run(context, match[2])
    },
    complete: (_context, args) => TOPICS.map(({ name }) => name).filter((name) => name.startsWith(args)),
  },
]
