import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Command, InvalidArgumentError } from 'commander'
import { availableCpu } from '../../emulator/cpu/index.ts'
import { formatHost } from '../config/endpoints.ts'
import { ControlClient, type FarmSelection, findRunning } from '../control/client.ts'
import type { Arguments } from '../debug/dap/arguments.ts'
import { serveDap } from '../debug/dap/serve.ts'
import { RemoteRepl } from '../debug/repl/remote.ts'
import { Repl } from '../debug/repl/repl.ts'
import { runLines, Terminal, type TerminalCommandLine } from '../debug/repl/terminal.ts'
import { openRecording } from '../debug/session/open-recording.ts'
import { CommandError, EXIT_FARM_STATE, EXIT_INTERRUPTED, errorMessage, usageError } from '../errors.ts'
import { checkServer, debugLaunched, serveLldb } from '../farm/debugging.ts'
import { type LaunchOptions, openFarm } from '../farm/launch.ts'
import type { FarmSession } from '../farm/session.ts'
import type { FarmState } from '../state.ts'
import { note, startProgress, wantsColour } from '../terminal.ts'
import { attachSelection, connectFrontEnd, debugHost } from './debug-host.ts'
import { addLaunchOptions } from './launch-options.ts'

interface DebugCommandOptions extends LaunchOptions {
  readonly attach?: boolean
  readonly replay?: string
  readonly dap?: boolean
  readonly dapPort?: Endpoint
  readonly gdb?: Endpoint
  readonly batch?: boolean
  readonly execute?: readonly string[]
  readonly server?: string
}

interface Endpoint {
  readonly host: string
  readonly port: number
}

const HISTORY_FILE = 'debug-history'
/** How often a server that ends looks whether its last session has. */
const POLL_MS = 20

export function addDebugCommand(program: Command): void {
  const command = program
    .command('debug')
    .summary('step through the firmware of a farm')
    .description(
      'Starts a farm, or attaches to one that runs, and opens a debugger over all its INICs: a command line with the habits of gdb, ' +
        'or a debug adapter for an editor.',
    )
    .argument('[farm]', 'farm file; left out: the farm that runs here, or one server with the example shop')
    .option('-a, --attach', 'attach to the farm, which must be running (default if it is)')
    .option('--replay <file>', 'look into a recording of inic run --record, in place of a farm')
    .option('--server <name>', 'the server whose INIC is selected first')
    .option('-x, --execute <file>', 'run the commands of a file; may be repeated', collectText)
    .option('--batch', 'end when the files are done; exit code 1 if a command failed')
    .option('--dap', 'speak the Debug Adapter Protocol on standard input and output')
    .option(
      '--dap-port <[addr:]port>',
      'the same for one editor at a time on a TCP port of 127.0.0.1',
      endpointArgument,
    )
    .option('--gdb <[addr:]port>', 'speak gdb-remote to LLDB on a TCP port of 127.0.0.1', endpointArgument)
  addLaunchOptions(command)
    .addHelpText(
      'after',
      `
Examples:
  inic debug                                      the command line; help tells its commands
  inic debug examples/farm.json --server server2
  inic debug --attach                             to a farm that runs; leaving it lets the farm go on
  inic debug --batch -x commands.txt              for scripts
  inic debug --replay farm.rec                    what inic run --record has recorded
  inic debug --dap                                what an editor starts: docs/debugging.md
  inic debug --gdb 2345                           for LLDB: docs/debugging-lldb.md

In the command line:
  b tcp/input.ts:90        b frame tcp.flags.syn        b state SYN-RECEIVED -> ESTABLISHED
  c   s   n   fin   bt   p tcb[3]   watch tcb[*].state   rs   rc   info tables`,
    )
    .action(async (farmPath: string | undefined, options: DebugCommandOptions) => {
      checkOptions(farmPath, options)
      if (options.dap) return serveStandardStreams(farmPath, options)
      if (options.dapPort !== undefined) return servePort(farmPath, options, options.dapPort)
      if (options.gdb !== undefined) return serveLldbs(farmPath, options, options.gdb)
      const lines = (options.execute ?? []).flatMap(readCommands)
      if (options.replay !== undefined) return replay(options.replay, options, lines)
      const state = await findFarm(farmPath, options)
      if (state === undefined) await startHere(farmPath, options, lines)
      else await attach(state, options, lines)
    })
}

function checkOptions(farmPath: string | undefined, options: DebugCommandOptions): void {
  const { dap, dapPort, gdb, batch, execute, replay } = options
  const ports = [dapPort, gdb].filter((port) => port !== undefined)
  if (ports.length + (dap ? 1 : 0) > 1) throw usageError('--dap, --dap-port and --gdb exclude each other')
  const adapter = dap || dapPort !== undefined
  if ((adapter || gdb !== undefined) && (batch || execute))
    throw usageError('-x and --batch are for the command line, not for an editor or LLDB')
  if (adapter && farmPath !== undefined && !options.attach)
    throw usageError('an editor says itself which farm it launches', 'leave the farm out, or add --attach')
  if (replay !== undefined && (adapter || gdb !== undefined || options.attach || farmPath !== undefined))
    throw usageError(
      '--replay is for the command line, without a farm',
      'an editor names a recording in its launch configuration',
    )
  if (batch && execute === undefined) throw usageError('--batch needs commands', 'give them: -x FILE')
  if (options.cpu === 'v8') throw usageError('--cpu v8 has no debugger', 'use wasmtime: npm run build')
}

function selection(farmPath: string | undefined, { state }: DebugCommandOptions): FarmSelection {
  return { ...(farmPath !== undefined && { farm: farmPath }), ...(state !== undefined && { state }) }
}

/** The state of the farm to attach to; undefined: it is to be launched. */
async function findFarm(farmPath: string | undefined, options: DebugCommandOptions): Promise<FarmState | undefined> {
  const state = await findRunning(selection(farmPath, options))
  if (state === undefined && options.attach)
    throw new CommandError('the farm is not running', {
      exitCode: EXIT_FARM_STATE,
      hint: 'start it in another terminal: inic run; or leave out --attach, and it is started here',
    })
  return state
}

// ── the command line ──

async function startHere(
  farmPath: string | undefined,
  options: DebugCommandOptions,
  lines: readonly string[],
): Promise<void> {
  requireCpu()
  const { session, state } = await openFarm(farmPath, options)
  session.on('remark', (line) => note(line))
  await startFarm(session)
  const target = await debugLaunched(session)
  const onTerminate = () => void target.end().then(() => process.exit(EXIT_INTERRUPTED))
  process.once('SIGTERM', onTerminate)
  try {
    for (const line of target.published) note(line)
    checkServer(target.session, options.server)
    const repl = new Repl(target.session, replOptions(options))
    await useCommandLine(repl, repl.greeting(), options, lines, state)
    repl.close()
  } finally {
    await target.end()
    process.off('SIGTERM', onTerminate)
  }
}

/** Starts the farm; Ctrl-C meanwhile gives it up. */
async function startFarm(session: FarmSession): Promise<void> {
  const interrupted = new AbortController()
  const onSignal = () => interrupted.abort(new CommandError('interrupted', { exitCode: EXIT_INTERRUPTED }))
  process.once('SIGINT', onSignal).once('SIGTERM', onSignal)
  const progress = startProgress('starting the farm')
  try {
    await session.start(interrupted.signal)
  } finally {
    progress.end()
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal)
  }
}

/** The past alone: nothing of a farm runs. */
async function replay(path: string, options: DebugCommandOptions, lines: readonly string[]): Promise<void> {
  requireCpu()
  const { session, remark } = openRecording(path)
  if (remark !== undefined) note(remark)
  checkServer(session, options.server)
  const repl = new Repl(session, replOptions(options))
  try {
    await useCommandLine(repl, repl.greeting(), options, lines)
  } finally {
    repl.close()
    await session.detach()
  }
}

async function attach(state: FarmState, options: DebugCommandOptions, lines: readonly string[]): Promise<void> {
  const client = await ControlClient.connectTo(state)
  try {
    const { colour, server } = replOptions(options)
    await client.request('debug', { frontend: 'repl', colour, ...(server !== undefined && { server }) })
    const repl = new RemoteRepl(client.stream())
    note(`attached to ${state.name}; leaving lets it go on`)
    await useCommandLine(repl, await repl.greeting(), options, lines, state)
    repl.close()
  } finally {
    client.close()
  }
}

function replOptions({ server }: DebugCommandOptions): { colour: boolean; server?: string } {
  return { colour: wantsColour(process.stdout), ...(server !== undefined && { server }) }
}

async function useCommandLine(
  commandLine: TerminalCommandLine,
  greeting: string,
  options: DebugCommandOptions,
  lines: readonly string[],
  state?: FarmState,
): Promise<void> {
  const write = (text: string) => void process.stdout.write(text)
  write(greeting)
  // At a terminal the line editor has Ctrl-C; this one comes while a file is run.
  const onInterrupt = () => commandLine.interrupt()
  process.on('SIGINT', onInterrupt)
  const { ok, ended } = await runLines(commandLine, lines, write).finally(() => process.off('SIGINT', onInterrupt))
  if (!ok && options.batch) throw new CommandError('a command failed, and the rest was not run')
  if (options.batch || (ok && ended)) return
  const interactive = process.stdin.isTTY === true && process.stdout.isTTY === true
  const historyFile = interactive && state !== undefined ? join(state.directory, HISTORY_FILE) : undefined
  await new Terminal(commandLine, { input: process.stdin, output: process.stdout, interactive, historyFile }).run()
}

function requireCpu(): void {
  if (availableCpu() === 'wasmtime') return
  throw usageError(
    'debugging needs the wasmtime processor, whose addon has not been built',
    'install Rust (https://rustup.rs), then: npm run build',
  )
}

function readCommands(path: string): string[] {
  try {
    return readFileSync(path, 'utf8').split(/\r?\n/)
  } catch (error) {
    throw usageError(`${path} cannot be read: ${errorMessage(error)}`)
  }
}

// ── the debug adapter ──

/** An editor has started us, and speaks on our standard streams until it ends them. */
async function serveStandardStreams(farmPath: string | undefined, options: DebugCommandOptions): Promise<void> {
  const { stdin, stdout } = process
  if (options.attach) {
    const stream = await connectFrontEnd(selection(farmPath, options), 'dap')
    await pipe(Duplex.from({ readable: stdin, writable: stdout }), stream)
    return
  }
  const server = serveDap(stdin, stdout, debugHost(options), (args) => connectFrontEnd(attachSelection(args), 'dap'))
  process.once('SIGINT', server.end).once('SIGTERM', server.end)
  await server.done
}

/** Editors connect, one after the other, until Ctrl-C. */
async function servePort(farmPath: string | undefined, options: DebugCommandOptions, at: Endpoint): Promise<void> {
  const connect = (args: Arguments) => connectFrontEnd(attachSelection(args), 'dap')
  await serveConnections(
    at,
    (port) => `editors connect to ${port}`,
    async (socket) => {
      if (options.attach) await pipe(socket, await connectFrontEnd(selection(farmPath, options), 'dap'))
      else await serveDap(socket, socket, debugHost(options), connect).done
    },
  )
}

/** LLDBs connect, one after the other, until Ctrl-C; in between the farm runs. */
async function serveLldbs(farmPath: string | undefined, options: DebugCommandOptions, at: Endpoint): Promise<void> {
  const describe = (port: string) => `lldb: process connect --plugin wasm connect://${port}`
  const state = await findFarm(farmPath, options)
  if (state !== undefined) {
    const chosen = selection(farmPath, options)
    await serveConnections(at, describe, async (socket) => pipe(socket, await connectFrontEnd(chosen, 'gdb')))
    return
  }
  requireCpu()
  const { session } = await openFarm(farmPath, options)
  session.on('remark', (line) => note(line))
  await startFarm(session)
  let over = false
  let passing: Promise<unknown> | undefined
  try {
    await serveConnections(at, describe, async (socket) => {
      const closed = once(socket, 'close')
      const target = await session.debugging.open()
      if (session.assembly.farm.virtual) passing ??= session.assembly.farm.run(() => over)
      serveLldb(socket, target)
      await closed
      await target.end()
    })
  } finally {
    over = true
    await passing
    await session.stop()
  }
}

/** Serves one connection at a time, until Ctrl-C. */
async function serveConnections(
  at: Endpoint,
  describe: (port: string) => string,
  serve: (socket: Socket) => Promise<void>,
): Promise<void> {
  let busy = false
  const accept = async (socket: Socket) => {
    socket.on('error', () => socket.destroy())
    if (busy) {
      note('a second connection was turned away')
      socket.destroy()
      return
    }
    busy = true
    try {
      await serve(socket)
    } catch (error) {
      note(errorMessage(error))
      socket.destroy()
    } finally {
      busy = false
    }
  }
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket.once('close', () => sockets.delete(socket)))
    void accept(socket)
  })
  await listen(server, at)
  const { port } = server.address() as AddressInfo
  note(`${describe(`${formatHost(at.host)}:${port}`)}; Ctrl-C ends`)
  await new Promise<void>((resolve) => {
    process.once('SIGINT', () => resolve()).once('SIGTERM', () => resolve())
  })
  server.close()
  for (const socket of sockets) socket.end()
  while (busy) await sleep(POLL_MS)
}

function pipe(one: Duplex, other: Duplex): Promise<void> {
  one.pipe(other).pipe(one)
  return new Promise((resolve) => {
    const end = () => {
      one.destroy()
      other.destroy()
      resolve()
    }
    for (const stream of [one, other]) stream.once('close', end).once('error', end)
  })
}

function listen(server: Server, { host, port }: Endpoint): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) =>
      reject(
        new CommandError(`port ${formatHost(host)}:${port} cannot be opened: ${errorMessage(error)}`, { cause: error }),
      ),
    )
    server.listen(port, host, () => resolve())
  })
}

function endpointArgument(text: string): Endpoint {
  const match = /^(?:(.+):)?(\d{1,5})$/.exec(text)
  const port = Number(match?.[2])
  if (match === null || port > 65535)
    throw new InvalidArgumentError('Write a port, or ADDRESS:PORT, as in 127.0.0.1:4711.')
  return { host: match[1] ?? '127.0.0.1', port }
}

function collectText(text: string, previous: readonly string[] = []): string[] {
  return [...previous, text]
}
