import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import fc from 'fast-check'
import { Farm } from '../emulator/farm.ts'
import { CaptureError, CaptureReader } from '../emulator/link/capture-reader.ts'
import { PcapReplay } from '../emulator/link/pcap-replay.ts'
import { PcapngWriter } from '../emulator/link/pcapng.ts'
import { TestPort, testFrame } from './emulator-kit.ts'

const A = Uint8Array.of(2, 0, 0, 0, 0, 0xa)
const B = Uint8Array.of(2, 0, 0, 0, 0, 0xb)
const folder = mkdtempSync(join(tmpdir(), 'inic-capture-'))
test.after.always(() => rmSync(folder, { recursive: true }))
let files = 0
const newFile = (bytes?: Uint8Array): string => {
  const path = join(folder, `${files++}.pcap`)
  if (bytes !== undefined) writeFileSync(path, bytes)
  return path
}

/** The example of a pcapng file that this writer makes: two frames on two interfaces. */
function example(path: string, epochNs = 0n): void {
  const writer = new PcapngWriter(path, { epochNs })
  const one = writer.interface('lan-a')
  const two = writer.interface('hub')
  const frame = testFrame(B, A, 61)
  one.frame(frame, 0, 61, 1_500_000_001)
  two.frame(frame, 1, 60, 0x1_0000_0002)
  writer.close()
}

test('pcapng: what was written is read back, with names and nanoseconds', (t) => {
  const path = newFile()
  example(path)
  const reader = new CaptureReader(path)
  t.is(reader.format, 'pcapng')
  t.true(reader.next())
  t.is(reader.timestampNs, 1_500_000_001n)
  t.deepEqual(
    Uint8Array.from(reader.memory.subarray(reader.offset, reader.offset + reader.length)),
    testFrame(B, A, 61),
  )
  t.is(reader.interfaces[reader.interface].name, 'lan-a')
  t.true(reader.next())
  t.is(reader.timestampNs, 0x1_0000_0002n)
  t.is(reader.length, 60)
  t.is(reader.interfaces[reader.interface].name, 'hub')
  t.false(reader.next())
  reader.close()
})

test('pcapng: the blocks are those of the draft, byte for byte', (t) => {
  const path = newFile()
  example(path)
  const hex = readFileSync(path).toString('hex')
  // Section header: type, length, magic, 1.0, unknown length, user application "inic", end, length.
  const section = '0a0d0d0a280000004d3c2b1a01000000ffffffffffffffff04000400696e69630000000028000000'
  // Interface: Ethernet, snap length 65535, if_name "lan-a", if_tsresol 9, end.
  const lan = '010000003000000001000000ffff0000' + '020005006c616e2d61000000' + '0900010009000000' + '0000000030000000'
  t.is(hex.slice(0, section.length), section)
  t.is(hex.slice(section.length, section.length + 8), lan.slice(0, 8))
  t.is(readFileSync(path).length % 4, 0)
  const again = newFile()
  example(again)
  t.deepEqual(readFileSync(again), readFileSync(path), 'the same frames give the same bytes')
})

test('pcapng: wall time is added, across 32 bits', (t) => {
  const path = newFile()
  example(path, 1_700_000_000_123_456_789n)
  const reader = new CaptureReader(path)
  reader.next()
  t.is(reader.timestampNs, 1_700_000_000_123_456_789n + 1_500_000_001n)
  reader.next()
  t.is(reader.timestampNs, 1_700_000_000_123_456_789n + 0x1_0000_0002n)
  reader.close()
})

test('pcapng: tshark reads it', (t) => {
  const path = newFile()
  example(path)
  const { status, stdout, error } = spawnSync('tshark', [
    '-r',
    path,
    '-T',
    'fields',
    '-e',
    'frame.interface_name',
    '-e',
    'frame.time_epoch',
    '-e',
    'frame.len',
  ])
  if (error) {
    t.log('skipped: tshark is not installed')
    t.pass()
    return
  }
  t.is(status, 0)
  t.deepEqual(stdout.toString().trim().split('\n')[0].split('\t'), ['lan-a', '1.500000001', '61'])
})

test('pcapng: many frames, and a file that cannot be written', (t) => {
  const path = newFile()
  const writer = new PcapngWriter(path)
  const sink = writer.interface('x')
  const frame = testFrame(B, A, 1514)
  for (let n = 0; n < 1000; n++) sink.frame(frame, 0, 1514, n)
  writer.close()
  const reader = new CaptureReader(path)
  let frames = 0
  while (reader.next()) t.is(reader.timestampNs, BigInt(frames++))
  reader.close()
  t.is(frames, 1000)
  const errors: Error[] = []
  const broken = new PcapngWriter(9999, { onError: (error) => errors.push(error) })
  const lost = broken.interface('x')
  for (let n = 0; n < 1000; n++) lost.frame(frame, 0, 1514, n)
  broken.close()
  t.is(errors.length, 1)
  t.true(broken.lost > 0)
})

test('capture of a cable: both directions, before impairments', async (t) => {
  const path = newFile()
  const farm = new Farm({ clock: 'virtual' })
  const [a, b] = [new TestPort('a'), new TestPort('b')]
  const cable = farm.connect(a, b, { wire: { loss: 1 } })
  const writer = farm.own(new PcapngWriter(path, { epochNs: farm.epochNs }))
  cable.capture(writer.interface(cable.name))
  a.send(testFrame(B, A), 0)
  b.send(testFrame(A, B), 0)
  cable.capture(null)
  a.send(testFrame(B, A), 0)
  t.is(a.frames.length + b.frames.length, 0)
  await farm.stop()
  const reader = new CaptureReader(path)
  t.true(reader.next() && reader.next())
  t.false(reader.next())
  reader.close()
})

/** A classic capture: two frames, the second a second and 5 units later. */
function classic({ big = false, magic = 0xa1b2c3d4, linkType = 1 } = {}): Buffer {
  const bytes = Buffer.alloc(24 + 2 * (16 + 60))
  const u32 = (at: number, value: number) => (big ? bytes.writeUInt32BE(value, at) : bytes.writeUInt32LE(value, at))
  u32(0, magic)
  u32(16, 65535)
  u32(20, linkType)
  for (const [n, at] of [24, 24 + 76].entries()) {
    u32(at, 100 + n)
    u32(at + 4, 5 * n)
    u32(at + 8, 60)
    u32(at + 12, 60)
    bytes.set(testFrame(B, A, 60), at + 16)
    bytes[at + 16 + 20] = n
  }
  return bytes
}

for (const [title, options, gapNs] of [
  ['microseconds, little-endian', {}, 1_000_005_000],
  ['microseconds, big-endian', { big: true }, 1_000_005_000],
  ['nanoseconds', { magic: 0xa1b23c4d }, 1_000_000_005],
] as const) {
  test(`replay of a classic capture: ${title}, with its own timing and without`, async (t) => {
    const path = newFile(classic(options))
    for (const timing of ['original', 'compressed'] as const) {
      const farm = new Farm({ clock: 'virtual' })
      const port = new TestPort('p')
      let ended: Error | null | undefined
      const replay = new PcapReplay('replay', path, farm, {
        timing,
        gapNs: 7,
        onEnd: (error) => {
          ended = error
        },
      })
      farm.connect(replay, port)
      replay.start(1000)
      await farm.run(5e9)
      t.deepEqual(
        port.frames.map(({ timeNs }) => timeNs),
        [1000, timing === 'original' ? 1000 + gapNs : 1007],
      )
      t.deepEqual(
        port.frames.map(({ bytes }) => bytes[20]),
        [0, 1],
      )
      t.is(ended, null)
    }
  })
}

const BROKEN: { title: string; bytes: Uint8Array; message: RegExp }[] = [
  { title: 'an empty file', bytes: new Uint8Array(0), message: /at byte 0: it ends in the middle of a magic number/ },
  { title: 'text', bytes: Buffer.from('hello, world'), message: /neither pcap nor pcapng/ },
  { title: 'a pcap header cut off', bytes: classic().subarray(0, 20), message: /in the middle of a file header/ },
  { title: 'another link type', bytes: classic({ linkType: 113 }), message: /link type is 113/ },
  {
    title: 'a record cut off',
    bytes: classic().subarray(0, 24 + 40),
    message: /at byte 24: it ends in the middle of a record/,
  },
  {
    title: 'a record of four gigabytes',
    bytes: (() => {
      const bytes = classic()
      bytes.writeUInt32LE(0xffffffff, 24 + 8)
      return bytes
    })(),
    message: /a record of 4294967295 bytes/,
  },
  {
    title: 'a pcapng block of three bytes',
    bytes: pcapngWith((bytes) => bytes.writeUInt32LE(3, 44)),
    message: /gives its length as 3 bytes/,
  },
  {
    title: 'a pcapng block whose lengths differ',
    bytes: pcapngWith((bytes) => bytes.writeUInt32LE(44, bytes.length - 4)),
    message: /two lengths differ/,
  },
  {
    title: 'a section without byte order',
    bytes: pcapngWith((bytes) => bytes.writeUInt32LE(0, 8)),
    message: /byte order is not told/,
  },
  {
    title: 'a packet larger than its block',
    bytes: pcapngWith((bytes) => bytes.writeUInt32LE(1000, lastBlock(bytes) + 20)),
    message: /a packet of 1000 bytes in a block with room for/,
  },
  {
    title: 'a packet of an unknown interface',
    bytes: pcapngWith((bytes) => bytes.writeUInt32LE(9, lastBlock(bytes) + 8)),
    message: /interface 9, which the file does not describe/,
  },
]

function pcapngWith(change: (bytes: Buffer) => void): Buffer {
  const path = newFile()
  example(path)
  const bytes = readFileSync(path)
  change(bytes)
  return bytes
}

function lastBlock(bytes: Buffer): number {
  return bytes.length - bytes.readUInt32LE(bytes.length - 4)
}

for (const { title, bytes, message } of BROKEN) {
  test(`a capture that is ${title} is refused`, (t) => {
    const path = newFile(bytes)
    t.throws(
      () => {
        const reader = new CaptureReader(path)
        while (reader.next());
      },
      { instanceOf: CaptureError, message },
    )
  })
}

test('random bytes are never read as more than a CaptureError', (t) => {
  const valid = pcapngWith(() => {})
  fc.assert(
    fc.property(
      fc.array(fc.record({ at: fc.nat(valid.length - 1), value: fc.nat(255) }), { maxLength: 8 }),
      fc.nat(valid.length),
      (changes, length) => {
        const bytes = Buffer.from(valid.subarray(0, length))
        for (const { at, value } of changes) if (at < length) bytes[at] = value
        const path = join(folder, 'fuzz.pcapng')
        writeFileSync(path, bytes)
        try {
          const reader = new CaptureReader(path)
          try {
            while (reader.next()) if (reader.offset + reader.length > reader.memory.length) throw new Error('outside')
          } finally {
            reader.close()
          }
        } catch (error) {
          if (!(error instanceof CaptureError)) throw error
        }
      },
    ),
    { numRuns: 1000 },
  )
  t.pass()
})
