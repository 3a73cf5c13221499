/** The gdb-remote front end by its packets, over a session that stops where the test says. With LLDB itself: debug-lldb.test.ts. */
import { readFile } from 'node:fs/promises'
import test from 'ava'
import fc from 'fast-check'
import { serveGdb } from '../toolchain/debug/gdb/index.ts'
import { encodePacket, MAXIMUM_PACKET_BYTES } from '../toolchain/debug/gdb/packet.ts'
import { artifacts } from '../toolchain/firmware/artifacts.ts'
import { buildFirmware } from '../toolchain/firmware/build.ts'
import { readWasmModule } from '../toolchain/firmware/wasm-module.ts'
import { FakeDebugSession } from './support/fake-debug-session.ts'
import { GdbClient } from './support/gdb-client.ts'
import { tinyFirmware } from './support/tiny-firmware.ts'

const RUNS = Number(process.env.INIC_FUZZ_GDB ?? 300)

const project = await tinyFirmware()
await buildFirmware({ directory: project, target: 'debug' })
const wasm = await readFile(artifacts(project, 'debug').wasm)
const { code, codeStart } = readWasmModule(wasm)
/** Some instruction of `poll`. */
const PC = code[code.length - 1].start + 3

const hex = (text: string) => Buffer.from(text).toString('hex')
const codeAddress = (offset: number) => (0x4000000000000000n + BigInt(offset)).toString(16)
const register = (offset: number) => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(0x4000000000000000n + BigInt(offset))
  return bytes.toString('hex')
}

function connect(options: { monitor?: (line: string) => Promise<string> } = {}) {
  const session = new FakeDebugSession({ wasm })
  session.stacks.set(1, [
    {
      pc: PC,
      locals: [
        ['i32', -2],
        ['i64', 81985529216486895n],
        ['f32', 1.5],
        ['f64', Number.NaN],
        ['v128', 2n ** 128n - 1n],
        ['ref', 0],
      ],
      stack: [
        ['i32', 1],
        ['i32', 2],
      ],
      inlined: 2,
    },
    { pc: PC + 9, locals: [['i32', 7]] },
  ])
  session.memory.set([0xde, 0xad, 0x23, 0x7d], 0x100)
  const client = new GdbClient()
  const server = serveGdb(session, client.far, { projects: [project], ...options })
  const end = new Promise<string>((resolve) => server.once('end', resolve))
  return { session, client, server, end }
}

/** Request and answer; a regular expression where the answer has more than matters. */
const EXCHANGES: Record<string, [string, string | RegExp][]> = {
  'what is not known gets the empty answer': [
    ['qNothingOfTheKind', ''],
    ['vMustReplyEmpty', ''],
    ['jThreadsInfo', ''],
    ['QThreadSuffixSupported', ''],
  ],
  'what the server can': [
    ['qSupported:xmlRegisters=i386', /^PacketSize=20000;.*qXfer:libraries:read\+.*ReverseContinue\+/],
    ['vCont?', 'vCont;c;C;s;S'],
    ['qAttached', '1'],
    ['QListThreadsInStopReply', 'OK'],
    ['qGDBServerVersion', /^name:inic;version:/],
  ],
  'host and process are WebAssembly of 32 bits': [
    ['qHostInfo', /^triple:7761736d33322d[0-9a-f]+;endian:little;ptrsize:4;/],
    ['qProcessInfo', /^pid:1;triple:7761736d33322d[0-9a-f]+;endian:little;ptrsize:4;$/],
  ],
  'the pc is the only register': [
    ['qRegisterInfo0', /^name:pc;.*bitsize:64;.*generic:pc;$/],
    ['qRegisterInfo1', 'E45'],
    ['p0', register(PC)],
    ['p0;thread:1;', register(PC)],
    ['g', register(PC)],
    ['p1', 'E16'],
    ['P0=00', 'E26'],
    ['G00', 'E26'],
  ],
  'two threads: the INIC that stopped, and the rest of the farm': [
    ['?', /^T02thread:1;name:server1;threads:1,2;00:[0-9a-f]{16};description:706175736564;$/],
    ['qC', 'QC1'],
    ['qfThreadInfo', 'm1,2'],
    ['qsThreadInfo', 'l'],
    ['qThreadExtraInfo,1', hex('server1')],
    ['qThreadStopInfo1', /^T02thread:1;/],
    ['qThreadStopInfo2', `T00thread:2;name:rest of the farm;00:${register(0)};`],
    ['qThreadExtraInfo,2', hex('rest of the farm')],
    ['T1', 'OK'],
    ['T2', 'OK'],
    ['T3', 'E0e'],
    ['Hg1', 'OK'],
    ['Hc-1', 'OK'],
    ['Hg0', 'OK'],
    ['Hgp1.1', 'OK'],
    ['Hg2', 'OK'],
    ['Hg3', 'E0e'],
    ['Hgx', 'E16'],
  ],
  'the call stack is one of wasm functions, with the way out of the slice at its end': [
    ['qWasmCallStack:1', register(PC) + register(PC + 9) + register(4)],
    ['qWasmCallStack:2', register(0)],
    ['qWasmCallStack:3', 'E0e'],
    ['qWasmCallStack:', 'E16'],
  ],
  'locals, operands from the top, constants': [
    ['qWasmLocal:0;0', 'feffffff'],
    ['qWasmLocal:0;1', 'efcdab8967452301'],
    ['qWasmLocal:0;2', '0000c03f'],
    ['qWasmLocal:0;3', '000000000000f87f'],
    ['qWasmLocal:0;4', 'ff'.repeat(16)],
    ['qWasmLocal:0;5', 'E0e'],
    ['qWasmLocal:1;0', '07000000'],
    ['qWasmLocal:2;0', 'E0e'],
    ['qWasmLocal:0;6', 'E0e'],
    ['qWasmLocal:0', 'E16'],
    ['qWasmLocal:0;-1', 'E16'],
    ['qWasmStackValue:0;0', '02000000'],
    ['qWasmStackValue:0;1', '01000000'],
    ['qWasmStackValue:0;2', 'E0e'],
    ['qWasmGlobal:0;0', '00000200'],
    ['qWasmGlobal:0;99', 'E26'],
  ],
  'memory is read in hex and in binary, as far as it goes': [
    ['m100,4', 'dead237d'],
    ['mfffe,10', '0000'],
    ['m10000,1', 'E0e'],
    ['m100000000,1', 'E16'],
    ['x100,4', 'b\xde\xad\x23\x7d'],
    ['x0,0', 'b'],
    ['m100', 'E16'],
    ['m100,', 'E16'],
    ['m,4', 'E16'],
    ['m100,4,4', 'E16'],
    ['mffffffffffffffff,4', 'E16'],
    ['m10000000000000000,4', 'E16'],
  ],
  'memory is written in hex and in binary': [
    ['M200,3:010203', 'OK'],
    ['m200,3', '010203'],
    ['X200,2:\x23\x7d', 'OK'],
    ['m200,3', '237d03'],
    ['X200,0:', 'OK'],
    ['M200,3:0102', 'E16'],
    ['M200,3', 'E16'],
    ['M200,1:zz', 'E16'],
    ['Mffff,2:0102', 'E0e'],
    [`M${codeAddress(PC)},1:00`, 'E0e'],
  ],
  'code is read by its offset in the file': [
    [`m${codeAddress(0)},8`, '0061736d01000000'],
    [`m${codeAddress(0xffffffff)},1`, 'E0e'],
    ['m4000000100000000,4', 'E0e'],
    ['m8000000000000000,4', 'E16'],
  ],
  'the list of modules, in windows': [
    [
      'qXfer:libraries:read::0,1000',
      `l<library-list><library name="firmware.wasm"><section address="${0x4000000000000000n}"/></library></library-list>`,
    ],
    ['qXfer:libraries:read::0,8', 'm<library'],
    ['qXfer:libraries:read::1000,8', 'l'],
    ['qXfer:libraries:read::0', 'E16'],
  ],
  'breakpoints by address': [
    [`Z0,${codeAddress(PC)},1`, 'OK'],
    [`Z0,${codeAddress(PC)},1`, 'OK'],
    [`z0,${codeAddress(PC)},1`, 'OK'],
    [`z0,${codeAddress(PC)},1`, 'OK'],
    [`Z1,${codeAddress(PC)},1`, 'OK'],
    [`Z0,${codeAddress(0xfffffff)},1`, 'E0e'],
    ['Z0,100,1', 'E0e'],
    ['Z0,4000000100000010,1', 'E0e'],
    ['Z0', 'E16'],
    ['Z7,100,4', ''],
    ['z0,zz,1', 'E16'],
  ],
  'watchpoints on INIC memory': [
    ['Z2,100,4', 'OK'],
    ['Z3,100,8', 'OK'],
    ['Z4,100,1', 'OK'],
    ['z2,100,4', 'OK'],
    ['Z2,100,3', 'E0e'],
    [`Z2,${codeAddress(PC)},4`, 'E0e'],
    ['qWatchpointSupportInfo:', 'num:64;'],
  ],
  'errors have a text for who wants one': [
    ['m10000,1', 'E0e'],
    ['QEnableErrorStrings', 'OK'],
    ['m10000,1', `E0e;${hex('nothing is at that address')}`],
    ['vCont;x', `E16;${hex('x is no action')}`],
  ],
  'there is nowhere to go but on': [
    ['c100', 'E26'],
    ['s100', 'E26'],
    ['vCont;', 'E16'],
    ['vCont;t', 'E16'],
    ['vCont;s:3', 'E16'],
    ['vCont;s:2', `T05thread:2;name:rest of the farm;00:${register(0)};threads:1,2;reason:trace;`],
  ],
  'monitor commands that are none': [
    [`qRcmd,${hex('inic server9')}`, 'E0e'],
    [`qRcmd,${hex('dance')}`, 'E0e'],
    ['qRcmd,0', 'E16'],
  ],
}

for (const [name, exchanges] of Object.entries(EXCHANGES)) {
  test(name, async (t) => {
    const { client, server, end } = connect()
    for (const [request, expected] of exchanges) {
      const answer = await client.ask(request)
      if (typeof expected === 'string') t.is(answer, expected, request)
      else t.regex(answer, expected, request)
    }
    server.close()
    await end
  })
}

/** What is sent, what the session is asked, how it stops, and what is answered. */
const RUNS_AND_STOPS: Record<string, [string, string, Parameters<FakeDebugSession['stopAt']>, RegExp]> = {
  continue: ['c', 'continue', ['pause', { text: 'paused' }], /^T02thread:1;.*description:706175736564;$/],
  'continue of all threads': ['vCont;c', 'continue', ['step'], /^T05.*reason:trace;$/],
  'continue with a signal': ['vCont;C05:1', 'continue', ['step'], /^T05.*reason:trace;$/],
  'one instruction': ['s', 'step 1 instruction', ['step'], /^T05.*reason:trace;$/],
  'one instruction of this thread': ['vCont;s:1', 'step 1 instruction', ['step'], /^T05.*reason:trace;$/],
  'one instruction of this thread, by process': ['vCont;s:p1.1', 'step 1 instruction', ['step'], /^T05/],
  'one instruction, over a call, as the rest may run': ['vCont;c:2;s:1', 'step 1 instruction-over', ['step'], /^T05/],
  'the same, the other way round': ['vCont;s:1;c', 'step 1 instruction-over', ['step'], /^T05/],
  'another thread is passed over': ['vCont;s:2;c', 'continue', ['step'], /^T05/],
  'back to the stop before': [
    'bc',
    'reverseContinue',
    ['history', { text: 'the beginning' }],
    /reason:history boundary;/,
  ],
  'one instruction back': ['bs', 'stepBack 1 instruction', ['step'], /^T05.*reason:trace;$/],
  'a trap': [
    'c',
    'continue',
    ['exception', { text: 'about to trap' }],
    /^T0b.*reason:exception;description:61626f7574/,
  ],
  'a frame that matches': ['c', 'continue', ['frame', { text: 'SYN' }], /^T05.*reason:exception;description:53594e;$/],
  'in another INIC': ['c', 'continue', ['step', { thread: 2 }], /^T05thread:1;name:server2;threads:1,2;/],
}

for (const [name, [request, call, stop, expected]] of Object.entries(RUNS_AND_STOPS)) {
  test(`running: ${name}`, async (t) => {
    const { client, session, server, end } = connect()
    await client.ask('?')
    const answer = client.ask(request)
    while (!session.calls.includes(call)) await new Promise(setImmediate)
    session.stopAt(...stop)
    t.regex(await answer, expected)
    server.close()
    await end
  })
}

test('a farm that runs is halted first, and runs on after a detach', async (t) => {
  const { client, session, end } = connect()
  t.is(session.state, 'running')
  t.regex(await client.ask('?'), /^T02/)
  t.is(await client.ask('D'), 'OK')
  await client.ended
  t.is(await end, 'detached')
  t.deepEqual(session.calls, ['pause', 'detach'])
  t.is(session.state, 'running')
})

for (const [name, hangUp] of Object.entries({
  'a debugger that hangs up': (client: GdbClient) => client.close(),
  'a debugger that dies': (client: GdbClient) => client.destroy(),
  'a debugger that kills': (client: GdbClient) => client.send('k'),
  'a debugger that kills by process': (client: GdbClient) => client.send('vKill;1'),
})) {
  test(`the farm outlives ${name}`, async (t) => {
    const { client, session, end } = connect()
    await client.ask('?')
    await client.ask(`Z0,${codeAddress(PC)},1`)
    client.send('c')
    while (!session.calls.includes('continue')) await new Promise(setImmediate)
    hangUp(client)
    await end
    t.is(session.calls.at(-1), 'detach')
    t.is(session.state, 'running')
    t.is(session.listenerCount('output') + session.listenerCount('terminated'), 0)
  })
}

test('while the farm runs only what needs no halt is answered, and an interrupt halts it', async (t) => {
  const { client, session, server, end } = connect()
  await client.ask('?')
  client.send('c')
  while (!session.calls.includes('continue')) await new Promise(setImmediate)
  t.is(await client.ask('m100,4'), 'E10')
  t.is(await client.ask('c'), 'E10')
  t.is(await client.ask('qAttached'), '1')
  const stopped = client.answer()
  client.write('\x03')
  t.regex(await stopped, /^T02/)
  client.write('\x03')
  t.is(await client.ask('m100,1'), 'de', 'an interrupt of a halted farm is nothing')
  server.close()
  await end
})

test('a stop at a breakpoint is told by the address that the debugger gave', async (t) => {
  const { client, session, server, end } = connect()
  await client.ask('?')
  await client.ask(`Z0,${codeAddress(PC - 1)},1`)
  const answer = client.ask('c')
  while (!session.calls.includes('continue')) await new Promise(setImmediate)
  // The engine slipped to the next instruction.
  session.stopAt('breakpoint', { breakpoints: [session.breakpoints[0].id] })
  t.regex(await answer, new RegExp(`00:${register(PC - 1)};reason:breakpoint;$`))
  server.close()
  await end
})

test('a stop at a watchpoint is told by its address', async (t) => {
  const { client, session, server, end } = connect()
  await client.ask('?')
  t.is(await client.ask('Z2,100,4'), 'OK')
  t.true(session.calls.includes('add {"kind":"watch","expression":"u32[256]","access":"write","threads":[1]}'))
  const answer = client.ask('c')
  while (!session.calls.includes('continue')) await new Promise(setImmediate)
  session.stopAt('watchpoint', { breakpoints: [session.breakpoints[0].id], text: 'u32[256] 0 → 1' })
  t.regex(await answer, new RegExp(`reason:watchpoint;description:${hex('256 0 256')};$`))
  server.close()
  await end
})

test('finish from the outermost function goes out of the slice, and a step from there into the next', async (t) => {
  const { client, session, server, end } = connect()
  await client.ask('?')
  t.is(await client.ask(`Z0,${codeAddress(4)},1`), 'OK')
  t.is(session.breakpoints.length, 0)
  const answer = client.ask('c')
  for (const stack of [[{ pc: PC }], [{ pc: PC + 2 }]]) {
    const asked = session.calls.length
    while (session.calls.slice(asked - 1).every((call) => call !== 'step 1 out') || session.state !== 'running') {
      await new Promise(setImmediate)
    }
    session.stacks.set(1, stack)
    session.stopAt('step')
  }
  t.regex(await answer, new RegExp(`00:${register(4)};reason:breakpoint;$`))
  t.is(await client.ask('qWasmCallStack:1'), register(4))
  t.is(await client.ask(`z0,${codeAddress(4)},1`), 'OK')
  t.regex(await client.ask('vCont;s:1'), new RegExp(`00:${register(PC + 2)};reason:trace;$`))
  t.is(session.calls.filter((call) => call === 'step 1 out').length, 2)
  server.close()
  await end
})

/** What a monitor command prints. */
async function monitor(client: GdbClient, line: string): Promise<string> {
  let text = ''
  for (let answer = await client.ask(`qRcmd,${hex(line)}`); answer !== 'OK'; answer = await client.answer()) {
    text += Buffer.from(answer.slice(1), 'hex')
  }
  return text
}

test('monitor commands of the server itself', async (t) => {
  const { client, server, end } = connect()
  t.is(await monitor(client, 'inics'), '> 1 server1 (halted)\n  2 server2 (halted)\n')
  t.is(await monitor(client, 'inic server1'), 'server1 is the one that is looked at\n')
  t.is(await monitor(client, 'disassemble'), `0x${PC.toString(16).padStart(6, '0')}  end\n`)
  t.regex(await monitor(client, 'help'), /^inics {2,}/)
  server.close()
  await end
})

test('another INIC is shown by the next continue, which does not run', async (t) => {
  const { client, session, server, end } = connect()
  await client.ask('?')
  session.stacks.set(2, [{ pc: PC + 2 }])
  t.regex(await monitor(client, 'inic server2'), /^server2: the next/)
  t.is(await client.ask('qC'), 'QC1')
  t.regex(await client.ask('c'), new RegExp(`^T02thread:1;name:server2;threads:1,2;00:${register(PC + 2)};`))
  t.false(session.calls.includes('continue'))
  t.is(await client.ask('qWasmCallStack:1'), register(PC + 2) + register(4))
  await client.ask('m100,1')
  t.is(session.calls.at(-1), 'read 2 256 1')
  server.close()
  await end
})

test('other monitor commands go to the debugger of the farm; one that moves it is shown next', async (t) => {
  const lines: string[] = []
  const { client, session, server, end } = connect({
    async monitor(line) {
      lines.push(line)
      if (line === 'rc') session.stopAt('history')
      return `did ${line}\n`
    },
  })
  await client.ask('?')
  t.is(await monitor(client, 'break frame tcp.flags.syn'), 'did break frame tcp.flags.syn\n')
  t.regex(await monitor(client, 'rc'), /^did rc\nLLDB shows what was before/)
  t.regex(await client.ask('s'), /reason:history boundary;/)
  t.deepEqual(lines, ['break frame tcp.flags.syn', 'rc'])
  server.close()
  await end
})

test('log points and consoles are printed when the farm runs', async (t) => {
  const { client, session, server, end } = connect()
  await client.ask('?')
  session.emit('output', 'console', 'server1', 'ipOS 0.1.0')
  const first = client.ask('c')
  t.is(await first, `O${hex('server1 | ipOS 0.1.0\n')}`)
  session.emit('output', 'log', 'server2', 'SYN')
  t.is(await client.answer(), `O${hex('server2 | SYN\n')}`)
  server.close()
  await end
})

test('the end of the farm is the end of the process', async (t) => {
  const { client, session, end } = connect()
  await client.ask('?')
  const answer = client.ask('c')
  while (!session.calls.includes('continue')) await new Promise(setImmediate)
  session.emit('terminated')
  t.is(await answer, 'W00')
  t.is(await end, 'the farm has ended')
})

test('acknowledgements, until they are done without', async (t) => {
  const { client, server, end } = connect()
  client.write('+$qC#00')
  client.send('qC')
  await client.answer()
  t.is(client.received, '-+$QC1#c5')
  client.write('-')
  await client.answer()
  t.is(client.received, '-+$QC1#c5$QC1#c5', 'the last answer again')
  await client.ask('QStartNoAckMode')
  client.received = ''
  t.is(await client.ask('qC'), 'QC1')
  t.is(client.received, '$QC1#c5')
  client.write('$qC#zz')
  t.is(await client.answer(), 'E16')
  client.write('-')
  t.is(await client.ask('qsThreadInfo'), 'l')
  server.close()
  await end
})

test('a packet without end is given up, and the next is answered', async (t) => {
  const { client, server, end } = connect()
  await client.ask('QStartNoAckMode')
  client.write(`$m${'0'.repeat(MAXIMUM_PACKET_BYTES * 2)}#00`)
  t.is(await client.answer(), 'E16')
  t.is(await client.ask('qC'), 'QC1')
  server.close()
  await end
})

// ── garbage ──

const WORDS = [
  ...Object.values(EXCHANGES).flatMap((exchanges) => exchanges.map(([request]) => request)),
  ...Object.values(RUNS_AND_STOPS).map(([request]) => request),
]

const packets = fc.oneof(
  fc.constantFrom(...WORDS),
  fc.tuple(fc.constantFrom(...WORDS), fc.string({ unit: 'binary', maxLength: 6 })).map(([word, tail]) => word + tail),
  fc.tuple(fc.constantFrom(...WORDS), fc.nat(12)).map(([word, length]) => word.slice(0, length)),
  fc.string({ unit: 'binary', maxLength: 40 }),
)

const garbage = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: packets.map((packet) => encodePacket(packet) as Uint8Array) },
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 30 }) },
    {
      weight: 1,
      arbitrary: fc.constantFrom('+', '-', '\x03', '$', '#').map((text) => Buffer.from(text) as Uint8Array),
    },
  ),
  { maxLength: 30 },
)

test('garbage: no crash, no hang, and the farm goes on', async (t) => {
  await fc.assert(
    fc.asyncProperty(garbage, fc.integer({ min: 1, max: 64 }), async (parts, cut) => {
      const { client, session, end } = connect()
      session.stopsAtOnce = true
      const bytes = Buffer.concat(parts)
      for (let at = 0; at < bytes.length; at += cut) client.write(bytes.subarray(at, at + cut))
      client.close()
      await end
      t.is(session.state, 'running')
      t.is(session.calls.filter((call) => call === 'detach').length, 1)
      t.is(session.breakpoints.length, 0)
      t.false(client.received.includes(hex('a defect of inic itself')))
    }),
    { numRuns: RUNS },
  )
})

test('whoever asks without listening is not heard for ever', async (t) => {
  const { session, client, end } = connect()
  await client.ask('QStartNoAckMode')
  client.stopListening()
  for (let n = 0; n < 100; n++) client.send('m0,f000')
  await new Promise((resolve) => setTimeout(resolve, 50))
  t.true(session.calls.filter((call) => call.startsWith('read')).length < 10)
  client.destroy()
  await end
  t.is(session.calls.at(-1), 'detach')
})

test('of what is printed for whoever does not listen only the end is kept', async (t) => {
  const { session, client, end } = connect()
  await client.ask('?')
  client.send('c')
  while (!session.calls.includes('continue')) await new Promise(setImmediate)
  client.stopListening()
  for (let n = 0; n < 100; n++) session.emit('output', 'log', 'server1', 'x'.repeat(0x8000))
  t.true(client.far.writableLength < 0x100000, `${client.far.writableLength} bytes wait`)
  client.destroy()
  await end
})

// ── what is served ──

test('the served module has DWARF behind it, and branches that LLDB sees', async (t) => {
  const { client, server, end } = connect()
  const debugModule = await readFile(artifacts(project, 'debug').debugWasm)
  t.deepEqual(debugModule.subarray(0, wasm.length), wasm)
  const served = Buffer.from(await client.ask(`m${codeAddress(0)},${debugModule.length.toString(16)}`), 'hex')
  t.is(served.length, debugModule.length)
  t.true(served.includes('.debug_line'))
  for (const { end: behind } of code) t.is(served[behind - 1], 0x0f, 'the end of a function')
  t.is(codeStart, readWasmModule(served).codeStart)
  server.close()
  await end
})
