import { PassThrough } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { DebugClient } from '@vscode/debugadapter-testsupport'
import type { DebugProtocol } from '@vscode/debugprotocol'
import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import type { DapHost } from '../toolchain/debug/dap/adapter.ts'
import { CAPABILITIES } from '../toolchain/debug/dap/capabilities.ts'
import { serveDap } from '../toolchain/debug/dap/serve.ts'
import { encodeMessage, MAXIMUM_MESSAGE_BYTES, MessageReader } from '../toolchain/debug/dap/wire.ts'
import { anyRequest, lifeCycleRequest, nearlyRightRequest } from './support/dap-requests.ts'
import { DebugKit } from './support/debug-kit.ts'
import { FakeSession } from './support/fake-session.ts'

class StreamClient extends DebugClient {
  constructor(output: PassThrough, input: PassThrough) {
    super('', '', 'inic')
    this.connect(output, input)
  }
}

/** An adapter over a scripted session, and the streams to it. */
function serveFake() {
  const session = new FakeSession()
  const ended: string[] = []
  const target = {
    session,
    farm: 'farm',
    launched: true,
    published: ['http://127.0.0.1:8080 → server1:80'],
    end: async () => void ended.push('end'),
  }
  const host: DapHost = { launch: async () => target, attach: async () => ({ ...target, launched: false }) }
  const [input, output] = [new PassThrough(), new PassThrough()]
  const server = serveDap(input, output, host)
  return { session, input, output, server, ended }
}

async function startFake(t: ExecutionContext, { launch = {} as object, halted = true } = {}) {
  const fake = serveFake()
  const client = new StreamClient(fake.output, fake.input)
  t.teardown(() => fake.server.end())
  const initialized = client.waitForEvent('initialized')
  await client.initializeRequest()
  await client.send('launch', { stopOnEntry: halted, ...launch })
  await initialized
  return { ...fake, client }
}

async function configured(t: ExecutionContext) {
  const started = await startFake(t)
  const stopped = started.client.waitForEvent('stopped')
  await started.client.configurationDoneRequest()
  await stopped
  return started
}

test('capabilities are those of the requests that are answered', async (t) => {
  const { client } = await configured(t)
  const requests: Partial<Record<keyof DebugProtocol.Capabilities, string>> = {
    supportsConfigurationDoneRequest: 'configurationDone',
    supportsFunctionBreakpoints: 'setFunctionBreakpoints',
    supportsInstructionBreakpoints: 'setInstructionBreakpoints',
    supportsDataBreakpoints: 'dataBreakpointInfo',
    supportsBreakpointLocationsRequest: 'breakpointLocations',
    supportsExceptionInfoRequest: 'exceptionInfo',
    supportsSetVariable: 'setVariable',
    supportsSetExpression: 'setExpression',
    supportsCompletionsRequest: 'completions',
    supportsStepBack: 'stepBack',
    supportsDisassembleRequest: 'disassemble',
    supportsReadMemoryRequest: 'readMemory',
    supportsWriteMemoryRequest: 'writeMemory',
    supportsModulesRequest: 'modules',
    supportsLoadedSourcesRequest: 'loadedSources',
    supportsRestartRequest: 'restart',
    supportsTerminateRequest: 'terminate',
    supportsCancelRequest: 'cancel',
    supportsGotoTargetsRequest: 'gotoTargets',
    supportsRestartFrame: 'restartFrame',
    supportsStepInTargetsRequest: 'stepInTargets',
    supportsTerminateThreadsRequest: 'terminateThreads',
  }
  for (const [capability, command] of Object.entries(requests)) {
    if (command === 'restart' || command === 'terminate') continue
    const error = await client.send(command, {}).then(
      () => '',
      (reason: Error) => reason.message,
    )
    t.is(
      !/there is no request/.test(error),
      CAPABILITIES[capability as keyof DebugProtocol.Capabilities] === true,
      command,
    )
  }
})

test('launch, entry, threads, modules, sources', async (t) => {
  const { client } = await configured(t)
  const { threads } = (await client.threadsRequest()).body
  t.deepEqual(threads, [
    { id: 1, name: 'server1' },
    { id: 2, name: 'server2' },
  ])
  const { modules } = (await client.modulesRequest({})).body
  t.is(modules[0].version, '0.1.0 (release)')
  const { sources } = (await client.send('loadedSources')).body
  t.true(sources[0].path.endsWith('/firmware/tcp/input.ts'))
  t.true(sources[2].sourceReference > 0, 'a source of the library is sent')
  const { content } = (await client.send('source', { source: sources[2] })).body
  t.regex(content, /export/)
})

test('call stack in pages, scopes, variables in pages', async (t) => {
  const { client } = await configured(t)
  const all = (await client.stackTraceRequest({ threadId: 1 })).body
  t.is(all.totalFrames, 3)
  t.deepEqual(
    all.stackFrames.map(({ name, line }) => `${name} ${line}`),
    ['parseOptions [inlined] 90', 'tcpInput 70', 'poll 20'],
  )
  const page = (await client.stackTraceRequest({ threadId: 1, startFrame: 1, levels: 1 })).body
  t.deepEqual(page.stackFrames, [all.stackFrames[1]])
  const { scopes } = (await client.scopesRequest({ frameId: all.stackFrames[0].id })).body
  t.deepEqual(
    scopes.map(({ name }) => name),
    ['Locals', 'Registers', 'Tables', 'Machine'],
  )
  const tables = (await client.variablesRequest({ variablesReference: scopes[2].variablesReference })).body.variables
  t.is(tables[0].indexedVariables, 300)
  const rows = (
    await client.variablesRequest({
      variablesReference: tables[0].variablesReference,
      filter: 'indexed',
      start: 290,
      count: 100,
    })
  ).body.variables
  t.deepEqual([rows.length, rows[0].name], [10, '[290]'])
  const locals = (
    await client.variablesRequest({ variablesReference: scopes[0].variablesReference, format: { hex: true } })
  ).body.variables
  t.deepEqual(locals[1].presentationHint, { attributes: ['readOnly'] })
  t.is(locals[1].memoryReference, '0x100000100')
  const between = (await client.stackTraceRequest({ threadId: 2 })).body.stackFrames
  t.is(between[0].name, 'between two slices')
  t.is((await client.scopesRequest({ frameId: between[0].id })).body.scopes[0].name, 'Registers')
})

test('breakpoints keep their ids, and a bad one does not harm the others', async (t) => {
  const { client, session } = await configured(t)
  const source = { path: '/project/firmware/tcp/input.ts' }
  const set = async (breakpoints: DebugProtocol.SourceBreakpoint[]) =>
    (await client.setBreakpointsRequest({ source, breakpoints })).body.breakpoints
  const [first, bad] = await set([{ line: 90 }, { line: 91, condition: 'nonsense(' }])
  t.true(first.verified)
  t.is(first.line, 90)
  t.like(bad, { verified: false, message: 'column 9: an expression is missing' })
  const [changed, same] = await set([{ line: 91, logMessage: 'seq {seq}', hitCondition: '% 2' }, { line: 90 }])
  t.is(same.id, first.id)
  t.not(changed.id, first.id)
  t.deepEqual(await set([]), [])
  t.deepEqual(
    session.breakpoints.map(({ spec }) => spec.kind),
    ['exception'],
  )
  const unknown = await client.setBreakpointsRequest({ source: { path: '/else.ts' }, breakpoints: [{ line: 1 }] })
  t.like(unknown.body.breakpoints![0], { verified: false, message: 'no code comes from this file' })
})

test('exception filters: kinds of failure, and things of the field with conditions', async (t) => {
  const { client, session } = await configured(t)
  const { body }: DebugProtocol.Response = await client.send('setExceptionBreakpoints', {
    filters: ['trap'],
    filterOptions: [
      { filterId: 'frame', condition: 'tcp.flags.syn in on server1' },
      { filterId: 'tcp-state', condition: 'SYN-RECEIVED -> ESTABLISHED' },
      { filterId: 'row', condition: 'tcb both' },
      { filterId: 'nonsense' },
    ],
  })
  t.deepEqual(
    body.breakpoints.map(({ verified }: DebugProtocol.Breakpoint) => verified),
    [true, true, true, false, false],
  )
  t.deepEqual(
    session.breakpoints.map(({ spec }) => spec),
    [
      { kind: 'exception', filter: 'trap' },
      { kind: 'frame', filter: 'tcp.flags.syn', port: 'server1', direction: 'in' },
      { kind: 'tcp-state', from: 'SYN-RECEIVED', to: 'ESTABLISHED' },
    ],
  )
  const stopped = client.waitForEvent('stopped')
  session.script.push({ reason: 'frame', text: 'server1 receives a SYN', breakpoints: [3] })
  await client.continueRequest({ threadId: 1 })
  t.like((await stopped).body, { reason: 'exception', description: 'server1 receives a SYN', threadId: 1 })
  t.like((await client.exceptionInfoRequest({ threadId: 1 })).body, { exceptionId: 'frame', breakMode: 'always' })
})

const RUNNING: Record<string, [string, object, string]> = {
  continue: ['continue', {}, 'continue'],
  next: ['next', {}, 'step 1 over'],
  'next by instruction': ['next', { granularity: 'instruction' }, 'step 1 instruction-over'],
  stepIn: ['stepIn', { granularity: 'line' }, 'step 1 in'],
  stepOut: ['stepOut', {}, 'step 1 out'],
  stepBack: ['stepBack', {}, 'stepBack 1 over'],
  'stepBack by instruction': ['stepBack', { granularity: 'instruction' }, 'stepBack 1 instruction-over'],
  reverseContinue: ['reverseContinue', {}, 'reverseContinue'],
}

for (const [name, [command, args, call]] of Object.entries(RUNNING)) {
  test(`runs: ${name}`, async (t) => {
    const { client, session, output } = await configured(t)
    session.script.push({})
    const order: string[] = []
    const reader = new MessageReader({
      message: (message) => void order.push((message as DebugProtocol.Event).event ?? 'answer'),
      nonsense: t.fail,
    })
    output.on('data', (chunk: Buffer) => reader.push(chunk))
    const stopped = client.waitForEvent('stopped')
    await client.send(command, { threadId: 1, ...args })
    await stopped
    t.deepEqual(order, ['answer', 'continued', 'stopped'])
    t.is(session.calls.at(-1), call)
    await t.throwsAsync(client.send(command, { threadId: 9, ...args }), { message: /there is no thread 9/ })
  })
}

test('while it runs: looking is refused, pause halts, old references are gone', async (t) => {
  const { client } = await configured(t)
  const { stackFrames } = (await client.stackTraceRequest({ threadId: 1 })).body
  await client.continueRequest({ threadId: 1 })
  await t.throwsAsync(client.stackTraceRequest({ threadId: 1 }), { message: /the farm runs/ })
  await t.throwsAsync(client.continueRequest({ threadId: 1 }), { message: /the farm runs/ })
  await t.throwsAsync(client.evaluateRequest({ expression: 'x', context: 'watch' }), { message: /the farm runs/ })
  t.is((await client.threadsRequest()).body.threads.length, 2)
  const stopped = client.waitForEvent('stopped')
  await client.pauseRequest({ threadId: 1 })
  t.is((await stopped).body.reason, 'pause')
  await t.throwsAsync(client.scopesRequest({ frameId: stackFrames[0].id }), { message: /earlier stop/ })
})

test('memory: read to its end, written, watched, disassembled', async (t) => {
  const { client, session } = await configured(t)
  const read = async (memoryReference: string, count: number, offset = 0) =>
    (await client.send('readMemory', { memoryReference, count, offset })).body
  t.deepEqual(await read('0x100000010', 4), { address: '0x100000010', data: 'EBESEw==' })
  t.deepEqual(await read('0x10', 2, 2), { address: '0x100000012', data: 'EhM=' })
  t.is((await read('0x10000fffe', 8)).unreadableBytes, 6)
  t.is((await read('0x10', 8, -32)).unreadableBytes, 8)
  await t.throwsAsync(read('0x900000010', 4), { message: /there is no INIC 9/ })
  await t.throwsAsync(read('here', 4), { message: /is no address/ })
  await t.throwsAsync(read('0x10', 1e9), { message: /'count' must be/ })
  const invalidated = client.waitForEvent('invalidated')
  await client.send('writeMemory', { memoryReference: '0x100000020', data: '//8=' })
  await invalidated
  t.deepEqual([...session.memory.subarray(0x1f, 0x23)], [0x1f, 0xff, 0xff, 0x22])
  await t.throwsAsync(client.send('writeMemory', { memoryReference: '0x10000ffff', data: '//8=' }), {
    message: /memory ends/,
  })
  await t.throwsAsync(client.send('writeMemory', { memoryReference: '0x20', data: '%%' }), { message: /no base64/ })

  const rows = (
    await client.disassembleRequest({ memoryReference: '0x100000008', instructionOffset: -6, instructionCount: 10 })
  ).body!.instructions
  t.is(rows.length, 10)
  t.deepEqual([rows[1].presentationHint, rows[6].address], ['invalid', '0x100000008'])

  const info = (await client.send('dataBreakpointInfo', { name: 'state' })).body
  const { breakpoints } = (
    await client.send('setDataBreakpoints', {
      breakpoints: [{ dataId: info.dataId, accessType: 'readWrite' }, { dataId: '?' }],
    })
  ).body
  t.deepEqual(session.breakpoints.at(-1)?.spec, {
    kind: 'watch',
    expression: 'u32[0x40]',
    access: 'access',
    threads: [1],
  })
  t.false(breakpoints[1].verified)
})

test('evaluate, completions, setExpression, commands of the REPL', async (t) => {
  const { client, session } = await configured(t)
  const evaluate = async (expression: string, context = 'watch') =>
    (await client.evaluateRequest({ expression, context })).body
  t.like(await evaluate('sndNxt'), { result: '0x1234', type: 'u32' })
  await t.throwsAsync(evaluate('state = 1'), { message: /an assignment is not evaluated here/ })
  t.regex((await evaluate('`bt', 'repl')).result, /#1 {2}tcpInput/)
  await t.throwsAsync(evaluate('`nonsense', 'repl'), { message: /there is no command/ })
  await evaluate('`b tcpInput', 'repl')
  t.is(session.breakpoints.at(-1)?.spec.kind, 'function')
  const targets = async (text: string) =>
    (await client.completionsRequest({ text, column: text.length + 1 })).body.targets.map(({ label }) => label)
  t.deepEqual(await targets('tcb[3].snd'), ['sndNxt', 'sndUna'])
  t.deepEqual(await targets('`info th'), ['`info threads'])
  t.is((await client.send('setExpression', { expression: 'state', value: '3' })).body.value, '3')
  t.is(session.calls.at(-1), 'assign state = 3')
})

test('restart keeps the breakpoints; disconnect ends a farm that was launched', async (t) => {
  const { client, session, ended, server } = await configured(t)
  await client.setBreakpointsRequest({ source: { path: 'tcp/input.ts' }, breakpoints: [{ line: 90 }] })
  const stopped = client.waitForEvent('stopped')
  await client.restartRequest({})
  await stopped
  t.deepEqual(ended, ['end'])
  t.is(session.breakpoints.filter(({ spec }) => spec.kind === 'source').length, 1)
  await client.disconnectRequest()
  await server.done
  t.deepEqual(ended, ['end', 'end'])
})

test('a client that is gone ends its session', async (t) => {
  const { input, ended, server } = await startFake(t)
  input.end()
  await server.done
  t.deepEqual(ended, ['end'])
})

test('lines and columns as the client counts them', async (t) => {
  const fake = serveFake()
  const client = new StreamClient(fake.output, fake.input)
  t.teardown(() => fake.server.end())
  await client.initializeRequest({ adapterID: 'inic', linesStartAt1: false, columnsStartAt1: false })
  await client.send('attach', {})
  const source = { path: 'tcp/input.ts' }
  const { breakpoints } = (await client.setBreakpointsRequest({ source, breakpoints: [{ line: 89, column: 2 }] })).body
  t.like(breakpoints[0], { line: 89, column: 2 })
  t.deepEqual(fake.session.breakpoints.at(-1)?.spec, { kind: 'source', file: 'tcp/input.ts', line: 90, column: 3 })
})

test('requests before there is a farm, twice, and unknown ones are refused', async (t) => {
  const fake = serveFake()
  const client = new StreamClient(fake.output, fake.input)
  t.teardown(() => fake.server.end())
  await t.throwsAsync(client.threadsRequest(), { message: /launch or attach comes first/ })
  await t.throwsAsync(client.send('configurationDone'), { message: /launch or attach comes first/ })
  await client.send('attach', {})
  await t.throwsAsync(client.send('launch', {}), { message: /there is a farm already/ })
  await t.throwsAsync(client.send('restart', {}), { message: /is not started again/ })
  await t.throwsAsync(client.send('format'), { message: /there is no request 'format'/ })
})

// ── bytes ──

function readAll(chunks: readonly Buffer[]) {
  const messages: unknown[] = []
  const nonsense: string[] = []
  const reader = new MessageReader({ message: (m) => messages.push(m), nonsense: (reason) => nonsense.push(reason) })
  for (const chunk of chunks) reader.push(chunk)
  return { messages, nonsense }
}

test('messages come through however the bytes are cut', (t) => {
  fc.assert(
    fc.property(
      fc.array(fc.json().map((json) => ({ json }))),
      fc.infiniteStream(fc.integer({ min: 1, max: 40 })),
      (messages, cuts) => {
        const bytes = Buffer.concat(messages.map(encodeMessage))
        const chunks: Buffer[] = []
        for (let at = 0; at < bytes.length; ) {
          const { value } = cuts.next()
          chunks.push(bytes.subarray(at, at + value))
          at += value
        }
        t.deepEqual(readAll(chunks), { messages, nonsense: [] })
      },
    ),
  )
})

const BAD_BYTES: Record<string, string> = {
  'no header': 'hello, adapter\r\n\r\n',
  'no length': 'Content-Type: json\r\n\r\n',
  'a negative length': 'Content-Length: -5\r\n\r\n',
  'a length beyond the limit': `Content-Length: ${MAXIMUM_MESSAGE_BYTES + 1}\r\n\r\n`,
  'a length beyond numbers': `Content-Length: ${'9'.repeat(400)}\r\n\r\n`,
  'no JSON': 'Content-Length: 5\r\n\r\n{"a":',
  'a header without an end': 'x'.repeat(10_000),
}

for (const [name, text] of Object.entries(BAD_BYTES)) {
  test(`nonsense is told, and the next message is read: ${name}`, (t) => {
    const { messages, nonsense } = readAll([Buffer.from(text), encodeMessage({ seq: 1 })])
    t.deepEqual(messages, [{ seq: 1 }])
    t.true(nonsense.length > 0)
  })
}

/** Sends them all, and gives the answers by the numbers of their requests. */
async function answersTo(
  t: ExecutionContext,
  { input, output }: Pick<ReturnType<typeof serveFake>, 'input' | 'output'>,
  items: readonly unknown[],
): Promise<Map<number, DebugProtocol.Response>> {
  const answers = new Map<number, DebugProtocol.Response>()
  const reader = new MessageReader({
    message: (message) => {
      const response = message as DebugProtocol.Response
      if (response.type === 'response') answers.set(response.request_seq, response)
    },
    nonsense: t.fail,
  })
  output.on('data', (chunk: Buffer) => reader.push(chunk))
  const expected = new Set<number>()
  const send = (message: object | null) => {
    const { type, seq, command } = (message ?? {}) as Partial<DebugProtocol.Request>
    if (type === 'request' && Number.isSafeInteger(seq) && typeof command === 'string' && command.length <= 100)
      expected.add(seq!)
    input.write(encodeMessage(message as object))
  }
  send({ type: 'request', seq: 2 ** 40, command: 'attach' })
  for (const item of items) {
    if (item instanceof Uint8Array) input.write(item)
    else {
      const text = JSON.stringify(item)
      if (text !== undefined) send(JSON.parse(text))
    }
  }
  send({ type: 'request', seq: 2 ** 41, command: 'threads' })
  const missing = () => [...expected].filter((seq) => !answers.has(seq))
  for (let turn = 0; turn < 2000 && missing().length > 0; turn++) await sleep(1)
  t.deepEqual(missing(), [])
  for (const { message } of answers.values()) t.notRegex(message ?? '', /a defect of inic/)
  return answers
}

const anything = fc.oneof(anyRequest, nearlyRightRequest, fc.anything(), fc.uint8Array())

test('whatever comes in, every request is answered, and the adapter goes on', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(anything, { maxLength: 20 }), async (items) => {
      const fake = serveFake()
      await answersTo(t, fake, items)
      fake.server.end()
      await fake.server.done
    }),
    { numRuns: 300 },
  )
})

test('beginnings and ends in any order leave nothing behind', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(lifeCycleRequest, { maxLength: 12 }), fc.boolean(), async (items, isEnded) => {
      const { input, output, server, session } = serveFake()
      output.resume()
      for (const item of items) input.write(encodeMessage(item))
      if (isEnded) input.end()
      else server.end()
      await server.done
      await sleep(1)
      t.is(session.listenerCount('stopped'), 0)
    }),
    { numRuns: 200 },
  )
})

test('whatever comes in, a farm under the real engine goes on', async (t) => {
  const kit = new DebugKit({ servers: 2 })
  t.teardown(() => kit.close())
  kit.listen()
  await kit.run(5)
  const { session } = kit
  const target = { session, farm: 'farm', launched: false, published: [], end: async () => {} }
  await fc.assert(
    fc.asyncProperty(fc.array(nearlyRightRequest, { minLength: 5, maxLength: 25 }), async (items) => {
      await session.pause()
      for (const { id, spec } of session.breakpoints) if (spec.kind !== 'exception') session.removeBreakpoint(id)
      void kit.goFor(1)
      void kit.ask()
      const [input, output] = [new PassThrough(), new PassThrough()]
      const server = serveDap(input, output, { launch: async () => target, attach: async () => target })
      const answers = await answersTo(t, { input, output }, items)
      t.true(answers.get(2 ** 40)?.success)
      server.end()
      await server.done
    }),
    { numRuns: 100 },
  )
  await session.pause()
  for (const { id } of session.breakpoints) session.removeBreakpoint(id)
  if (!session.position.live) await session.goLive()
  const answer = kit.ask()
  await session.detach()
  await kit.goFor(50)
  t.is(await answer, 'hello from the farm')
})
