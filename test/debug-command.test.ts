/** `inic debug` as a person and a script use it. */
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { DebugClient } from '@vscode/debugadapter-testsupport'
import test, { type ExecutionContext } from 'ava'
import { packageRoot } from '../toolchain/package-root.ts'
import { inic, type RunningCommand, startInic } from './support/cli.ts'
import { temporaryDirectory } from './support/tiny-firmware.ts'

const FARM = join(packageRoot, 'examples/one-server.json')
const GOODBYE_MS = 3000
const ECHO_FARM = join(packageRoot, 'examples/echo.json')

async function commandFile(...lines: string[]): Promise<string> {
  const file = join(await temporaryDirectory(), 'commands.txt')
  await writeFile(file, lines.join('\n'))
  return file
}

interface RunningFarm {
  readonly farm: RunningCommand
  readonly url: string
  readonly state: string
  /** Options that name it. */
  readonly selection: readonly string[]
}

async function startFarm(t: ExecutionContext): Promise<RunningFarm> {
  const state = await temporaryDirectory()
  const farm = startInic(t, ['run', FARM, '--publish', '0:server1:80', '--state', state])
  const [, url] = await farm.until(/(http:\/\/127\.0\.0\.1:\d+) → server1:80/)
  await farm.until(/listening on port 80/)
  return { farm, url, state, selection: [FARM, '--state', state] }
}

/** An editor, connected to an adapter of its own. */
async function startEditor(t: ExecutionContext): Promise<DebugClient> {
  const server = startInic(t, ['debug', '--dap-port', '0'])
  const [, port] = await server.until(/editors connect to 127\.0\.0\.1:(\d+)/)
  const client = new DebugClient('', '', 'inic')
  client.defaultTimeout = 60_000
  await client.start(Number(port))
  // One that has disconnected gets no answer any more.
  t.teardown(() => Promise.race([client.stop(), sleep(GOODBYE_MS)]))
  return client
}

test.serial('--batch: launches, prints what a person would see, ends the farm', async (t) => {
  const file = await commandFile(
    '# a comment',
    'info threads',
    '',
    'b tcpInput',
    'info breakpoints',
    'p 1 + 1',
    'x/4xb 0x1000',
  )
  const state = await temporaryDirectory()
  const result = await inic(['debug', FARM, '--state', state, '-p', '0:server1:80', '--batch', '-x', file])
  t.is(result.code, 0, result.stderr)
  t.regex(
    result.stdout,
    /^\(inic\) info threads\n\* 1 {3}server1 +halted\n\(inic\) b tcpInput\nBreakpoint 2 at tcpInput, firmware\/tcp\/input\.ts:\d+\n/m,
  )
  t.regex(
    result.stdout,
    /^\(inic\) p 1 \+ 1\n1 \+ 1 = 2\n\(inic\) x\/4xb 0x1000\n0x00001000: {2}0x49 {2}0x4e {2}0x49 {2}0x43\n$/m,
  )
})

test.serial('--batch: an error ends it with code 1', async (t) => {
  const file = await commandFile('b nowhere.ts:x', 'info threads')
  const state = await temporaryDirectory()
  const result = await inic(['debug', FARM, '--state', state, '-p', '0:server1:80', '--batch', '-x', file])
  t.is(result.code, 1)
  t.notRegex(result.stdout, /info threads/)
  t.regex(result.stderr, /a command failed/)
})

test.serial('virtual time: a board program is stepped through', async (t) => {
  const file = await commandFile('b tcpInput', 'c', 'bt', 'fin', 'rs', 'info position', 'd', 'live', 'c')
  const state = await temporaryDirectory()
  const result = await inic(['debug', ECHO_FARM, '--virtual', '--state', state, '--batch', '-x', file])
  t.is(result.code, 0, result.stderr + result.stdout)
  t.regex(result.stdout, /Breakpoint 2, server\d in tcpInput/)
  t.regex(result.stdout, /\(past\); history reaches back to slice \d+/)
})

test.serial('a recording is looked into, at a terminal and by an editor', async (t) => {
  const directory = await temporaryDirectory()
  const recording = join(directory, 'echo.rec')
  const recorded = await inic(['run', ECHO_FARM, '--for', '1ms', '--state', directory, '--record', recording])
  t.is(recorded.code, 0, recorded.stderr)
  const file = await commandFile('info position', 'b tcpInput', 'rc', 'bt', 'rs', 'n', 'live', 'server server2')
  const result = await inic(['debug', '--replay', recording, '--batch', '-x', file])
  t.is(result.code, 0, result.stderr + result.stdout)
  t.regex(result.stdout, /Breakpoint 2, server\d in tcpInput/)
  const refused = await commandFile('set tcb[1].sndWnd = 1')
  const change = await inic(['debug', '--replay', recording, '--batch', '-x', refused])
  t.is(change.code, 1)
  t.regex(change.stdout, /the past cannot be changed/)

  const client = await startEditor(t)
  await client.initializeRequest()
  await t.throwsAsync(client.send('launch', { replay: ECHO_FARM }), {
    message: /cannot be replayed: this is no recording/,
  })
  await client.send('launch', { replay: recording, stopOnEntry: true })
  await client.send('setFunctionBreakpoints', { breakpoints: [{ name: 'tcpInput' }] })
  const entry = client.waitForEvent('stopped')
  await client.configurationDoneRequest()
  await entry
  const stopped = client.waitForEvent('stopped')
  await client.send('reverseContinue', { threadId: 1 })
  t.is((await stopped).body.reason, 'function breakpoint')
})

test.serial('attaches to a farm that runs, which goes on afterwards; one debugger at a time', async (t) => {
  const { farm, url, selection } = await startFarm(t)
  const file = await commandFile('info threads', 'b frame tcp.flags.syn in', 'c', 'info packet', 'd', 'q')
  const debug = startInic(t, ['debug', ...selection, '--attach', '--server', 'server1', '--batch', '-x', file])
  await debug.until(/\(inic\) c\n/)
  const second = await inic(['debug', ...selection, '--batch', '-x', file])
  t.is(second.code, 3)
  t.regex(second.stderr, /being debugged already/)
  const page = fetch(url)
  await debug.until(/receives TCP .*\[SYN\]/)
  const { code, stderr } = await debug.ended
  t.is(code, 0, stderr)
  t.is((await page).status, 200)
  t.is((await fetch(url)).status, 200)
  t.is((await farm.interrupt()).code, 0)
})

test.serial('a debugger that is killed lets the farm go on', async (t) => {
  const { url, selection } = await startFarm(t)
  const file = await commandFile('b tcpInput', 'c')
  const debug = startInic(t, ['debug', ...selection, '-x', file])
  await debug.until(/\(inic\) c\n/)
  const page = fetch(url)
  await debug.until(/Breakpoint 2/)
  debug.child.kill('SIGKILL')
  t.is((await page).status, 200)
})

test.serial('a farm that ends says so to its debugger', async (t) => {
  const { farm, selection } = await startFarm(t)
  const file = await commandFile('c')
  const debug = startInic(t, ['debug', ...selection, '--batch', '-x', file])
  await debug.until(/\(inic\) c\n/)
  const { code, milliseconds } = await farm.interrupt()
  t.is(code, 0)
  t.true(milliseconds < 10_000)
  t.is((await debug.ended).code, 1)
})

test.serial('an editor attaches to a farm that runs, and disconnects from it', async (t) => {
  const { url, state } = await startFarm(t)
  const client = await startEditor(t)
  t.true((await client.initializeRequest()).body?.supportsStepBack)
  await t.throwsAsync(client.send('attach', { farm: FARM, state: await temporaryDirectory() }), {
    message: /no farm is running/,
  })
  const initialized = client.waitForEvent('initialized')
  const sequences: number[] = []
  client.on('process', ({ seq }) => sequences.push(seq))
  client.on('initialized', ({ seq }) => sequences.push(seq))
  await client.send('attach', { farm: FARM, state, stopOnEntry: true })
  await initialized
  t.true(sequences[1] > sequences[0])
  await client.send('setFunctionBreakpoints', { breakpoints: [{ name: 'tcpInput' }] })
  const entry = client.waitForEvent('stopped')
  await client.configurationDoneRequest()
  await entry
  const stopped = client.waitForEvent('stopped')
  await client.continueRequest({ threadId: 1 })
  const page = fetch(url)
  t.is((await stopped).body.reason, 'function breakpoint')
  await client.disconnectRequest()
  t.is((await page).status, 200)
})

test.serial('LLDB is spoken to, by a farm that is started and one that runs', async (t) => {
  const { url, selection } = await startFarm(t)
  for (const args of [
    [...selection, '--attach'],
    [ECHO_FARM, '--virtual', '--state', await temporaryDirectory()],
  ]) {
    const server = startInic(t, ['debug', ...args, '--gdb', '0'])
    const [, port] = await server.until(/connect:\/\/127\.0\.0\.1:(\d+)/)
    for (let connection = 0; connection < 2; connection++) {
      const socket = connect(Number(port))
      socket.write('+$qSupported#37')
      let answer = ''
      await new Promise<void>((resolve, reject) => {
        socket.once('close', () => reject(new Error(`closed after ${answer}`)))
        socket.on('data', (chunk) => {
          answer += String(chunk)
          if (answer.includes('PacketSize=')) resolve()
        })
      })
      const closed = once(socket, 'close')
      socket.end()
      await closed
    }
    t.is((await server.interrupt()).code, 0)
  }
  t.is((await fetch(url)).status, 200)
})

test.serial('nonsense to every front end of a farm that runs, which goes on', async (t) => {
  const { url, state } = await startFarm(t)
  const path = join(state, 'one-server/control.sock')
  const ask = async (frontend: string, text: string) => {
    const socket = connect(path)
    socket.on('error', () => {})
    socket.write(`${JSON.stringify({ id: 1, method: 'debug', params: { frontend } })}\n`)
    const [answer] = await once(socket, 'data')
    t.regex(String(answer), /"result":/)
    const closed = once(socket, 'close')
    socket.resume()
    socket.end(text)
    await closed
  }
  await ask('repl', 'nonsense\n')
  await ask('repl', '{"id":1,"execute":"b tcpInput if ((("}\n{"id":null}\n')
  await ask('repl', 'x'.repeat(100_000))
  await ask('gdb', '+$m0,zz#00$$$$')
  await ask('dap', 'Content-Length: 9999999999\r\n\r\n{{{')
  await ask('dap', `Content-Length: 30\r\n\r\n${'\0'.repeat(30)}`)
  t.is((await fetch(url)).status, 200)
})

const WRONG: Record<string, { args: string[]; code: number; says: RegExp }> = {
  'no farm to attach to': { args: ['--attach'], code: 3, says: /the farm is not running/ },
  '--batch without commands': { args: ['--batch'], code: 2, says: /--batch needs commands/ },
  'a file that is not there': { args: ['-x', '/nonexistent/file'], code: 2, says: /cannot be read/ },
  'a recording that is none': { args: ['--replay', FARM], code: 2, says: /cannot be replayed: this is no recording/ },
  'a recording and a farm': { args: ['--replay', 'x', '--attach'], code: 2, says: /--replay is for the command line/ },
  'two adapters': { args: ['--dap', '--gdb', '1'], code: 2, says: /exclude each other/ },
  'a farm for an editor': { args: [FARM, '--dap'], code: 2, says: /an editor says itself which farm/ },
  'no port': { args: ['--dap-port', '99999'], code: 2, says: /Write a port/ },
  v8: { args: ['--cpu', 'v8'], code: 2, says: /has no debugger/ },
}

for (const [name, { args, code, says }] of Object.entries(WRONG)) {
  test.serial(`refused: ${name}`, async (t) => {
    const result = await inic(['debug', ...args], { env: { INIC_STATE: await temporaryDirectory() } })
    t.is(result.code, code, result.stderr)
    t.regex(result.stderr, says)
  })
}

test.serial('a server that is not there is refused, and the farm goes on', async (t) => {
  const { url, selection } = await startFarm(t)
  const file = await commandFile('info threads')
  const result = await inic(['debug', ...selection, '--server', 'server9', '--batch', '-x', file])
  t.is(result.code, 2)
  t.regex(result.stderr, /no server 'server9'\s+did you mean 'server1'\?/)
  t.is((await fetch(url)).status, 200)
})
