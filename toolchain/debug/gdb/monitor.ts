/** `process plugin packet monitor …` of LLDB, `monitor …` of gdb: what the protocol has no packet for. */
import { DebugError } from '../session/api.ts'
import type { GdbServer } from './server.ts'

const HELP = `inics                 the farm's INICs; > is the one that is looked at
inic NAME             look at another: the next continue or step shows it instead of running
disassemble [PC]      instructions as they are: LLDB shows if, else and a function's end as branches
help                  this
`

/** Instructions that are shown at once. */
const INSTRUCTIONS = 16

/** Prints what the line prints. */
export async function runMonitor(server: GdbServer, line: string): Promise<'OK'> {
  server.printNow(await run(server, line))
  return 'OK'
}

async function run(server: GdbServer, line: string): Promise<string> {
  const [word = '', argument] = line.trim().split(/\s+/)
  const { monitor } = server.options
  switch (word) {
    case 'inics':
      return listInics(server)
    case 'inic':
      return selectInic(server, argument)
    case 'disassemble':
      return disassemble(server, argument)
    case '':
    case 'help':
      return monitor ? `${HELP}\n${await monitor('help')}` : HELP
  }
  if (monitor === undefined)
    throw new DebugError('unsupported', `there is no command ${word}; help tells those that there are`)
  const before = server.session.stop
  const text = await monitor(line)
  if (server.session.stop === before) return text
  server.showNext()
  return `${text}${STALE}`
}

const STALE = 'LLDB shows what was before; the next continue or step shows where the farm is now, instead of running\n'

function listInics({ session, inferior }: GdbServer): string {
  const selected = inferior.thread.id
  return session.threads
    .map(({ id, name, state }) => `${id === selected ? '>' : ' '} ${id} ${name} (${state})\n`)
    .join('')
}

function selectInic(server: GdbServer, name: string | undefined): string {
  const thread = server.session.threads.find((each) => each.name === name || String(each.id) === name)
  if (thread === undefined) {
    const names = server.session.threads.map((each) => each.name).join(', ')
    throw new DebugError('no-thread', `there is no INIC ${name ?? ''}; the farm has ${names}`)
  }
  if (thread.id === server.inferior.thread.id) return `${thread.name} is the one that is looked at\n`
  server.showNext(thread.id)
  return `${thread.name}: the next continue or step shows it instead of running\n`
}

function disassemble({ session, inferior }: GdbServer, pc: string | undefined): string {
  const from = pc === undefined ? inferior.frames[0]?.pc : Number(pc)
  if (from === undefined) throw new DebugError('no-frame', 'the INIC is between two slices')
  const instructions = session.disassemble(inferior.thread.id, from, INSTRUCTIONS)
  return instructions.map(({ pc: at, text }) => `0x${at.toString(16).padStart(6, '0')}  ${text}\n`).join('')
}
