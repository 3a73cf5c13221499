import test from 'ava'
import fc from 'fast-check'
import { Repl } from '../toolchain/debug/repl/repl.ts'
import type { BreakpointSpec } from '../toolchain/debug/session/api.ts'
import { DebugKit } from './support/debug-kit.ts'
import { FakeSession } from './support/fake-session.ts'

function start() {
  const session = new FakeSession()
  const repl = new Repl(session, { colour: false })
  const run = async (line: string) => (await repl.execute(line)).text
  return { session, repl, run }
}

const LOCATIONS: Record<string, BreakpointSpec> = {
  'tcp/input.ts:90': { kind: 'source', file: 'tcp/input.ts', line: 90 },
  'tcp/input.ts:90:7': { kind: 'source', file: 'tcp/input.ts', line: 90, column: 7 },
  '92': { kind: 'source', file: 'firmware/tcp/input.ts', line: 92 },
  '+2': { kind: 'source', file: 'firmware/tcp/input.ts', line: 92 },
  '': { kind: 'source', file: 'firmware/tcp/input.ts', line: 90 },
  tcpInput: { kind: 'function', name: 'tcpInput' },
  'tcpInput if flags & 2': { kind: 'function', name: 'tcpInput', condition: 'flags & 2' },
  'Tcb#reset server server2 if x == 1': { kind: 'function', name: 'Tcb#reset', condition: 'x == 1', threads: [2] },
  '*0x200': { kind: 'instruction', pc: 0x200 },
  'frame tcp.flags.syn && ip.dst == 192.0.2.1': { kind: 'frame', filter: 'tcp.flags.syn && ip.dst == 192.0.2.1' },
  'frame arp in on server1.0': { kind: 'frame', filter: 'arp', direction: 'in', port: 'server1.0' },
  'state SYN-RECEIVED -> established': { kind: 'tcp-state', from: 'SYN-RECEIVED', to: 'ESTABLISHED' },
  'state CLOSED': { kind: 'tcp-state', to: 'CLOSED' },
  'state ESTABLISHED ->': { kind: 'tcp-state', from: 'ESTABLISHED' },
  'row tcb insert': { kind: 'row', table: 'tcb', event: 'insert' },
  'row arp': { kind: 'row', table: 'arp' },
  'console listening if ready': { kind: 'console', text: 'listening if ready' },
  'irq MAC0': { kind: 'interrupt', line: 'MAC0' },
  irq: { kind: 'interrupt' },
  'exception watchdog': { kind: 'exception', filter: 'watchdog' },
}

for (const [text, spec] of Object.entries(LOCATIONS)) {
  test(`break ${text}`, async (t) => {
    const { session, run } = start()
    t.regex(await run(`b ${text}`), /^Breakpoint 2 at /)
    t.deepEqual(session.breakpoints.at(-1)?.spec, spec)
    await run(`tb ${text}`)
    t.deepEqual(session.breakpoints.at(-1)?.spec, { ...spec, temporary: true })
  })
}

const WRONG: Record<string, RegExp> = {
  nonsense: /there is no command 'nonsense'/,
  'reverse-': /'reverse-' may be reverse-step, reverse-next/,
  'b frame': /say which frames/,
  'b state A B C': /write the states as in/,
  'b row tcb both': /insert, remove or nothing/,
  'b *pc': /'pc' is no address/,
  'b tcpInput server server9': /there is no INIC 'server9'/,
  'b tcpInput if nonsense(': /an expression is missing/,
  'p 1 +': /is no name/,
  'p/q x': /'\/q' is no format/,
  'x/99999x 0': /from 1 to 4096/,
  'x/k 0': /is no format/,
  'x 0x20000': /nothing can be read/,
  'd 7': /there is no breakpoint 7/,
  'd 1-99999999': /is no range/,
  'n 0': /out of range/,
  'n -1': /is no number of times/,
  'cond x': /is no number of a breakpoint/,
  'ignore 1': /write it as/,
  'goto home': /is no slice/,
  'f 3': /outermost/,
  down: /innermost/,
  'info wat': /info knows/,
  'list nowhere.ts:3': /no code comes from a file/,
  'thread 9': /there is no INIC '9'/,
  'set x': /write it as/,
  'until nowhere.ts:1': /no code comes from this file/,
  'logpoint tcpInput': /write it as/,
}

for (const [line, message] of Object.entries(WRONG)) {
  test(`wrong: ${line}`, async (t) => {
    const { repl, session } = start()
    const before = session.breakpoints.length
    const { ok, text } = await repl.execute(line)
    t.false(ok)
    t.regex(text, message)
    t.is(session.breakpoints.length, before)
    t.true((await repl.execute('p state')).ok, 'it goes on')
  })
}

const RUNNING: Record<string, string> = {
  c: 'continue',
  s: 'step 1 in',
  n: 'step 1 over',
  si: 'step 1 instruction',
  ni: 'step 1 instruction-over',
  fin: 'step 1 out',
  rs: 'stepBack 1 in',
  rn: 'stepBack 1 over',
  rsi: 'stepBack 1 instruction',
  'reverse-finish': 'stepBack 1 out',
  rc: 'reverseContinue',
  'goto 0x20': 'goTo 32',
  live: 'goLive',
}

for (const [line, call] of Object.entries(RUNNING)) {
  test(`runs: ${line}`, async (t) => {
    const { session, run } = start()
    session.script.push({ reason: 'step' })
    const text = await run(line)
    t.is(session.calls.at(-1), call)
    t.regex(text, /server1 {2}parseOptions at firmware\/tcp\/input\.ts:91\n91 +\S/)
  })
}

test('a stop shows the breakpoint, its place and the line; an empty line repeats', async (t) => {
  const { session, run } = start()
  await run('b tcpInput')
  session.script.push({ reason: 'breakpoint', breakpoints: [2], text: 'server1 at tcpInput' }, {}, {})
  t.regex(await run('c'), /^Breakpoint 2, server1 at tcpInput\nserver1 {2}parseOptions/)
  await run('next')
  await run('')
  t.deepEqual(session.calls, ['continue', 'step 1 over', 'step 1 over'])
  await run('b tcpInput')
  await run('')
  t.is(session.breakpoints.length, 3, 'break is not repeated')
})

test('a step that something else stops is over', async (t) => {
  const { session, run } = start()
  session.script.push({}, { reason: 'watchpoint', text: 'tcb[0].state changed', thread: 1 })
  t.regex(await run('n 5'), /tcb\[0\]\.state changed/)
  t.is(session.calls.length, 2)
})

test('conditions, ignore, enable and delete keep the number', async (t) => {
  const { session, run } = start()
  await run('b tcpInput')
  await run('condition 2 flags == 2')
  await run('ignore 2 3')
  const last = () => session.breakpoints.at(-1)?.spec
  t.deepEqual(last(), { kind: 'function', name: 'tcpInput', condition: 'flags == 2', hitCondition: '>= 4' })
  await run('cond 2')
  t.deepEqual(last(), { kind: 'function', name: 'tcpInput', hitCondition: '>= 4' })
  await run('disable 2')
  t.regex(
    await run('info b'),
    /2 {4}function {5}n {4}0 {5}tcpInput {2}in tcpInput, firmware\/tcp\/input.ts:80\n {5}stop at hits >= 4/,
  )
  await run('b frame arp')
  t.regex(await run('i b'), /^3 {4}frame/m)
  await run('d 2-3')
  t.deepEqual(
    session.breakpoints.map(({ spec }) => spec.kind),
    ['exception'],
  )
})

test("a breakpoint's commands run when it stops", async (t) => {
  const { session, repl, run } = start()
  await run('b tcpInput')
  await run('commands')
  t.is(repl.prompt, '> ')
  for (const line of ['p sndNxt', 'c', 'end']) await run(line)
  t.is(repl.prompt, '(inic) ')
  session.script.push({ reason: 'breakpoint', breakpoints: [2] }, { reason: 'pause', text: 'paused' })
  t.regex(await run('c'), /sndNxt = 0x1234\npaused/)
  t.deepEqual(session.calls, ['continue', 'continue'])
})

test('looking: backtrace, frames, list, print, memory, instructions', async (t) => {
  const { run } = start()
  t.regex(
    await run('bt'),
    /^\*#0 {2}parseOptions \[inlined\] at firmware\/tcp\/input\.ts:90\n #1 {2}tcpInput at .*:70\n #2/,
  )
  t.regex(await run('up'), /^#1\nserver1 {2}tcpInput at firmware\/tcp\/input\.ts:70\n70/)
  const first = await run('l')
  t.regex(first, /^ 65 .*\n/)
  t.is(first.split('\n').length, 11)
  t.regex(first, /^>70/m)
  t.regex(await run(''), /^ 75 /)
  t.regex(await run('l 1,3'), /^ 1 .*\n 2 .*\n 3 .*\n$/)
  t.is(await run('p/x sndNxt'), 'sndNxt = 0x1234\n')
  t.is(await run('p/t sndNxt'), 'sndNxt = 1001000110100\n')
  t.regex(await run('x/8xb 0x10'), /^0x00000010: {2}0x10 {2}0x11 {2}0x12 .*0x17\n$/)
  t.regex(await run(''), /^0x00000018: {2}0x18/)
  t.regex(await run('x/2xw 0'), /^0x00000000: {2}0x03020100 {2}0x07060504\n$/)
  t.regex(await run('disas'), /=> 0x000210 {2}local\.get/)
  t.regex(await run('info locals'), /flags = 0x2 \(SYN\)\ntcb = Tcb 0x100/)
  t.regex(await run('info registers'), /pc = 0x210\nIRQ_STATUS = 0x1/)
  t.regex(await run('info tables'), /tcb = Tcb\[300\]/)
  t.regex(await run('info threads'), /\* 1 {3}server1 .*parseOptions.*\n {2}2 {3}server2/)
  t.regex(await run('server server2'), /server2 {2}between two slices/)
})

test('display shows at every stop what can be evaluated', async (t) => {
  const { session, run } = start()
  t.is(await run('display sndNxt'), '1: sndNxt = 0x1234\n')
  t.is(await run('display/d sndUna'), '1: sndNxt = 0x1234\n2: sndUna = 4660\n')
  session.script.push({})
  t.regex(await run('n'), /1: sndNxt = 0x1234\n2: sndUna = 4660\n$/)
  await run('undisplay 1')
  t.is(await run('info display'), '2: /d sndUna\n')
})

test('set assigns, and the past says no', async (t) => {
  const { session, run, repl } = start()
  t.is(await run('set var tcb[3].sndWnd = 0'), 'tcb[3].sndWnd = 0\n')
  t.is(session.calls.at(-1), 'assign tcb[3].sndWnd = 0')
  session.live = false
  t.is(repl.prompt, '(inic past) ')
  t.regex(await run('set sndWnd = 0'), /the past cannot be changed/)
})

test('a farm that runs is halted by an interrupt', async (t) => {
  const { session, repl } = start()
  const running = repl.execute('c')
  await new Promise((resolve) => setImmediate(resolve))
  t.false((await repl.execute('bt')).ok, 'one command at a time')
  repl.interrupt()
  t.regex((await running).text, /paused/)
  t.is(session.state, 'halted')
})

test('completion: commands, topics, locations, expressions', (t) => {
  const { repl } = start()
  t.deepEqual(repl.complete('con'), ['continue', 'condition'])
  t.deepEqual(repl.complete('info th'), ['info threads'])
  t.deepEqual(repl.complete('b firmware/tcp/in'), ['b firmware/tcp/input.ts:'])
  t.deepEqual(repl.complete('p tcb[3].snd'), ['p tcb[3].sndNxt', 'p tcb[3].sndUna'])
  t.deepEqual(repl.complete('thread '), ['thread server1', 'thread server2'])
  t.deepEqual(repl.complete('nonsense x'), [])
})

test('every command has help, and every name means one command', async (t) => {
  const { run } = start()
  const all = await run('help')
  for (const match of all.matchAll(/^ {2}([a-z-]+)/gm)) {
    t.regex(await run(`help ${match[1]}`), new RegExp(`^${match[1]}`))
  }
})

test('output that comes by itself says whose it is', (t) => {
  const { session, repl } = start()
  const lines: string[] = []
  repl.on('output', (text) => lines.push(text))
  session.emit('output', 'console', 'server1', 'listening')
  session.emit('output', 'log', '', 'seq 5')
  t.deepEqual(lines, ['server1 | listening\n', 'seq 5\n'])
})

test('quit and detach end the session', async (t) => {
  t.is((await start().repl.execute('q')).ended, 'quit')
  t.is((await start().repl.execute('detach')).ended, 'detach')
})

/** Words that commands take, or nearly. */
const WORDS =
  `tcpInput tcp/input.ts:90 1 2 0x100 *0x200 -1 99999999999 if ((( tcb[1] tcb[*].state u8[0xffffffff] u32[0x1000] frame tcp.flags.syn
  state CLOSED -> LISTEN row tcb insert console /(/ irq MAC0 exception trap server server1 thread in on out /x /16xb /4i /s /zz $pc
  breakpoints locals registers tables frame position source packet = 7 , , end # ' " { ** a.b.c`.split(/\s+/)

const COMMAND_WORDS =
  `b tb logpoint watch rwatch awatch cond ignore commands d en dis c s n si ni fin u rs rn rsi rf rc goto live bt f up down
  l disas info p set x display undisplay thread server help end zz`.split(/\s+/)

test('whatever is typed, the farm under the real engine goes on', async (t) => {
  const kit = new DebugKit({ servers: 1 })
  kit.listen()
  await kit.settle()
  const { session } = kit
  const line = fc
    .tuple(fc.constantFrom(...COMMAND_WORDS), fc.array(fc.constantFrom(...WORDS), { maxLength: 4 }))
    .map(([command, words]) => [command, ...words].join(' '))
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.oneof({ weight: 9, arbitrary: line }, fc.string()), { maxLength: 12 }),
      async (lines) => {
        await session.pause()
        const repl = new Repl(session, { colour: false })
        for (const { id, spec } of session.breakpoints) if (spec.kind !== 'exception') session.removeBreakpoint(id)
        void kit.ask()
        for (const text of lines) {
          if (/^(q|exit|detach)/.test(text.trim())) continue
          void kit.goFor(1)
          let isOver = false
          const running = repl.execute(text).finally(() => {
            isOver = true
          })
          for (let turn = 0; !isOver && turn < 10_000; turn++) {
            await new Promise((resolve) => setImmediate(resolve))
            if (turn > 20) repl.interrupt()
          }
          const { text: shown } = await running
          t.notRegex(shown, /a defect of inic/, text)
          t.true(Array.isArray(repl.complete(text)))
        }
        repl.close()
      },
    ),
    { numRuns: 60 },
  )
  await session.pause()
  const answer = kit.ask()
  await session.detach()
  await kit.goFor(100)
  t.is(await answer, 'hello from the farm')
})
