/** Commands about the session itself: INICs, help, the end. */
import type { ReplCommand } from './command.ts'
import { type ReplContext, ReplError } from './context.ts'
import { showPlace } from './show.ts'

function selectThread(context: ReplContext, args: string): void {
  if (args !== '') {
    context.thread = context.threadNamed(args)
    context.frame = 0
    context.listing = undefined
  }
  if (context.session.state === 'running') return context.print(`${context.threadName(context.thread)} runs`)
  showPlace(context)
}

const completeThread: NonNullable<ReplCommand['complete']> = (context, args) =>
  context.session.threads.map(({ name }) => name).filter((name) => name.startsWith(args))

export const SESSION_COMMANDS: readonly ReplCommand[] = [
  {
    names: ['thread', 't'],
    section: 'session',
    usage: 'thread [N]',
    summary: 'select an INIC by its number, which info threads tells',
    run: selectThread,
    complete: completeThread,
  },
  {
    names: ['server'],
    section: 'session',
    usage: 'server [NAME]',
    summary: 'select an INIC by its name',
    run: selectThread,
    complete: completeThread,
  },
  {
    names: ['detach'],
    section: 'session',
    usage: 'detach',
    summary: 'take all breakpoints away and let the farm run on',
    run: (context) => {
      context.ended = 'detach'
    },
    complete: () => [],
  },
  {
    names: ['quit', 'q', 'exit'],
    section: 'session',
    usage: 'quit',
    summary: 'leave; a farm that was started here ends, one that ran before goes on',
    run: (context) => {
      context.ended = 'quit'
    },
    complete: () => [],
  },
]

const SECTIONS = ['running', 'back in time', 'breakpoints', 'looking', 'session'] as const

/** `help`, over all the other commands. */
export function helpCommand(commands: readonly ReplCommand[]): ReplCommand {
  const command: ReplCommand = {
    names: ['help', 'h'],
    section: 'session',
    usage: 'help [COMMAND]',
    summary: 'what a command does',
    run: (context, args) =>
      args === '' ? showAll(context, [...commands, command]) : showOne(context, [...commands, command], args),
    complete: (_context, args) => commands.map(({ names }) => names[0]).filter((name) => name.startsWith(args)),
  }
  return command
}

function showAll(context: ReplContext, commands: readonly ReplCommand[]): void {
  for (const section of SECTIONS) {
    context.print(context.paint('bold', section))
    for (const { names, section: own, summary } of commands) {
      if (own === section) context.print(`  ${names.slice(0, 2).join(', ').padEnd(22)} ${summary}`)
    }
  }
  context.print('An empty line repeats; commands may be cut short; Ctrl-C halts a farm that runs.')
}

function showOne(context: ReplContext, commands: readonly ReplCommand[], name: string): void {
  const command =
    commands.find(({ names }) => names.includes(name)) ?? commands.find(({ names }) => names[0].startsWith(name))
  if (command === undefined) throw new ReplError(`there is no command '${name}'`)
  context.print(command.usage)
  context.print(`  ${command.summary}`)
  if (command.names.length > 1) context.print(`  also: ${command.names.slice(1).join(', ')}`)
  for (const line of command.details ?? []) context.print(line)
}
