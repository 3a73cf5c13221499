/** The expression language of the debugger, over the memory of a booted ipOS and over locals of a stopped one. */
import test from 'ava'
import { REGISTER_BASE } from '../abi/memory.ts'
import { UART_BYTES } from '../abi/registers.ts'
import { type EvaluationContext, ExpressionError, type MemoryAccess, Values } from '../toolchain/debug/values/index.ts'
import { BareCard } from './support/bare-card.ts'
import { debugCard, firmwareFile, inicMemory, ipos, type Stop } from './support/debugged-card.ts'
import { PEER } from './support/lan.ts'
import { macBytes, tcpFrame } from './support/packets.ts'
import { TcpNet } from './support/tcp-script.ts'
import { established } from './support/tcp-states.ts'

const SMALL = { memoryBytes: 0x1000000, maximumConnections: 256 }
const FRAME_AT = 0x800000

/** ipOS after reset, with what expressions are about written into its tables. */
async function booted(): Promise<{ values: Values; context: EvaluationContext; memory: MemoryAccess }> {
  const values = new Values(await ipos('release'))
  const card = new BareCard(SMALL)
  const memory = inicMemory(card.memory.buffer)
  const context = { memory }
  for (const text of [
    'tcb[3].state = TCP_ESTABLISHED',
    'tcb[3].localAddress = 192.0.2.1',
    'tcb[3].localPort = 80',
    'tcb[3].remoteAddress = 198.51.100.7',
    'tcb[3].remotePort = 40000',
    'tcb[3].sndUna = 0xfffffff0',
    'tcb[3].sndNxt = 16',
    'tcb[3].flags = F_ATTACHED | F_QUIET',
    'tcb[3].cubicK = 2.5',
    'tcb[3].arpEntry = 2',
    'arp[2].address = 192.0.2.9',
    'arp[2].mac = 02:00:00:00:00:99',
    'counters.tcpIn = 5000000000',
    'state.nowNs = 0xffffffffffffffff',
  ]) {
    values.evaluate(text, context)
  }
  const frame = tcpFrame({
    destinationMac: '02:00:00:00:00:01',
    sourceMac: '02:00:00:00:00:09',
    source: '198.51.100.7',
    destination: '192.0.2.1',
    sourcePort: 40000,
    destinationPort: 80,
    flags: 'S',
    options: { mss: 1460 },
  })
  card.memory.set(frame, FRAME_AT)
  card.memory.set(macBytes('0a:0b:0c:0d:0e:0f'), FRAME_AT + 0x1000)
  return { values, context, memory }
}

const EVALUATED: readonly [text: string, display: string, type?: string][] = [
  // literals and operators
  ['1 + 2 * 3', '7'],
  ['(1 + 2) * 3', '9'],
  ['10 - 4 - 3', '3'],
  ['7 / 2', '3'],
  ['7 / 2.0', '3.5'],
  ['-7 % 4', '-3'],
  ['1 << 4 | 3', '19 (0x13)'],
  ['0xff & ~0x0f', '240 (0xf0)'],
  ['1_000', '1000 (0x3e8)'],
  ['0b101', '5'],
  ['1 < 2 && 2 < 3', 'true'],
  ['1 == 1 ? 10 : 20', '10 (0xa)'],
  ['!0 && !false', 'true'],
  ['0xffffffff + 1', '4294967296 (0x100000000)'],
  ['192.0.2.1', '192.0.2.1 (0xc0000201)', 'IPv4 address'],
  ['02:00:00:00:00:01', '02:00:00:00:00:01 (0x20000000001)'],
  // types: u32 wraps, u64 does not lose bits
  ['tcb[3].sndNxt - tcb[3].sndUna', '32 (0x20)', 'u32'],
  ['tcb[3].sndUna - tcb[3].sndNxt', '4294967264 (0xffffffe0)', 'u32'],
  ['signed(tcb[3].sndUna - tcb[3].sndNxt)', '-32 (-0x20)', 'i32'],
  ['tcb[3].sndUna + 32', '16 (0x10)', 'u32'],
  ['tcb[3].sndUna == -16', 'true'],
  ['tcb[3].sndUna > 5000000000', 'false'],
  ['counters.tcpIn + 1', '5000000001 (0x12a05f201)', 'u64'],
  ['state.nowNs', '18446744073709551615 (0xffffffffffffffff)', 'u64'],
  ['state.nowNs + 1', '0', 'u64'],
  ['counters.tcpIn > 4999999999', 'true'],
  ['tcb[3].cubicK * 2', '5'],
  ['CUBIC_BETA < 1 && CUBIC_BETA > 0.5', 'true'],
  ['MAC_BROADCAST', '281474976710655 (0xffffffffffff)'],
  ['tcb[3].remotePort + 70000', '110000 (0x1adb0)', 'u32'],
  // names
  ['tcb[3].state', 'ESTABLISHED (3)', 'u8'],
  ['tcb[3].state == TCP_ESTABLISHED', 'true', 'bool'],
  ['tcbs[3]->localPort', '80 (0x50)'],
  ['tcb[1 + 2].localAddress', '192.0.2.1 (0xc0000201)'],
  ['tcb[3].localAddress == 192.0.2.1', 'true'],
  ['tcb[3].flags', 'F_ATTACHED | F_QUIET (0x80000001)'],
  ['tcb[3].flags & F_QUIET', '2147483648 (0x80000000)'],
  ['tcb[3].arpEntry', 'arp[2] (2)'],
  ['tcb[3].arpEntry.address', '192.0.2.9 (0xc0000209)'],
  ['tcb[3].arpEntry.mac == 02:00:00:00:00:99', 'true'],
  ['interface[0].address', '192.0.2.1 (0xc0000201)'],
  ['UART_BYTES', '4096 (0x1000)'],
  ['len(tcb)', '257 (0x101)'],
  // memory
  ['u32[&tcb[3].sndNxt]', '16 (0x10)'],
  ['u8[&tcb[3].sndNxt]', '16 (0x10)'],
  ['*(u16*)&tcb[3].localPort', '80 (0x50)'],
  ['((u16*)&tcb[3].localPort)[1]', '40000 (0x9c40)'],
  ['(<Tcb>&tcb[3]).sndNxt', '16 (0x10)'],
  ['((ArpEntry*)&arp[2])[0].address', '192.0.2.9 (0xc0000209)'],
  ['&tcb[3] - &tcb[2]', '320 (0x140)'],
  ['<u8>300', '44 (0x2c)'],
  ['<i8>200', '-56 (-0x38)'],
  ['u8[0x10000, 4]', '42 4f 4f 54', 'u8[4]'],
  // functions
  ['ip(0xc0000201)', '192.0.2.1 (0xc0000201)'],
  [`mac(${FRAME_AT + 0x1000})`, '0a:0b:0c:0d:0e:0f (0xa0b0c0d0e0f)'],
  ['seqLt(tcb[3].sndUna, tcb[3].sndNxt)', 'true'],
  ['seqGeq(tcb[3].sndUna, tcb[3].sndNxt)', 'false'],
  ['inWindow(5, 0xfffffff0, 32)', 'true'],
  ['inWindow(16, 0xfffffff0, 32)', 'false'],
  ['min(3, 4) + max(3, 4)', '7'],
  ['ntohs(0x1234)', '13330 (0x3412)'],
  ['ntohl(0x01020304)', '67305985 (0x4030201)'],
  [`frame(${FRAME_AT}, 58).tcp.dstport`, '80'],
  [`frame(${FRAME_AT}, 58).tcp.flags.syn`, 'set'],
  [
    `frame(${FRAME_AT}, 58)`,
    'TCP 198.51.100.7:40000 → 192.0.2.1:80 [SYN] seq 0 ack 0 win 65535 len 0',
    'frame of 58 bytes',
  ],
]

test('expressions and what they show', async (t) => {
  const { values, context } = await booted()
  for (const [text, display, type] of EVALUATED) {
    const value = values.evaluate(text, context)
    t.is(value.display, display, text)
    if (type !== undefined) t.is(value.type, type, text)
  }
})

const REFUSED: readonly [text: string, message: RegExp, column: number][] = [
  ['', /a value is expected, not the end/, 1],
  ['1 +', /a value is expected, not the end/, 4],
  ['1 2', /an operator or the end is expected, not a number/, 3],
  ['(1', /"\)" is expected/, 3],
  ['tcb[3].', /a field is expected/, 8],
  ['tcb[3].bogus', /Tcb has no field bogus/, 8],
  ['tcb[3].sndnxt', /is sndNxt meant/, 8],
  ['tcb[257]', /tcb has rows 0 to 256, and no 257/, 4],
  ['tcb[-1]', /and no -1/, 4],
  ['tcb.state', /tcb is a table: name a row, tcb\[3\]\.state/, 5],
  ['tcb + 1', /the table tcb, and no number/, 1],
  ['state[0]', /state is one object and no table/, 6],
  ['foo + 1', /nothing is called foo/, 1],
  ['tcp_established', /is TCP_ESTABLISHED meant/, 1],
  ['$3', /no function is stopped/, 1],
  ['bar(1)', /no function is called bar; there are/, 1],
  ['seqLt(1)', /seqLt\(a, b\) takes 2 values/, 1],
  ['<Bogus>1', /Bogus is no type/, 1],
  ['1 / 0', /a division by 0/, 3],
  ['1.5 & 1', /"&" takes integers/, 5],
  ['u32[0xffffffff]', /not within INIC memory/, 4],
  ['u8[0xfffff0, 99]', /not within INIC memory/, 3],
  ['tcb[3].migration.phase', /migration has rows 0 to 64, and no 100000/, 18],
  ['300.1.1.1', /is no IPv4 address/, 1],
  ['0x', /has no digits/, 1],
  ['1 = 2', /no place in INIC memory/, 1],
  ['tcb[3] = 1', /whole row; name one of its fields/, 4],
  ['tcb[*].state = 1', /all rows of tcb cannot be assigned as a whole/, 8],
  ['tcb[3].state = 300', /300 does not fit a u8/, 8],
  ['TCP_ESTABLISHED = 1', /no place/, 1],
  ['1 ? 2', /":" is expected/, 6],
  ['@', /"@" has no meaning here/, 1],
  ['('.repeat(500), /nested deeper/, 101],
  ['1+'.repeat(3000), /longer than 4096/, 4096],
  ['99999999999999999999999', /more than 64 bits/, 1],
]

test('what is wrong is said with its column', async (t) => {
  const { values, context } = await booted()
  values.evaluate('tcb[3].migration = 100000', context)
  for (const [text, message, column] of REFUSED) {
    const error = t.throws(() => values.evaluate(text, context), { instanceOf: ExpressionError }, text.slice(0, 40))
    if (error === undefined) continue
    t.regex(error.message, message, text.slice(0, 40))
    t.is(error.column, column, `${text.slice(0, 40)}: ${error.message}`)
  }
})

test('assignments reach memory in the width of what they name, and nothing beside it', async (t) => {
  const { values, context, memory } = await booted()
  const address = values.compile('tcb[3].queueSet').place(context).address
  const before = memory.read(address - 4, 9)?.slice()
  values.evaluate('tcb[3].queueSet = 0xab', context)
  const after = memory.read(address - 4, 9)
  t.deepEqual(after?.[4], 0xab)
  t.deepEqual([...(after ?? [])].toSpliced(4, 1), [...(before ?? [])].toSpliced(4, 1))
  t.is(values.evaluate('tcb[3].sndNxt += 0xffffffff', context).display, '15 (0xf)', 'it wraps as in the firmware')
  t.is(values.evaluate('tcb[3].cwnd = -1', context).scalar, 0xffffffff)
  t.is(values.evaluate('counters.tcpIn <<= 1', context).scalar, 10000000000n)
  values.evaluate('UART_BYTES = 2048', context)
  t.is(memory.view?.getUint32(REGISTER_BASE + UART_BYTES, true), 2048)
  t.is(values.compile('tcb[3].mss').assign(context, 1460).scalar, 1460)
  t.is(values.compile('tcb[3].mss').assign(context, values.compile('1460 - 12')).scalar, 1448)
})

test('memory of the past is not written', async (t) => {
  const { values, memory } = await booted()
  const past = { size: memory.size, read: memory.read }
  t.is(values.evaluate('tcb[3].sndNxt', { memory: past }).scalar, 16, 'without a view it is read piece by piece')
  t.throws(() => values.evaluate('tcb[3].sndNxt = 1', { memory: past }), { message: /of the past/ })
})

test('places for watchpoints', async (t) => {
  const { values, context } = await booted()
  const { address, stride, count, bytes } = values.compile('tcb[*].state').place(context)
  t.deepEqual([stride, count, bytes], [320, 257, 1])
  const third = values.compile('tcb[3].state').place(context)
  t.deepEqual(third, { address: address + 3 * 320, bytes: 1, stride: 1, count: 1 })
  t.is(values.compile('tcb[3]').place(context).bytes, 320)
  t.is(values.compile('tcb').place(context).bytes, 320 * 257)
  t.deepEqual(values.compile('MAC0_TX_BASE').place(context), { address: 0x1214, bytes: 4, stride: 4, count: 1 })
  t.deepEqual(values.compile('u16[0x20000, 8]').place(context), { address: 0x20000, bytes: 16, stride: 16, count: 1 })
  t.deepEqual(values.compile('frame(0x20000, 60)').place(context).bytes, 60)
  t.throws(() => values.compile('1 + 2').place(context), { message: /no place in INIC memory/ })
  t.throws(() => values.compile('u32[0x1000000]').place(context), { message: /not within INIC memory/ })
})

test('a table that the firmware has not made yet is said to be missing', async (t) => {
  const values = new Values(await ipos('release'))
  const context = { memory: inicMemory(new ArrayBuffer(0x20000)) }
  t.throws(() => values.evaluate('tcb[1].state', context), {
    message: /there is no tcb yet: the firmware's directory names none/,
  })
  const tcb = values.compile('tcb[1].state')
  const card = new BareCard(SMALL)
  t.is(tcb.scalar({ memory: inicMemory(card.memory.buffer) }), 0, 'and found once it is there')
})

test('without a program there are registers, memory and frames', (t) => {
  const values = new Values(undefined)
  const context = { memory: inicMemory(new ArrayBuffer(0x20000)) }
  t.is(values.evaluate('UART_HEAD + 1', context).scalar, 1)
  t.is(values.evaluate('u32[0x10000]', context).scalar, 0)
  t.throws(() => values.evaluate('TCP_ESTABLISHED', context), { message: /nothing is called/ })
})

for (const target of ['debug', 'release'] as const) {
  test(`${target}: locals of a stopped function by name, with what they refer to`, async (t) => {
    const program = await ipos(target)
    const values = new Values(program)
    const net = new TcpNet({ firmware: firmwareFile(target) })
    const place = program.breakpointsAt(
      'tcp/rcv.ts',
      program.functionAt(program.findFunctions('receiveSegment')[0]?.entry)?.declaration?.line ?? 1,
    )
    const entry = program.functionBreakpoints('segmentArrives')
    t.truthy(place)
    const stops: string[] = []
    const look = (stop: Stop) => {
      const scope = stop.scope()
      const context = stop.context()
      const show = (text: string) => values.evaluate(text, context, scope)
      stops.push(show('tcb').display)
      t.is(show('tcb').type, 'Tcb')
      t.is(show('tcb.localPort').scalar, 7001)
      t.is(show('tcb.remoteAddress').display.split(' ')[0], PEER.ip)
      t.true(values.compile('tcb.localPort == 7001 && tcb->state != TCP_CLOSED', scope).test(context))
      t.is(show('tcb[1].localPort').scalar, 7001, 'with an index it is the table')
      t.is(show('$0').scalar, stop.frames[0].locals[0].value)
      t.true(values.locals(scope, context).some(({ name, type }) => name === 'tcb' && type === 'Tcb'))
      t.true(values.complete('tcb.snd', 7, scope).items.some(({ text }) => text === 'sndNxt'))
      t.throws(() => show('tcb = 0'), { message: /locals are read-only/ })
      t.throws(() => values.evaluate('tcb', { memory: context.memory }, scope), {
        message: /while the INIC is stopped/,
      })
      // The caller knows its own.
      const caller = stop.scope(1)
      t.true(values.locals(caller, stop.context(1)).some(({ name }) => name === 'segment' || name === '$0'))
    }
    const cpu = debugCard(net.card, program, entry, look)
    established(net)
    cpu.dispose()
    t.true(stops.length > 0)
    t.regex(stops[0], /^Tcb 0x[0-9a-f]+ \S+:7001 - \S+ SYN-RECEIVED$/)
  })
}

test('completions', async (t) => {
  const values = new Values(await ipos('release'))
  const texts = (text: string) => values.complete(text, text.length).items.map((item) => item.text)
  t.deepEqual(texts('tcb[3].sndW'), ['sndWnd', 'sndWl1', 'sndWl2'])
  t.deepEqual(texts('1 + state.tcbC'), ['tcbCount'])
  t.deepEqual(texts('tcb[3].arpEntry.addr'), ['address'])
  t.deepEqual(texts('(<Tcb>0x20000).rtoM'), ['rtoMs'])
  t.true(texts('tcb').includes('tcbs'))
  t.true(texts('TCP_EST').includes('TCP_ESTABLISHED'))
  t.true(texts('MAC1_R').includes('MAC1_RX_FRAMES'))
  t.true(texts('seq').includes('seqLt'))
  t.deepEqual(texts('bogus.'), [])
  t.deepEqual(texts('tcb[3]..'), [])
  t.is(values.complete('tcb[3].snd + 1', 10).start, 7, 'in the middle of a text')
})

test('a condition on a hot line costs little: no memory is copied and nothing parsed', async (t) => {
  const { values, memory } = await booted()
  let reads = 0
  const counted: MemoryAccess = {
    ...memory,
    read: (address, bytes) => {
      reads++
      return memory.read(address, bytes)
    },
  }
  const condition = values.compile('tcb[3].state == TCP_ESTABLISHED && tcb[3].remotePort == 40000')
  for (let round = 0; round < 1000; round++) t.true(condition.test({ memory: counted }))
  t.is(reads, 0)
})
