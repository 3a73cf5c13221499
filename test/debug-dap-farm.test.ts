/** A client that is not ours debugs FIG. 3's farm, and a move of a connection, while real clients are served. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { DebugClient } from '@vscode/debugadapter-testsupport'
import type { DebugProtocol } from '@vscode/debugprotocol'
import test, { type ExecutionContext } from 'ava'
import { packageRoot } from '../toolchain/package-root.ts'
import { startInic } from './support/cli.ts'
import { temporaryDirectory } from './support/tiny-firmware.ts'

const FARM = join(packageRoot, 'examples/farm.json')
const ROAMING = join(packageRoot, 'examples/roaming.json')
const HANDSHAKE = join(packageRoot, 'firmware/tcp/handshake.ts')
const GIVE = join(packageRoot, 'firmware/ipos/give.ts')
const TAKE = join(packageRoot, 'firmware/ipos/take.ts')
const GOODBYE_MS = 3000
/** Steps of the firmware are quick; a machine that is busy with other tests is not. */
const PATIENCE_MS = 60_000

/** Number of the only line of a file that holds this text. */
function lineOf(t: ExecutionContext, file: string, text: string): number {
  const lines = readFileSync(file, 'utf8').split('\n')
  const found = lines.flatMap((line, index) => (line.includes(text) ? [index + 1] : []))
  t.is(found.length, 1, `${text} in ${file}`)
  return found[0]
}

class Editor {
  readonly client: DebugClient
  output = ''

  constructor(client: DebugClient) {
    this.client = client
    client.defaultTimeout = PATIENCE_MS
    client.on('output', ({ body }: DebugProtocol.OutputEvent) => {
      this.output += body.output
    })
  }

  /** Does it, and gives where the farm stops then. */
  async until(run: () => Promise<unknown>, reason: string) {
    const stopped = this.client.waitForEvent('stopped', PATIENCE_MS)
    await run()
    const { body } = (await stopped) as DebugProtocol.StoppedEvent
    if (body.reason !== reason) throw new Error(`stopped for ${body.reason} (${body.description}), not for ${reason}`)
    const threadId = body.threadId!
    const { stackFrames } = (await this.client.stackTraceRequest({ threadId })).body
    return { ...body, threadId, frame: stackFrames[0], stack: stackFrames }
  }

  async breakpoints(path: string, breakpoints: DebugProtocol.SourceBreakpoint[]) {
    return (await this.client.setBreakpointsRequest({ source: { path }, breakpoints })).body.breakpoints
  }

  async variables(frameId: number, scope: string): Promise<Map<string, DebugProtocol.Variable>> {
    const { scopes } = (await this.client.scopesRequest({ frameId })).body
    const { variablesReference } = scopes.find(({ name }) => name === scope)!
    return this.children(variablesReference)
  }

  async children(variablesReference: number): Promise<Map<string, DebugProtocol.Variable>> {
    const { variables } = (await this.client.variablesRequest({ variablesReference })).body
    return new Map(variables.map((variable) => [variable.name, variable]))
  }

  async evaluate(expression: string, frameId: number, context = 'watch'): Promise<string> {
    return (await this.client.evaluateRequest({ expression, frameId, context })).body.result
  }
}

/** `inic debug --dap-port`, and a client that has launched the farm. */
async function launch(t: ExecutionContext, args: object): Promise<Editor> {
  const state = await temporaryDirectory()
  const server = startInic(t, ['debug', '--dap-port', '0'])
  const [, port] = await server.until(/editors connect to 127\.0\.0\.1:(\d+)/)
  return connect(t, Number(port), (client) => client.send('launch', { state, stopOnEntry: true, ...args } as object))
}

async function connect(
  t: ExecutionContext,
  port: number,
  begin: (client: DebugClient) => Promise<unknown>,
): Promise<Editor> {
  const client = new DebugClient('', '', 'inic')
  await client.start(port)
  // One that has disconnected gets no answer any more.
  t.teardown(() => Promise.race([client.stop(), sleep(GOODBYE_MS)]))
  const editor = new Editor(client)
  const initialized = client.waitForEvent('initialized', PATIENCE_MS)
  await client.initializeRequest()
  await begin(client)
  await initialized
  return editor
}

test.serial('FIG. 3: to the line that handles the SYN while a client connects, round it, and back', async (t) => {
  const editor = await launch(t, { farm: FARM, publish: ['0:server1:80'] })
  const { client } = editor
  const synLine = lineOf(t, HANDSHAKE, 'if (tcb == null) return // no memory: the peer tries again') - 1
  const [syn] = await editor.breakpoints(HANDSHAKE, [{ line: synLine, condition: 'tcpDestination == 99' }])
  t.false(syn.verified, 'a condition with a name that is not there')
  t.regex(syn.message ?? '', /tcpDestination/)
  const [verified] = await editor.breakpoints(HANDSHAKE, [{ line: synLine }])
  t.like(verified, { verified: true, line: synLine })
  const entry = await editor.until(() => client.configurationDoneRequest(), 'entry')
  t.is(entry.frame.name, 'between two slices')
  const { threads } = (await client.threadsRequest()).body
  t.deepEqual(
    threads.map(({ name }) => name),
    ['server1', 'server2', 'server3'],
  )

  // The client connects; the farm stops at the line.
  const [, url] = /(http:\/\/127\.0\.0\.1:\d+) → server1:80/.exec(editor.output)!
  const page = fetch(url).then((response) => response.text())
  const atSyn = await editor.until(() => client.continueRequest({ threadId: 1 }), 'breakpoint')
  t.is(threads.find(({ id }) => id === atSyn.threadId)?.name, 'server1')
  t.is(atSyn.frame.line, synLine)
  t.is(atSyn.frame.source?.path, HANDSHAKE)
  t.deepEqual(atSyn.hitBreakpointIds, [verified.id])
  t.true(atSyn.stack.some(({ name }) => name === 'poll'))

  // Locals, and what they lead to.
  const locals = await editor.variables(atSyn.frame.id, 'Locals')
  t.true(locals.has('segment'), [...locals.keys()].join())
  t.is(
    await editor.evaluate('u8[segment + 13] & 0x3f', atSyn.frame.id).then((text) => Number.parseInt(text, 10)),
    2,
    'SYN',
  )
  t.true((await editor.variables(atSyn.frame.id, 'Registers')).size > 10)
  const tables = await editor.variables(atSyn.frame.id, 'Tables')
  t.true((tables.get('tcb')?.indexedVariables ?? 0) > 100)

  // In, out, over.
  const inside = await editor.until(() => client.stepInRequest({ threadId: atSyn.threadId }), 'step')
  t.not(inside.frame.name, atSyn.frame.name)
  const outside = await editor.until(() => client.stepOutRequest({ threadId: atSyn.threadId }), 'step')
  t.is(outside.frame.name.replace(' [inlined]', ''), 'handshakeInput')
  const over = await editor.until(() => client.nextRequest({ threadId: atSyn.threadId }), 'step')
  t.true(over.frame.line > synLine)

  // Back, and on again.
  const back = await editor.until(() => client.send('stepBack', { threadId: atSyn.threadId }), 'step')
  t.true(back.frame.line < over.frame.line)
  await t.throwsAsync(
    client.send('setExpression', { expression: 'tcb[1].sndWnd', value: '1', frameId: back.frame.id }),
    {
      message: /the past/,
    },
  )
  await editor.until(() => client.continueRequest({ threadId: 1 }), 'pause') // the live edge

  // A data breakpoint on the state of every endpoint, a log point, and a frame.
  const info = (await client.send('dataBreakpointInfo', { name: 'tcb[*].state' })).body
  t.truthy(info.dataId)
  await client.send('setDataBreakpoints', { breakpoints: [{ dataId: info.dataId, accessType: 'write' }] })
  const synReceived = await editor.until(() => client.continueRequest({ threadId: 1 }), 'data breakpoint')
  t.regex(synReceived.description ?? '', /SYN-RECEIVED/)
  await client.send('setDataBreakpoints', { breakpoints: [] })
  const establishedLine = lineOf(t, HANDSHAKE, 'export function established(tcb: Tcb, segment: u32): void {') + 1
  await editor.breakpoints(HANDSHAKE, [
    { line: synLine },
    { line: establishedLine, logMessage: 'established: irs {tcb.irs}' },
  ])
  await client.send('setExceptionBreakpoints', {
    filters: ['trap'],
    filterOptions: [{ filterId: 'frame', condition: 'tcp.flags.syn && tcp.flags.ack out on server1' }],
  })
  const synAck = await editor.until(() => client.continueRequest({ threadId: 1 }), 'exception')
  t.regex(synAck.description ?? '', /server1\.\d sends TCP .*:80 → .*\[SYN, ACK\]/)
  const packet = await editor.variables(synAck.frame.id, 'Packet')
  t.regex(packet.get('tcp')?.value ?? '', /\[SYN, ACK\]/)
  const header = await editor.children(packet.get('tcp')!.variablesReference)
  t.is(header.get('srcport')?.value, '80')
  t.is((await client.exceptionInfoRequest({ threadId: synAck.threadId })).body.exceptionId, 'frame')

  // Back to the SYN.
  await client.send('setExceptionBreakpoints', { filters: ['trap'] })
  const again = await editor.until(() => client.send('reverseContinue', { threadId: 1 }), 'breakpoint')
  t.is(again.frame.line, synLine)
  await editor.until(() => client.send('reverseContinue', { threadId: 1 }), 'pause') // nothing before it
  // And forward through it all, to the end of the request.
  await editor.breakpoints(HANDSHAKE, [{ line: establishedLine, logMessage: 'established: irs {tcb.irs}' }])
  await editor.until(() => client.continueRequest({ threadId: 1 }), 'pause')
  await client.continueRequest({ threadId: 1 })
  t.regex(await page, /<html/i)
  // The page comes by another way than what the log point prints.
  for (let n = 0; n < 500 && !editor.output.includes('established'); n++) await sleep(10)
  t.regex(editor.output, /established: irs \d+/)
})

test.serial('one session steps through a move of a connection: giver, taker, and back', async (t) => {
  const editor = await launch(t, { farm: ROAMING, publish: ['0:server1:80', '0:server2:80', '0:server3:80'] })
  const { client } = editor
  await editor.until(() => client.configurationDoneRequest(), 'entry')
  // A server that is not up yet takes nothing.
  await client.continueRequest({ threadId: 1 })
  for (const [, server] of editor.output.matchAll(/(http:\S+) → /g)) {
    while (
      !(await fetch(`${server}/1/0`).then(
        (response) => response.text(),
        () => '',
      ))
    )
      await sleep(10)
  }
  await editor.until(() => client.pauseRequest({ threadId: 1 }), 'pause')
  const [, url] = /(http:\/\/127\.0\.0\.1:\d+) → server1:80/.exec(editor.output)!
  await client.setFunctionBreakpointsRequest({ breakpoints: [{ name: 'firmware/ipos/give/giveByHost' }] })
  const download = fetch(`${url}/100000/1`).then((response) => response.arrayBuffer())
  const giver = await editor.until(() => client.continueRequest({ threadId: 1 }), 'function breakpoint')
  t.is(giver.threadId, 1, 'server1 gives')
  t.is(giver.frame.source?.path, GIVE)

  const acknowledgeLine = lineOf(t, TAKE, 'function acknowledge(to: u32, header: u32): void {') + 1
  await client.setFunctionBreakpointsRequest({
    breakpoints: [{ name: 'firmware/ipos/give/giveByHost' }, { name: 'firmware/ipos/give/giveAcknowledged' }],
  })
  await editor.breakpoints(TAKE, [{ line: acknowledgeLine }])
  const taker = await editor.until(() => client.continueRequest({ threadId: 1 }), 'breakpoint')
  t.is(taker.threadId, 2, 'server2 takes')
  t.is(taker.frame.source?.path, TAKE)
  const acknowledged = await editor.until(() => client.continueRequest({ threadId: 1 }), 'function breakpoint')
  t.is(acknowledged.threadId, 1, 'server1 hears that it is taken')

  const backAtTaker = await editor.until(() => client.send('reverseContinue', { threadId: 1 }), 'breakpoint')
  t.is(backAtTaker.threadId, 2)
  const backAtGiver = await editor.until(() => client.send('reverseContinue', { threadId: 1 }), 'function breakpoint')
  t.is(backAtGiver.threadId, 1)
  t.is(backAtGiver.frame.name, giver.frame.name)

  await client.setFunctionBreakpointsRequest({ breakpoints: [] })
  await editor.breakpoints(TAKE, [])
  await editor.until(() => client.continueRequest({ threadId: 1 }), 'pause') // the live edge
  await client.continueRequest({ threadId: 1 })
  t.is((await download).byteLength, 100_000)
})
