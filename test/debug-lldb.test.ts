/** LLDB itself on a farm in virtual time with a build of ipOS, while a client is being served. */
import { execFile, execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { hasAddon } from '../emulator/cpu/addon.ts'
import { serveGdb } from '../toolchain/debug/gdb/index.ts'
import { FirmwareLibrary } from '../toolchain/debug/session/firmware.ts'
import { DebugSession } from '../toolchain/debug/session/session.ts'
import type { BuildTarget } from '../toolchain/firmware/artifacts.ts'
import { buildFirmware } from '../toolchain/firmware/build.ts'
import { parseLayouts } from '../toolchain/firmware/layouts.ts'
import { packageRoot } from '../toolchain/package-root.ts'
import { VirtualFarm } from '../toolchain/testing/virtual-farm.ts'
import { temporaryDirectory } from './support/tiny-firmware.ts'

const LLDB = process.env.INIC_LLDB ?? 'lldb-22'
const DWARFDUMP = process.env.INIC_DWARFDUMP ?? 'llvm-dwarfdump-22'
const LLDB_TIMEOUT_MS = 100_000
/** Virtual time between two looks at what comes from LLDB. */
const TURN_MS = 20
/** Looks at whether the farm goes on, 1 ms and a turn of it apart. */
const TURNS_AFTER = 10_000

const withLldb = hasAddon() && runs(LLDB) ? test.serial : test.skip
const withDwarfdump = hasAddon() && runs(DWARFDUMP) ? test.serial : test.skip

function runs(program: string): boolean {
  try {
    execFileSync(program, ['--version'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

/** Number of the first line of a source file that has this text, in or behind the function of that name. */
function lineOf(file: string, text: string, within: string): number {
  const lines = readFileSync(join(packageRoot, file), 'utf8').split('\n')
  const start = lines.findIndex((line) => line.includes(`function ${within}(`))
  const index = lines.findIndex((line, n) => n > start && line.includes(text))
  if (start < 0 || index < 0) throw new Error(`${file} has no line with ${text} in ${within}`)
  return index + 1
}

/** Commands, and what LLDB is to say to each. */
type Script = [command: string, ...expected: RegExp[]][]

/** Runs a script in LLDB on a farm of two servers whose first is asked by a client, over and over. */
async function debug(t: ExecutionContext, script: Script, target: BuildTarget = 'debug'): Promise<void> {
  const { artifacts } = await buildFirmware({ directory: packageRoot, target })
  const layouts = parseLayouts(await readFile(artifacts.layouts, 'utf8'))
  const farm = new VirtualFarm({ wasm: await readFile(artifacts.wasm), layouts }, { servers: 2 })
  for (const { net } of farm.servers) {
    net.createServer((socket) => socket.once('data', () => socket.end('served'))).listen(80)
  }
  await farm.settle()
  const library = new FirmwareLibrary([packageRoot])
  const boards = farm.servers.map(({ board }) => board)
  const session = DebugSession.attach(farm.farm, boards, { firmware: (...known) => library.find(...known) })

  let served = 0
  let over = false
  const ask = (): void => {
    const socket = farm.clients[0].net.connect(80, farm.servers[0].address)
    let text = ''
    socket.setEncoding('utf8')
    socket.on('data', (data: string) => {
      text += data
    })
    socket.on('error', (error) => t.fail(`the client is cut off: ${error.message}`))
    socket.on('end', () => {
      t.is(text, 'served')
      served++
      if (!over) ask()
    })
    socket.write('anyone there?')
  }
  ask()

  let ended = ''
  const server = createServer({ noDelay: true }, (socket) => {
    serveGdb(session, socket, { projects: [packageRoot] }).once('end', (reason) => {
      ended = reason
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo

  const output = lldb(port, script)
  const running = (async () => {
    while (!over) {
      await farm.run(TURN_MS)
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
  })()
  try {
    check(t, await output, script)
    t.is(ended, 'detached')
    t.is(session.breakpoints.length, 0)
    const before = served
    for (let turn = 0; turn < TURNS_AFTER && served < before + 3; turn++) {
      await new Promise((resolve) => setTimeout(resolve, 1))
    }
    t.true(served >= before + 3, 'the farm goes on')
  } finally {
    over = true
    await session.detach()
    await running
    server.close()
  }
}

async function lldb(port: number, script: Script): Promise<string> {
  const file = join(await temporaryDirectory(), 'script.lldb')
  const settings = [
    'settings set stop-line-count-before 0',
    'settings set stop-line-count-after 1',
    // The farm and its debugger share this process with other tests.
    'settings set plugin.process.gdb-remote.packet-timeout 60',
  ]
  const connect = `process connect --plugin wasm connect://127.0.0.1:${port}`
  await writeFile(file, [...settings, connect, ...script.map(([command]) => command), ''].join('\n'))
  return new Promise((resolve, reject) => {
    const options = { timeout: LLDB_TIMEOUT_MS, maxBuffer: 1 << 24 }
    execFile(LLDB, ['--no-lldbinit', '--no-use-colors', '--batch', '-s', file], options, (error, stdout, stderr) => {
      const output = `${stdout}\n${stderr}`
      if (error?.killed) reject(new Error(`LLDB hangs:\n${output}`))
      else resolve(output)
    })
  })
}

/** LLDB repeats each command before what it says to it. */
function check(t: ExecutionContext, output: string, script: Script): void {
  let rest = output
  for (const [command, ...expected] of script) {
    const echo = `(lldb) ${command}\n`
    const at = rest.indexOf(echo)
    if (at < 0) {
      t.fail(`LLDB did not come to: ${command}\n\n${output}`)
      return
    }
    rest = rest.slice(at + echo.length)
    const end = rest.indexOf('\n(lldb) ')
    const answer = end < 0 ? rest : rest.slice(0, end)
    for (const pattern of expected) {
      if (!pattern.test(answer)) t.fail(`${command}: no ${pattern} in\n\n${answer}\n\nof\n\n${output}`)
    }
  }
  t.pass()
}

/** LLDB names a line of `file`. */
const at = (file: string, within: string, text: string): RegExp => {
  const short = file.slice(file.lastIndexOf('/') + 1)
  return new RegExp(`at ${short.replace('.', '\\.')}:${lineOf(file, text, within)}(:|$)`, 'm')
}
const input = (text: string) => at('firmware/tcp/input.ts', 'tcpInput', text)
const poll = (text: string) => at('firmware/index.ts', 'poll', text)

withLldb('LLDB breaks by file and line, shows source, stack and locals, steps, and lets go of the farm', async (t) => {
  const lookUp = 'const entry = tableFind('
  await debug(t, [
    ['image list', /firmware\.wasm/],
    [
      `breakpoint set --file input.ts --line ${lineOf('firmware/tcp/input.ts', lookUp, 'tcpInput')}`,
      /tcpInput.* at input\.ts/,
    ],
    ['continue', /stop reason = breakpoint 1\.1/, input(lookUp), /-> \d+\s+const entry = tableFind\(local, remote/],
    [
      'bt',
      /frame #0: .*tcpInput\(interfaceIndex=0, packet=\d+, segment=\d+, segmentBytes=\d+, transient=false\)/,
      /frame #\d: .*ipv4Deliver/,
      /frame #\d: .*index\/poll\(irqs=\d+\) at index\.ts/,
    ],
    ['frame variable', /\(u32\) segmentBytes = \d+/, /\(bool\) transient = false/, /\(u32\) headerBytes = (20|32|44)/],
    ['expression segment - packet', /= 20$/m],
    ['next', /stop reason = step over/, input('const payload = segment + headerBytes')],
    ['next', input('const bytes = segmentBytes - headerBytes')],
    ['next', input('if (entry == 0) {')],
    ['memory read --format x --size 4 --count 1 0x1000', /0x00001000: 0x43494e49/],
    ['register read pc', /pc = 0x4000/],
    ['breakpoint delete 1'],
    ['detach', /detached/],
  ])
})

withLldb('LLDB steps over calls and into them, out of functions and out of a slice', async (t) => {
  await debug(t, [
    ['breakpoint set --name poll', /index\.ts/],
    ['continue', poll('const st = state()'), /stop reason = breakpoint 1\.1/],
    ['breakpoint disable 1'],
    // Calls without arguments on lines of their own: what LLDB steps by instruction.
    ['next', poll('  timerLatch()')],
    ['next', poll('  deliverBegin()')],
    ['step', /stop reason = step in/, /deliverBegin at deliver\.ts/],
    ['finish', /stop reason = step out/, /index\/poll/],
    ['next', poll('stateTimers()')],
    ['next', poll('lossServe()')],
    ['next', poll('if (irqs & IRQ_LINK) netLinkChanged()')],
    ['next', poll('if (irqs & IRQ_QUEUE) queueSetsChanged()')],
    ['next', poll('answersServe()')],
    ['finish', /stop reason = step out/, /frame #0: 0x4000000000000004/],
    ['thread step-inst', poll('const st = state()')],
    ['detach', /detached/],
  ])
})

withLldb('LLDB: conditions, structs, watchpoints, reverse, and another INIC', async (t) => {
  await debug(t, [
    [`breakpoint set --name segmentArrives --condition 'tcb->state == 3'`],
    ['continue', /segmentArrives\(tcb=0x[0-9a-f]+,/],
    ['frame variable tcb->state tcb->localPort', /\(u8\) tcb->state = '\\x03'/, /\(u16\) tcb->localPort = 80/],
    ['print *tcb', /localAddress = 3221225985/, /localPort = 80/],
    ['print tcb->sndNxt', /\(u32\) \d+/],
    ['breakpoint delete 1'],
    ['breakpoint set --name handshakeInput'],
    ['process continue --reverse', /stop reason = breakpoint 2\.1/, /handshakeInput\(interfaceIndex=0/],
    ['breakpoint delete 2'],
    ['watchpoint set expression --watch write --size 4 -- 0x20000', /Watchpoint created/],
    ['process continue --forward', /stop reason = watchpoint 1/, /set:nowNs\(this=0x00020000/],
    ['watchpoint delete 1'],
    ['process plugin packet monitor inics', /> 1 server1 \(halted\)\n {2}2 server2 \(halted\)/],
    ['process plugin packet monitor inic server2', /server2: the next continue/],
    ['continue', /name = 'server2'/],
    ['breakpoint set --name poll'],
    ['continue', /index\/poll/],
    ['detach', /detached/],
  ])
})

withLldb('LLDB on the release build: lines, stack, and the locals that have a value', async (t) => {
  const lookUp = 'const entry = tableFind('
  const line = lineOf('firmware/tcp/input.ts', lookUp, 'tcpInput')
  const script: Script = [
    [`breakpoint set --file input.ts --line ${line}`, /tcpInput.* at input\.ts/],
    ['continue', /stop reason = breakpoint 1\.1/, input(lookUp)],
    ['bt', /frame #1: .*ipv4Deliver/],
    [
      'frame variable',
      /\(u32\) segment = \d+/,
      /\(u32\) headerBytes = (20|32|44)/,
      /\(u32\) entry = <variable not available>/,
    ],
    ['finish', /stop reason = step out/, /ipv4Deliver/],
    ['detach', /detached/],
  ]
  await debug(t, script, 'release')
})

withDwarfdump('DWARF of both builds holds what LLVM asks of it', async (t) => {
  for (const target of ['debug', 'release'] as const) {
    const { artifacts } = await buildFirmware({ directory: packageRoot, target })
    const output = execFileSync(DWARFDUMP, ['--verify', artifacts.debugWasm], { encoding: 'utf8' })
    t.regex(output, /No errors\./)
  }
})
