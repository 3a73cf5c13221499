import test from 'ava'
import fc from 'fast-check'
import { IPOS_CONNECT_TCP_BYTES, IPOS_CONNECT_UDP_BYTES, IPOS_UDP } from '../abi/ipos.ts'
import { abiFields } from './support/ipos-abi.ts'
import {
  bytes,
  difference,
  format,
  IPOS_KINDS,
  IPOS_LAYOUTS,
  type IposFields,
  type IposKind,
  iposFrame,
  ipv4,
  NO_BYTES,
  parse,
  resealIpos,
  tcp,
} from './support/packets.ts'

const LINK = { destinationMac: '02:00:00:00:00:03', sourceMac: '02:00:00:00:00:01' }
const CLIENT = { source: '198.51.100.9', sourcePort: 40001 }
const NAMING = {
  ...LINK,
  ...CLIENT,
  ...{ destination: '123.123.123.3', thread: 1234, server: '123.123.123.1', serverPort: 80 },
}
const ENDS = { source: '198.51.100.9', destination: '123.123.123.1' }
const SEGMENT = ipv4({
  ...ENDS,
  protocol: 6,
  payload: tcp({ ...ENDS, sourcePort: 40001, destinationPort: 80, flags: 'PA', payload: bytes(100) }),
})

for (const [name, { fields, start, end }] of Object.entries(IPOS_LAYOUTS)) {
  test(`${name}: the fields of the tests are those of abi/ipos.ts, and leave no byte out`, (t) => {
    const places = Object.values(fields)
      .map(({ at, bytes: size }) => [at, size])
      .sort(([a], [b]) => a - b)
    const declared = abiFields(Object.keys(IPOS_LAYOUTS)).filter(({ piece }) => piece === name)
    t.deepEqual(
      places,
      declared.map(({ at, bytes: size }) => [at, size]),
    )
    let next = start
    for (const [at, size] of places) {
      t.is(at, next)
      next = at + size
    }
    t.is(next, end)
  })
}

test('fields of one packet have names of their own', (t) => {
  const { HEADER, CONNECTION, BLOCK: _, HEARD: __, SERVICE: ___, ...bodies } = IPOS_LAYOUTS
  for (const { fields } of Object.values(bodies)) {
    const names = [HEADER.fields, CONNECTION.fields, fields].flatMap((piece) => Object.keys(piece))
    t.is(new Set(names).size, names.length)
  }
})

test('FIG. 11: sizes of its packets', (t) => {
  const size = <K extends IposKind>(kind: K, fields: IposFields<K>) => iposFrame(kind, { ...LINK, ...fields }).length
  t.is(size('connect', {}), 14 + 16 + 146)
  t.is(IPOS_CONNECT_TCP_BYTES, 16 + 146)
  t.is(IPOS_CONNECT_UDP_BYTES, 16 + 6)
  t.is(size('data', { packet: SEGMENT }), 14 + 16 + 40 + 100)
  // 14 + 16 + 6, 14 + 16: a wire pads both.
  t.is(size('connect', { protocol: IPOS_UDP }), 60)
  t.is(size('acknowledge', {}), 60)
})

test('FIG. 11: bytes of a UDP connection packet', (t) => {
  const frame = iposFrame('connect', { ...NAMING, protocol: IPOS_UDP })
  // MACs, type; source, port, destination, port, type, protocol, checksum; server, port; padding.
  const parts = ['020000000003', '020000000001', '0007', 'c6336409', '9c41', '7b7b7b03', '04d2', '01', '02', '4661']
  const rest = ['7b7b7b01', '0050', '00'.repeat(24)]
  t.is(Buffer.from(frame).toString('hex'), [...parts, ...rest].join(''))
})

const EXAMPLES: { [K in IposKind]: IposFields<K> } = {
  connect: { block: { cubicWmax: 12.5, stateBytes: 3, entry: '123.123.123.1' } },
  data: { packet: SEGMENT },
  acknowledge: {},
  state: {
    ...{ incarnation: 7, sequence: 8, cpu: 123 },
    heard: [
      { address: '123.123.123.3', incarnation: 3, sequence: 5 },
      { address: '123.123.123.4', incarnation: 4, sequence: 6 },
    ],
    services: [{ port: 80, protocol: 1, flags: 4 }],
  },
  commit: { receiveEnd: 0xfffffff0, sendEnd: 2, stateBytes: 3 },
  committed: { received: 1, queued: 2, flags: 1 },
  refuse: { reason: 3 },
  release: { reason: 1, floor: 9, packet: SEGMENT },
  released: {},
  cancel: {},
  application: { offset: 1000, data: bytes(333) },
  moved: { moves: 2, newAddress: '123.123.123.4', newThread: 99 },
  movedHeard: { moves: 2 },
}

for (const kind of IPOS_KINDS) {
  test(`${kind}: what was built is parsed, padded or not`, (t) => {
    const frame = iposFrame(kind, { ...NAMING, ...EXAMPLES[kind] })
    const names = Object.fromEntries(
      Object.entries({ ...CLIENT, ...EXAMPLES[kind] }).filter(([name]) => name !== 'block'),
    )
    for (const trailer of [NO_BYTES, new Uint8Array(7)]) {
      const packet = parse(Buffer.concat([frame, trailer]))
      t.is(difference(packet, { ipos: { kind, ...names } as object }), null)
      t.regex(format(packet), new RegExp(` ipOS 0x[0-9a-f]{2} ${kind} .*198.51.100.9:40001`))
      t.notRegex(format(packet), /!!/)
    }
  })

  test(`${kind}: bytes that somebody broke are a problem, never an exception`, (t) => {
    const frame = iposFrame(kind, { ...NAMING, ...EXAMPLES[kind] })
    const change = fc.record({ at: fc.nat(frame.length - 1), value: fc.nat(255) })
    fc.assert(
      fc.property(fc.array(change, { maxLength: 8 }), fc.nat(frame.length), (changes, length) => {
        const broken = frame.slice(0, length)
        for (const { at, value } of changes) if (at < length) broken[at] = value
        if (length >= 30) resealIpos(broken)
        format(parse(broken))
      }),
    )
    frame[20]! ^= 1
    t.true(parse(frame).problems.includes('ipOS checksum'))
    t.false(parse(resealIpos(frame)).problems.includes('ipOS checksum'))
  })
}

test('a control block: what is not said makes sense with what is', (t) => {
  const { ipos } = parse(iposFrame('connect', { ...NAMING, block: { iss: 0xffffffff, irs: 5 } }))
  if (ipos?.kind !== 'connect') return t.fail()
  const { version, sndUna, sndMax, sndEnd, rcvNxt, rcvRead, rcvAdvertised } = ipos.block!
  t.deepEqual({ version, sndUna, sndMax, sndEnd }, { version: 1, sndUna: 0, sndMax: 0, sndEnd: 0 })
  t.deepEqual({ rcvNxt, rcvRead, rcvAdvertised }, { rcvNxt: 6, rcvRead: 6, rcvAdvertised: 65541 })
})
