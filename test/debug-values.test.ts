/** Frames decoded and filtered; tables and rings as trees. */
import test from 'ava'
import { CARVE_BASE, DIRECTORY_BASE, DIRECTORY_COUNT, DIRECTORY_ENTRIES, DIRECTORY_ENTRY_BYTES } from '../abi/memory.ts'
import { DESCRIPTOR_LENGTH, DESCRIPTOR_OWNER, OWNER_FIRMWARE } from '../abi/rings.ts'
import {
  compileFrameFilter,
  type DecodedFrame,
  decodeFrame,
  ExpressionError,
  type FrameField,
  frameFilterNames,
  frameValue,
  type Value,
  Values,
} from '../toolchain/debug/values/index.ts'
import { BareCard } from './support/bare-card.ts'
import { inicMemory, ipos as iposProgram } from './support/debugged-card.ts'
import {
  arpFrame,
  controlBlock,
  icmpFrame,
  ipos,
  iposFrame,
  ipv4,
  ipv4Frame,
  tcp,
  tcpFrame,
  udpFrame,
} from './support/packets.ts'
import { noise, randomFrom } from './support/random.ts'

const LINK = { destinationMac: '02:00:00:00:00:01', sourceMac: '02:00:00:00:00:09' }
const ENDS = { source: '198.51.100.7', destination: '192.0.2.1' }

const SYN = tcpFrame({
  ...LINK,
  ...ENDS,
  sourcePort: 40000,
  destinationPort: 80,
  flags: 'S',
  sequence: 0xdeadbeef,
  window: 64240,
  options: { mss: 1460, sackPermitted: true, windowScale: 7, timestamps: [111, 222] },
})
const DATA = tcpFrame({
  ...LINK,
  ...ENDS,
  sourcePort: 40000,
  destinationPort: 80,
  flags: 'PA',
  payload: Buffer.from('GET / HTTP/1.1'),
})
const UDP = udpFrame({ ...LINK, ...ENDS, sourcePort: 53, destinationPort: 4000, payload: new Uint8Array(12) })
const PING = icmpFrame({ ...LINK, ...ENDS, type: 8, rest: 0x12340007 })
const ASK = arpFrame({ operation: 'request', senderMac: LINK.sourceMac, sender: ENDS.source, target: ENDS.destination })
const TAIL = ipv4Frame({ ...LINK, ...ENDS, protocol: 6, offset: 1480, payload: new Uint8Array(40).fill(0xff) })
const CONNECT = iposFrame('connect', {
  ...LINK,
  source: ENDS.source,
  sourcePort: 40000,
  destination: '10.0.0.2',
  thread: 5,
  server: ENDS.destination,
  serverPort: 80,
  block: controlBlock({ moves: 3 }),
})
const FORWARDED = iposFrame('data', {
  ...LINK,
  source: ENDS.source,
  sourcePort: 40000,
  destination: '10.0.0.2',
  thread: 5,
  packet: ipv4({ ...ENDS, protocol: 6, payload: tcp({ ...ENDS, sourcePort: 40000, destinationPort: 80, flags: 'A' }) }),
})
const FRAMES = { SYN, DATA, UDP, PING, ASK, TAIL, CONNECT, FORWARDED } as const
type FrameName = keyof typeof FRAMES

function fieldsOf(frame: DecodedFrame): Map<string, FrameField> {
  const all = new Map<string, FrameField>()
  const walk = (fields: readonly FrameField[]) => {
    for (const field of fields) {
      if (!all.has(field.name)) all.set(field.name, field)
      walk(field.children)
    }
  }
  walk(frame.layers)
  return all
}

const SUMMARIES: readonly [FrameName, string][] = [
  ['SYN', 'TCP 198.51.100.7:40000 → 192.0.2.1:80 [SYN] seq 3735928559 ack 0 win 64240 len 0'],
  ['DATA', 'TCP 198.51.100.7:40000 → 192.0.2.1:80 [PSH, ACK] seq 0 ack 0 win 65535 len 14'],
  ['UDP', 'UDP 198.51.100.7:53 → 192.0.2.1:4000 len 12'],
  ['PING', 'ICMP 198.51.100.7 → 192.0.2.1 type 8 code 0'],
  ['ASK', 'ARP who has 192.0.2.1? tell 198.51.100.7'],
  ['TAIL', 'IPv4 198.51.100.7 → 192.0.2.1 protocol TCP (6) len 60'],
  ['CONNECT', 'ipOS Connect (0x01) 198.51.100.7:40000 → 10.0.0.2 thread 5'],
  [
    'FORWARDED',
    'ipOS Data (0x02) 198.51.100.7:40000 → 10.0.0.2 thread 5 · TCP 198.51.100.7:40000 → 192.0.2.1:80 [ACK] seq 0 ack 0 win 65535 len 0',
  ],
]

for (const [name, summary] of SUMMARIES) {
  test(`frame in one line: ${name}`, (t) => t.is(decodeFrame(FRAMES[name]).summary, summary))
}

const FIELDS: readonly [FrameName, field: string, display: string][] = [
  ['SYN', 'eth.dst', '02:00:00:00:00:01'],
  ['SYN', 'eth.type', 'IPv4 (0x0800)'],
  ['SYN', 'ip.hdr_len', '20'],
  ['SYN', 'ip.proto', 'TCP (6)'],
  ['SYN', 'tcp.flags', '0x0002'],
  ['SYN', 'tcp.flags.syn', 'set'],
  ['SYN', 'tcp.flags.ack', 'not set'],
  ['SYN', 'tcp.options.mss_val', '1460'],
  ['SYN', 'tcp.options.wscale.shift', '7'],
  ['SYN', 'tcp.options.timestamp.tsval', '111'],
  ['SYN', 'tcp.options.timestamp.tsecr', '222'],
  ['DATA', 'data', '14 bytes: GET / HTTP/1.1'],
  ['PING', 'icmp.seq', '7'],
  ['ASK', 'arp.src.proto_ipv4', '198.51.100.7'],
  ['TAIL', 'ip.frag_offset', '1480'],
  ['CONNECT', 'ipos.server', '192.0.2.1'],
  ['CONNECT', 'ipos.block.moves', '3'],
  ['CONNECT', 'ipos.block.state', 'ESTABLISHED (3)'],
  ['FORWARDED', 'ipos.type', 'Data (0x02)'],
  ['FORWARDED', 'tcp.dstport', '80'],
]

test('fields of frames', (t) => {
  for (const [name, field, display] of FIELDS) {
    t.is(fieldsOf(decodeFrame(FRAMES[name])).get(field)?.display, display, `${name} ${field}`)
  }
  const port = fieldsOf(decodeFrame(SYN)).get('tcp.dstport')
  t.deepEqual([port?.offset, port?.bytes], [36, 2], 'where it stands in the frame')
  t.false(fieldsOf(decodeFrame(TAIL)).has('tcp'), 'a later fragment has no TCP header')
})

const FILTERS: readonly [filter: string, ...matching: FrameName[]][] = [
  ['tcp.flags.syn && ip.dst == 192.0.2.1 && tcp.dstport == 80', 'SYN'],
  ['tcp', 'SYN', 'DATA', 'FORWARDED'],
  ['ip and not tcp', 'UDP', 'PING', 'TAIL'],
  ['arp', 'ASK'],
  ['arp.opcode == 1 or icmp.type eq 8', 'PING', 'ASK'],
  ['ipos', 'CONNECT', 'FORWARDED'],
  ['ipos.type == 0x01', 'CONNECT'],
  ['inic.type == 0x01', 'CONNECT'],
  ['ipos.block.moves >= 3', 'CONNECT'],
  ['ipos.thread == 5 && tcp', 'FORWARDED'],
  ['frame.len > 100', 'CONNECT'],
  ['tcp.port in {22, 80}', 'SYN', 'DATA', 'FORWARDED'],
  ['udp.port in {50..60}', 'UDP'],
  ['udp.port in {54..3999}'],
  ['ip.src == 198.51.100.0/24 && udp', 'UDP'],
  ['ip.src != 198.51.100.0/24'],
  ['ip.addr == 192.0.2.1 && icmp', 'PING'],
  ['ip.addr != 192.0.2.1'],
  ['eth.dst == ff:ff:ff:ff:ff:ff', 'ASK'],
  ['tcp.flags & 0x18 == 0x18', 'DATA'],
  ['tcp.flags & 0x02', 'SYN'],
  ['tcp.options.mss_val', 'SYN'],
  ['tcp.options.mss_val != 1460'],
  ['tcp.options.sack_perm', 'SYN'],
  ['tcp.len > 0', 'DATA'],
  ['tcp.seq == 0xdeadbeef', 'SYN'],
  ['80 == tcp.dstport and 1 > 0', 'SYN', 'DATA', 'FORWARDED'],
  ['1000 < tcp.srcport && tcp.flags.push', 'DATA'],
  ['!(ip || arp || ipos)'],
  ['ip.frag_offset > 0', 'TAIL'],
  ['', 'SYN', 'DATA', 'UDP', 'PING', 'ASK', 'TAIL', 'CONNECT', 'FORWARDED'],
]

for (const [filter, ...matching] of FILTERS) {
  test(`filter: ${filter || 'none'}`, (t) => {
    const matches = compileFrameFilter(filter)
    const found = Object.entries(FRAMES).filter(([, frame]) => matches(frame, 0, frame.length))
    t.deepEqual(
      found.map(([name]) => name),
      matching,
    )
  })
}

test('a filter looks at its frame alone, wherever it lies in memory', (t) => {
  const matches = compileFrameFilter('tcp.options.mss_val == 1460 || frame.len < 14')
  const memory = new Uint8Array(4096).fill(0xff)
  memory.set(SYN, 1000)
  t.true(matches(memory, 1000, SYN.length))
  t.false(matches(memory, 1000, 54), 'cut before its options')
  t.false(matches(memory, 4000, 200), 'beyond memory')
  t.false(matches(memory, -1, 60))
  t.false(matches(memory, 1000, Number.NaN))
  t.true(matches(memory, 4090, 6))
})

test('a farm may give ipOS another Ethernet type', (t) => {
  const frame = iposFrame('acknowledge', { ...LINK, etherType: 0x88b5 })
  t.false(compileFrameFilter('ipos')(frame, 0, frame.length))
  t.true(compileFrameFilter('ipos.type == 3', { iposEtherType: 0x88b5 })(frame, 0, frame.length))
  t.regex(decodeFrame(frame, { iposEtherType: 0x88b5 }).summary, /^ipOS Acknowledge/)
})

const BAD_FILTERS: readonly [filter: string, message: RegExp, column: number][] = [
  ['tcp ==', /"&&", "\|\|" or the end is expected, not "=="/, 5],
  ['tcp.dstport ==', /a field, a protocol, a number or an address is expected, not the end/, 15],
  ['tcp.bogus', /frames have no field tcp\.bogus; of tcp there are tcp\.ack, /, 1],
  ['http.host', /no protocol is called http; there are frame, eth, /, 1],
  ['80', /a number alone is no filter/, 1],
  ['(tcp', /"\)" is expected/, 5],
  ['tcp.port in 80', /"\{" is expected/, 13],
  ['tcp.port in {ip.src}', /a number or address is expected, not a field/, 14],
  ['ip.src == 1.2.3.4/40', /a prefix length up to 32 is expected/, 19],
  ['ip.src < 10.0.0.0/8', /a network is compared by/, 8],
  ['ip.addr == ip.host', /only one side may be a name that means several fields/, 9],
  ['tcp tcp', /is expected, not "tcp"/, 5],
  ['!'.repeat(1000), /nested deeper/, 101],
]

for (const [filter, message, column] of BAD_FILTERS) {
  test(`filter refused: ${filter.slice(0, 30)}`, (t) => {
    const error = t.throws(() => compileFrameFilter(filter), { instanceOf: ExpressionError, message })
    t.is(error?.column, column)
  })
}

test('filters and the decoder agree on every field of every frame, whole or cut off, and never read beyond it', (t) => {
  const names = frameFilterNames().filter((name) => name.includes('.') && name !== 'ipos.block')
  const filters = new Map(names.map((name) => [name, compileFrameFilter(`${name} >= 0`)]))
  const random = randomFrom(7)
  const frames: Uint8Array[] = Object.values(FRAMES)
  for (let round = 0; round < 200; round++) {
    const frame = frames[random(frames.length)].slice()
    for (let flips = random(4); flips > 0; flips--) frame[random(frame.length)] = random(256)
    frames.push(frame.subarray(0, random(frame.length + 1)))
  }
  for (let round = 0; round < 100; round++) frames.push(noise(random, random(120)))
  for (const frame of frames) {
    const decoded = fieldsOf(decodeFrame(frame))
    const memory = new Uint8Array(frame.length + 64).fill(0xff)
    memory.set(frame, 32)
    for (const [name, field] of decoded) {
      if (field.offset < 0 || field.offset + field.bytes > frame.length) t.fail(`${name} at ${field.offset}`)
      const filter = filters.get(name)
      if (filter !== undefined && !filter(memory, 32, frame.length))
        t.fail(`${name} of ${Buffer.from(frame).toString('hex')}`)
    }
    for (const [name, filter] of filters) {
      const known =
        decoded.has(name) || /^(eth\.addr|ip\.(addr|host)|tcp\.port|udp\.port|ipos\.addr|frame\.)/.test(name)
      if (!known && filter(memory, 32, frame.length)) t.fail(`${name} in ${Buffer.from(frame).toString('hex')}`)
    }
  }
  t.pass()
})

function child(value: Value | undefined, name: string): Value {
  const found = value?.children().find((one) => one.name === name)
  if (found === undefined) throw new Error(`${value?.name} has no ${name}`)
  return found
}

test('tables of the firmware directory as trees, rows in windows', async (t) => {
  const values = new Values(await iposProgram('release'))
  const card = new BareCard({ memoryBytes: 0x1000000, maximumConnections: 256 })
  const memory = inicMemory(card.memory.buffer)
  const tables = values.tables(memory)
  t.deepEqual(
    tables.slice(0, 4).map(({ name, type }) => [name, type]),
    [
      ['state', 'State'],
      ['counters', 'Counters'],
      ['tcb', 'Tcb[257]'],
      ['timeWait', tables[3].type],
    ],
  )
  const tcb = tables[2]
  t.is(tcb.indexed, 257)
  const rows = tcb.children(250, 100)
  t.deepEqual([rows.length, rows[0].name, rows[6].name], [7, '[250]', '[256]'])
  const local = child(rows[0], 'localAddress')
  t.is(local.type, 'IPv4 address')
  t.is(local.path, 'tcb[250].localAddress')
  t.is(values.evaluate(local.path ?? '', { memory }).address, local.address, 'its path means it')
  t.is(child(child(tables[0], 'nowMs') && tables[0], 'memoryBytes').scalar, 0x1000000)
  t.is(values.tables(inicMemory(new ArrayBuffer(0x20000))).length, 0, 'before the firmware has made them')
})

test("a table of the firmware's own has the name of its class, in the small", async (t) => {
  const values = new Values(await iposProgram('release'))
  const card = new BareCard({ memoryBytes: 0x1000000, maximumConnections: 256 })
  const memory = inicMemory(card.memory.buffer)
  t.throws(() => values.evaluate('ends[1].newest', { memory }), { message: /there is no ends yet/ })
  const name = Buffer.from('Ends', 'utf16le')
  const kind = CARVE_BASE - name.length
  card.view.setUint32(kind - 4, name.length, true)
  card.memory.set(name, kind)
  const count = card.view.getUint32(DIRECTORY_BASE + DIRECTORY_COUNT, true)
  const entry = DIRECTORY_BASE + DIRECTORY_ENTRIES + count * DIRECTORY_ENTRY_BYTES
  for (const [field, value] of [kind, 0x800000, 16, 4].entries()) card.view.setUint32(entry + field * 4, value, true)
  card.view.setUint32(DIRECTORY_BASE + DIRECTORY_COUNT, count + 1, true)
  card.view.setUint32(values.compile('ends[1].newest').place({ memory }).address, 77, true)
  t.is(values.evaluate('ends[1].newest', { memory }).scalar, 77)
  t.like(values.tables(memory).at(-1), { name: 'ends', type: 'Ends[4]', address: 0x800000 })
  t.throws(() => values.evaluate('hal[0]', { memory }), { message: /there is no hal yet/ })
  t.throws(() => values.evaluate('nothing[0]', { memory }), { message: /nothing is called nothing/ })
})

test('every path of the tree means the value that shows it', async (t) => {
  const values = new Values(await iposProgram('release'))
  const card = new BareCard({ memoryBytes: 0x1000000, maximumConnections: 256 })
  const memory = inicMemory(card.memory.buffer)
  const walk = (value: Value, depth: number) => {
    if (value.path !== undefined) {
      const again = values.evaluate(value.path, { memory })
      t.is(again.display, value.display, value.path)
      t.is(again.address, value.address, value.path)
    }
    if (depth > 0) for (const inner of value.children(0, 2)) walk(inner, depth - 1)
  }
  for (const value of [...values.registers(memory), ...values.tables(memory)]) walk(value, 2)
})

test('a descriptor of a MAC ring shows the frame in its buffer', async (t) => {
  const values = new Values(await iposProgram('release'))
  const card = new BareCard({ memoryBytes: 0x1000000, maximumConnections: 256 })
  const memory = inicMemory(card.memory.buffer)
  const ring = values.evaluate('MAC0_RX', { memory })
  t.is(ring.type, 'FrameDescriptor[256]')
  const { scalar } = values.evaluate('MAC0_RX[0].address', { memory })
  card.memory.set(SYN, Number(scalar))
  const { address } = values.compile('MAC0_RX[0]').place({ memory })
  card.view.setUint32(address + DESCRIPTOR_LENGTH, SYN.length, true)
  card.view.setUint32(address + DESCRIPTOR_OWNER, OWNER_FIRMWARE, true)
  const [descriptor] = ring.children(0, 1)
  t.is(child(descriptor, 'owner').display, 'firmware (0)')
  const frame = child(descriptor, 'frame')
  t.is(frame.display, decodeFrame(SYN).summary)
  t.is(child(child(frame, 'TCP'), 'Destination port').address, Number(scalar) + 36)
  t.is(values.evaluate('QUEUE_STATUS[0].state', { memory }).display, 'enabled (1)')
  t.is(values.evaluate('TRACE[0].event', { memory }).display, 'TRACE_BOOT (1)')
})

test('a frame outside of INIC memory is none', (t) => {
  const memory = inicMemory(new ArrayBuffer(100))
  t.is(frameValue(memory, 90, 60), undefined)
  t.is(frameValue(memory, 0, 60)?.type, 'frame of 60 bytes')
})

test('ipOS packets of every kind decode', (t) => {
  for (const kind of ['acknowledge', 'state', 'commit', 'release', 'moved'] as const) {
    const payload = ipos(kind, { source: ENDS.source })
    t.true(payload.length >= 16)
    t.regex(decodeFrame(iposFrame(kind, { ...LINK, source: ENDS.source })).summary, /^ipOS [A-Z]/, kind)
  }
})
