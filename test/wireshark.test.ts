import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import {
  BLOCK_SND_UNA,
  COMMITTED_FLAG_GAP,
  IPOS_ACKNOWLEDGE,
  IPOS_BLOCK,
  IPOS_CHECKSUM,
  IPOS_CONNECT,
  IPOS_CONNECT_UDP_BYTES,
  IPOS_DATA,
  IPOS_ETHERTYPE,
  IPOS_HEADER_BYTES,
  IPOS_RELEASE,
  IPOS_RELEASED,
  IPOS_STATE,
  IPOS_TCP,
  IPOS_UDP,
  REFUSE_NO_MEMORY,
  RELEASE_ENDED,
  STATE_FLAG_DRAINING,
} from '../abi/ipos.ts'
import { TCP_CLOSE_WAIT, TCP_SYN_RECEIVED } from '../abi/tcp.ts'
import { PcapngWriter } from '../emulator/link/pcapng.ts'
import { packageRoot } from '../toolchain/package-root.ts'
import { withConstants } from '../toolchain/wireshark/constants.ts'
import { FarmKit } from './support/farm-kit.ts'
import { type AbiField, abiFields } from './support/ipos-abi.ts'
import {
  arpFrame,
  bytes,
  ethernet,
  IPOS_KINDS,
  IPOS_LAYOUTS,
  type IposFields,
  type IposKind,
  ipos,
  iposFrame,
  ipText,
  ipv4,
  NO_BYTES,
  padded,
  resealIpos,
  tcp,
  udp,
} from './support/packets.ts'

const SCRIPT = join(packageRoot, 'toolchain/wireshark/ipos.lua')
const isInstalled = spawnSync('tshark', ['--version']).error === undefined
/** Wireshark is not everywhere where the tests are; .ci/run installs it. */
const withTshark = isInstalled ? test : test.skip

const folder = mkdtempSync(join(tmpdir(), 'inic-wireshark-'))
test.after.always(() => rmSync(folder, { recursive: true }))
let captures = 0

interface TsharkOptions {
  readonly args?: readonly string[]
  /** Bytes that the capture keeps of each frame. */
  readonly snapBytes?: number
}

/** Runs tshark with the dissector over these frames. Whatever it complains of is a failure. */
function tshark(
  t: ExecutionContext,
  frames: readonly Uint8Array[],
  args: readonly string[],
  { snapBytes = 65535, args: more = [] }: TsharkOptions = {},
): string {
  const path = join(folder, `${captures++}.pcapng`)
  const writer = new PcapngWriter(path, { snapBytes })
  const hub = writer.interface('hub')
  for (const [n, frame] of frames.entries()) hub.frame(frame, 0, frame.length, n * 1e6)
  writer.close()
  return tsharkFile(t, path, [...args, ...more])
}

function tsharkFile(t: ExecutionContext, path: string, args: readonly string[]): string {
  const result = spawnSync('tshark', ['-n', '-X', `lua_script:${SCRIPT}`, '-r', path, ...args], {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  })
  const complaints = result.stderr.split('\n').filter((line) => line !== '' && !line.startsWith('Running as user'))
  t.deepEqual(complaints, [])
  t.is(result.status, 0)
  return result.stdout
}

/** One row a frame, one value a filter name, '' if there is none. */
function fields(
  t: ExecutionContext,
  frames: readonly Uint8Array[],
  names: readonly string[],
  options: TsharkOptions = {},
): string[][] {
  const text = tshark(t, frames, ['-T', 'fields', ...names.flatMap((name) => ['-e', name])], options)
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => line.split('\t'))
}

const LINK = { destinationMac: '02:00:00:00:00:03', sourceMac: '02:00:00:00:00:01' }
const NAMING = {
  ...LINK,
  ...{ source: '198.51.100.9', sourcePort: 40001, destination: '123.123.123.3', thread: 1234 },
  ...{ server: '123.123.123.1', serverPort: 80 },
}
/** How an Info column names the connection. */
const PATH = 'TCP 198.51.100.9:40001 → 123.123.123.1:80 thread 1234 to 123.123.123.3'
const ENDS = { source: '198.51.100.9', destination: '123.123.123.1' }
const SEGMENT = ipv4({
  ...ENDS,
  protocol: 6,
  payload: tcp({ ...ENDS, sourcePort: 40001, destinationPort: 80, flags: 'PA', sequence: 1, payload: bytes(3) }),
})
const DATAGRAM = ipv4({
  ...ENDS,
  protocol: 17,
  payload: udp({ ...ENDS, sourcePort: 40001, destinationPort: 40002, payload: bytes(3) }),
})

// ── the script and abi/ ──

test('the constants are those of abi/', (t) => {
  const script = readFileSync(SCRIPT, 'utf8')
  t.is(withConstants(script), script, 'npm run wireshark writes them anew')
})

test('every field and every value of abi/ipos.ts is in the script', (t) => {
  const [, , code] = readFileSync(SCRIPT, 'utf8').split(/^local ABI = \{\n([^}]*)\n\}$/m)
  const abi = readFileSync(join(packageRoot, 'abi/ipos.ts'), 'utf8')
  const fieldNames = abiFields(Object.keys(IPOS_LAYOUTS)).map(({ name }) => name)
  const names = [...abi.matchAll(/^export const (\w+)/gm)].map(([, name]) => name)
  t.deepEqual(
    fieldNames.filter((name) => !code.includes(`'${name}'`)),
    [],
  )
  t.deepEqual(
    names.filter((name) => !new RegExp(`(ABI\\.|values\\.|')${name}\\b`).test(code)),
    [],
  )
})

// ── fields ──

/** What a packet of each kind consists of besides its header. */
const PIECES: Readonly<Record<IposKind, readonly string[]>> = {
  connect: ['CONNECTION', 'BLOCK'],
  data: [],
  acknowledge: [],
  state: ['STATE', 'HEARD', 'SERVICE'],
  commit: ['CONNECTION', 'COMMIT'],
  committed: ['CONNECTION', 'COMMITTED'],
  refuse: ['CONNECTION', 'REFUSE'],
  release: ['CONNECTION', 'RELEASE'],
  released: ['CONNECTION'],
  cancel: ['CONNECTION'],
  application: ['CONNECTION', 'APPLICATION'],
  moved: ['CONNECTION', 'MOVED'],
  movedHeard: ['CONNECTION', 'MOVED_HEARD'],
}
/** Fields that say what the packet is or how long: any number will not do. */
const BUILT = new Set(['type', 'protocol', 'checksum', 'heardCount', 'serviceCount', 'packetBytes', 'bytes'])

interface Sample {
  readonly kind: IposKind
  readonly frame: Uint8Array
  /** Filter names with what tshark is to say. */
  readonly shown: ReadonlyMap<string, number | string>
}

/** A packet whose fields have numbers of their own. */
function sample(kind: IposKind, seed: number): Sample {
  const shown = new Map<string, number | string>()
  const values = (piece: string): Record<string, number | string> => {
    const constants = abiFields(Object.keys(IPOS_LAYOUTS)).filter((field) => field.piece === piece)
    const given: Record<string, number | string> = {}
    for (const [name, field] of Object.entries(IPOS_LAYOUTS[piece].fields)) {
      const constant = constants.find(({ at }) => at === field.at)
      if (constant === undefined || BUILT.has(name)) continue
      const number = Math.imul(seed * 100 + shown.size + 1, 0x9e3779b1) >>> (32 - 8 * field.bytes)
      const isAddress = typeof field.load(new DataView(new ArrayBuffer(200)), 0) === 'string'
      given[name] = isAddress ? ipText(number) : name === 'cubicWmax' ? (number % 1000) + 0.5 : number
      shown.set(filterOf(constant), given[name])
    }
    return given
  }
  const body = Object.fromEntries(
    PIECES[kind].flatMap((piece): [string, unknown][] => {
      if (piece === 'BLOCK') return [['block', values(piece)]]
      if (piece === 'HEARD') return [['heard', [values(piece)]]]
      if (piece === 'SERVICE') return [['services', [values(piece)]]]
      return Object.entries(values(piece))
    }),
  )
  const tail = kind === 'application' ? { data: bytes(50) } : { packet: SEGMENT }
  return { kind, frame: iposFrame(kind, { ...LINK, ...values('HEADER'), ...tail, ...body }), shown }
}

/** inic.block.snd_una, of BLOCK_SND_UNA. */
function filterOf({ name, piece }: AbiField): string {
  const lower = name.toLowerCase()
  if (piece === 'HEADER' || piece === 'CONNECTION') return lower.replace('ipos_', 'inic.')
  return `inic.${piece.toLowerCase()}.${lower.slice(piece.length + 1)}`
}

withTshark('tshark shows every field of every packet by its name', (t) => {
  const samples = IPOS_KINDS.map(sample)
  const names = [...new Set(samples.flatMap(({ shown }) => [...shown.keys()]))]
  const rows = fields(
    t,
    samples.map(({ frame }) => frame),
    names,
  )
  for (const [n, { kind, shown }] of samples.entries()) {
    for (const [column, name] of names.entries()) {
      const [text, value] = [rows[n][column] ?? '', shown.get(name) ?? '']
      t.is(typeof value === 'number' ? Number(text) : text, value, `${kind}: ${name}`)
    }
  }
})

// ── what people see ──

const SHOWN: { readonly [K in IposKind]: { fields: IposFields<K>; info: string } } = {
  connect: {
    fields: { block: { state: TCP_CLOSE_WAIT, rcvRead: 0x20000001, rcvNxt: 0x20000065, sndEnd: 0x10000003 } },
    info: `0x01 Connect ${PATH}, CLOSE-WAIT, move 1, unread 100, unacknowledged 2`,
  },
  data: {
    fields: { packet: SEGMENT },
    info: '0x02 Data TCP 198.51.100.9:40001 thread 1234 to 123.123.123.3 | 40001 → 80 [PSH, ACK] Seq=1 Ack=1 Win=65535 Len=3',
  },
  acknowledge: { fields: {}, info: '0x03 Acknowledge TCP 198.51.100.9:40001 thread 1234 to 123.123.123.3' },
  state: {
    fields: {
      ...{ sequence: 8, cpu: 123, flags: STATE_FLAG_DRAINING, connections: 5, connectionsMaximum: 1000 },
      ...{ memoryAvailable: 1, memoryTotal: 2 },
      services: [
        { port: 80, protocol: IPOS_TCP, flags: 0 },
        { port: 53, protocol: IPOS_UDP, flags: 0 },
      ],
    },
    info: '0x80 State of 198.51.100.9 message 8: CPU 12.3 %, connections 5 of 1000, memory 1 of 2 KiB, bandwidth unknown, serves 80/TCP 53/UDP, draining',
  },
  commit: { fields: { receiveEnd: 1, sendEnd: 2 }, info: `0x81 Commit ${PATH}, received up to 1, queued up to 2` },
  committed: {
    fields: { received: 1, queued: 2, flags: COMMITTED_FLAG_GAP },
    info: `0x82 Committed ${PATH}, has 1, queued 2, not complete, gap`,
  },
  refuse: { fields: { reason: REFUSE_NO_MEMORY }, info: `0x83 Refuse ${PATH}, no memory` },
  release: {
    fields: { reason: RELEASE_ENDED, packet: DATAGRAM },
    info: `0x84 Release ${PATH}, ended | 40001 → 40002 Len=3`,
  },
  released: { fields: {}, info: `0x85 Released ${PATH}` },
  cancel: { fields: {}, info: `0x86 Cancel ${PATH}` },
  application: {
    fields: { offset: 1000, data: bytes(50) },
    info: `0x87 Application state ${PATH}, 50 bytes from 1000 on`,
  },
  moved: {
    fields: { moves: 2, newAddress: '123.123.123.4', newThread: 99 },
    info: `0x88 Moved ${PATH}, move 2, now at 123.123.123.4 thread 99`,
  },
  movedHeard: { fields: { moves: 2 }, info: `0x89 Moved heard ${PATH}, move 2` },
}

withTshark('the Info column says in a line what a packet is', (t) => {
  const frames = IPOS_KINDS.map((kind) => iposFrame(kind, { ...NAMING, ...SHOWN[kind].fields }))
  const rows = fields(t, frames, ['_ws.col.Protocol', '_ws.col.Info'])
  t.deepEqual(
    rows,
    IPOS_KINDS.map((kind) => ['ipOS', SHOWN[kind].info]),
  )
})

withTshark('a UDP connection packet ends after the connection information', (t) => {
  const frame = iposFrame('connect', { ...NAMING, protocol: IPOS_UDP })
  t.deepEqual(fields(t, [frame], ['_ws.col.Info', 'inic.padding', 'inic.malformed']), [
    [`0x01 Connect ${PATH.replace('TCP', 'UDP')}`, '00'.repeat(60 - 14 - IPOS_CONNECT_UDP_BYTES), ''],
  ])
})

withTshark('packets inside are dissected by Wireshark: filters find them', (t) => {
  const frames = [
    iposFrame('data', { ...NAMING, packet: SEGMENT }),
    iposFrame('data', { ...NAMING, protocol: IPOS_UDP, packet: DATAGRAM }),
    iposFrame('release', { ...NAMING, packet: SEGMENT }),
  ]
  t.deepEqual(fields(t, frames, ['frame.protocols', 'ip.src', 'tcp.dstport', 'udp.dstport', 'eth.src', 'eth.type']), [
    ['eth:inic:ip:tcp', '198.51.100.9', '80', '', '02:00:00:00:00:01', '0x0007'],
    ['eth:inic:ip:udp:data', '198.51.100.9', '', '40002', '02:00:00:00:00:01', '0x0007'],
    ['eth:inic:ip:tcp', '198.51.100.9', '80', '', '02:00:00:00:00:01', '0x0007'],
  ])
})

// ── checksum, lengths ──

withTshark('checksum: right, wrong, and not to be told', (t) => {
  const right = iposFrame('acknowledge', NAMING)
  const odd = iposFrame('application', { ...NAMING, data: bytes(31) })
  const wrong = iposFrame('acknowledge', { ...NAMING, checksum: 1 })
  const names = ['inic.checksum.status', 'inic.checksum.bad']
  t.deepEqual(fields(t, [right, odd], names), [
    ['1', ''],
    ['1', ''],
  ])
  const [[status, complaint]] = fields(t, [wrong], names)
  t.is(status, '0')
  t.not(complaint, '')
  const sum = Buffer.from(right).readUInt16BE(14 + IPOS_CHECKSUM)
  t.regex(tshark(t, [wrong], ['-V']), new RegExp(`Checksum: 0x0001 \\[incorrect, should be 0x${hex(sum)}\\]`))
  t.deepEqual(fields(t, [right], ['inic.checksum.status', 'inic.cut', 'inic.malformed'], { snapBytes: 40 }), [
    ['2', '', ''],
  ])
})

withTshark('frames that the capture cut short are not called malformed', (t) => {
  const frame = iposFrame('connect', NAMING)
  const [[malformed, cut, una]] = fields(t, [frame], ['inic.malformed', 'inic.cut', 'inic.block.snd_una'], {
    snapBytes: 14 + IPOS_BLOCK + BLOCK_SND_UNA + 4,
  })
  t.is(malformed, '')
  t.not(cut, '')
  t.is(una, '268435457')
})

withTshark('a packet that is too short is malformed, at every length; a whole one is not', (t) => {
  const wholes = IPOS_KINDS.map((kind) => iposFrame(kind, { ...NAMING, ...SHOWN[kind].fields }))
  const frames: Uint8Array[] = []
  const expected: boolean[] = []
  for (const [n, kind] of IPOS_KINDS.entries()) {
    const packet = ipos(kind, { ...NAMING, ...SHOWN[kind].fields })
    for (let length = 1; length <= packet.length; length++) {
      frames.push(resealed(wholes[n].slice(0, 14 + length)))
      expected.push(length < packet.length)
    }
  }
  const rows = fields(t, frames, ['frame.number', 'inic.malformed'])
  t.deepEqual(
    rows.map(([, malformed]) => malformed !== ''),
    expected,
  )
})

withTshark('values that cannot be are pointed at', (t) => {
  const unexpected = (frame: Uint8Array) => fields(t, [frame], ['inic.unexpected'])[0][0] !== ''
  t.true(unexpected(iposFrame('connect', { ...NAMING, block: { version: 2 } })))
  t.true(unexpected(iposFrame('connect', { ...NAMING, block: { state: TCP_SYN_RECEIVED } })))
  t.true(unexpected(iposFrame('data', { ...NAMING, protocol: 7, packet: SEGMENT })))
  t.false(unexpected(iposFrame('connect', NAMING)))
  t.regex(tshark(t, [iposFrame('acknowledge', { ...NAMING, type: 0x7f })], []), /ipOS 60 Unknown type 0x7f/)
})

withTshark('whatever the bytes are, the script does not fail', (t) => {
  const frames: Uint8Array[] = []
  for (const [seed, kind] of IPOS_KINDS.entries()) {
    const whole = iposFrame(kind, { ...NAMING, ...SHOWN[kind].fields })
    const change = fc.record({ at: fc.integer({ min: 14, max: whole.length - 1 }), value: fc.nat(255) })
    const changes = fc.array(change, { minLength: 1, maxLength: 6 })
    for (const [length, list] of fc.sample(fc.tuple(fc.nat(whole.length), changes), { numRuns: 100, seed })) {
      const frame = length % 2 === 0 ? whole.slice() : whole.slice(0, Math.max(14, length))
      for (const { at, value } of list) if (at < frame.length) frame[at] = value
      frames.push(frame.length >= 14 + IPOS_HEADER_BYTES ? resealIpos(frame) : frame)
    }
  }
  for (const snapBytes of [65535, 50]) t.notRegex(tshark(t, frames, ['-V'], { snapBytes }), /Lua Error/)
})

// ── Ethernet ──

withTshark('other frames are left to Wireshark', (t) => {
  const arp = arpFrame({ operation: 'request', senderMac: LINK.sourceMac, sender: '192.0.2.1', target: '192.0.2.2' })
  // IEEE 802.3: three bytes of LLC; and a frame that ends with its type.
  const llc = padded(ethernet({ ...LINK, type: 3, payload: Uint8Array.of(0x42, 0x42, 3) }))
  const bare = ethernet({ ...LINK, type: IPOS_ETHERTYPE, payload: NO_BYTES })
  const rows = fields(t, [arp, llc, bare], ['frame.protocols'])
  t.is(rows[0][0], 'eth:ethertype:arp')
  t.regex(rows[1][0], /^eth:llc/)
  t.false(rows[2][0].includes('inic'))
})

withTshark("a board's own EtherType is a preference, below 0x0600 and above", (t) => {
  for (const etherType of [0x0007, 0x0123, 0x88b5]) {
    const frames = [0x0007, 0x0123, 0x88b5].map((type) => iposFrame('acknowledge', { ...NAMING, etherType: type }))
    const rows = fields(t, frames, ['eth.type', 'inic.type'], { args: ['-o', `inic.ethertype:${etherType}`] })
    const found = rows.filter(([, type]) => type === '0x03').map(([type]) => Number(type))
    t.deepEqual(found, [etherType])
  }
})

withTshark('what INICs say to each other is shown without a complaint', async (t) => {
  const kit = new FarmKit()
  const path = join(folder, 'hub.pcapng')
  const writer = new PcapngWriter(path)
  const [, hub] = kit.server(1).cables
  hub.capture(writer.interface(hub.name))
  const server = kit.server(2).net.createServer((socket) => socket.pipe(socket))
  server.listen(80)
  await kit.settle()
  const socket = kit.client().net.connect(80, kit.server(1).address)
  socket.end('request')
  t.true(await kit.until(() => socket.bytesRead === 7))
  await kit.run(1000)
  await kit.close()
  writer.close()
  const complaints = ['malformed', 'checksum.bad', 'unknown', 'unexpected', 'refused', 'cut'].map(
    (name) => `inic.${name}`,
  )
  t.is(tsharkFile(t, path, ['-Y', [...complaints, '!inic'].join(' || ')]), '')
  const types = new Set(tsharkFile(t, path, ['-T', 'fields', '-e', 'inic.type']).trim().split('\n').map(Number))
  for (const type of [IPOS_CONNECT, IPOS_DATA, IPOS_ACKNOWLEDGE, IPOS_STATE, IPOS_RELEASE, IPOS_RELEASED]) {
    t.true(types.has(type), `type 0x${type.toString(16)}`)
  }
})

function hex(value: number): string {
  return value.toString(16).padStart(4, '0')
}

function resealed(frame: Uint8Array): Uint8Array {
  return frame.length >= 14 + IPOS_HEADER_BYTES ? resealIpos(frame) : frame
}
