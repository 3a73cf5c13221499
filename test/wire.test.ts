import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import asc from 'assemblyscript/asc'
import test from 'ava'
import fc from 'fast-check'
import { packageRoot } from '../toolchain/package-root.ts'
import {
  arp,
  bytes,
  concat,
  ethernet,
  format,
  icmp,
  internetChecksum,
  ipNumber,
  ipText,
  ipv4,
  macBytes,
  macText,
  type Packet,
  parse,
  pseudoHeader,
  type TcpFields,
  tcp,
  tcpFrame,
  udp,
} from './support/packets.ts'

/** The views and builders of firmware/wire/, compiled alone; pointers are numbers, MAC addresses bigints. */
interface Wire {
  [name: string]: (...args: (number | bigint)[]) => number
}

const ENTRIES = ['checksum', 'ethernet', 'arp', 'ipv4', 'icmp', 'udp'].map((name) => `firmware/wire/${name}.ts`)

interface WasmApi {
  Memory: new (limits: { initial: number }) => { buffer: ArrayBuffer }
  instantiate(bytes: Uint8Array, imports: object): Promise<{ instance: { exports: unknown } }>
}
const wasm = (globalThis as unknown as { WebAssembly: WasmApi }).WebAssembly

async function compile(): Promise<{ wire: Wire; memory: Uint8Array }> {
  let binary: Uint8Array | undefined
  const options = ['--runtime', 'stub', '--importMemory', '--enable', 'simd', '--enable', 'bulk-memory', '-O3']
  const { error, stderr } = await asc.main([...ENTRIES, ...options, '--outFile', 'wire.wasm'], {
    readFile: (name: string) => {
      if (name.endsWith('asconfig.json')) return null // it would add the whole firmware
      try {
        return readFileSync(join(packageRoot, name), 'utf8')
      } catch {
        return null
      }
    },
    writeFile: (_name: string, contents: Uint8Array | string) => {
      if (contents instanceof Uint8Array) binary = contents
    },
    listFiles: () => [],
  })
  if (error || !binary) throw new Error(`asc: ${error?.message}\n${stderr.toString()}`)
  const memory = new wasm.Memory({ initial: 8 })
  const { instance } = await wasm.instantiate(binary, { env: { memory } })
  return { wire: instance.exports as Wire, memory: new Uint8Array(memory.buffer) }
}

const compiled = compile()
/** Where tests put packets: far from static data, at an address that is even but not a multiple of 4, as in a frame. */
const AT = 0x1000e

const anyIp = fc.nat(0xffffffff).map((n) => ipText(n >>> 0))
const anyMac = fc.uint8Array({ minLength: 6, maxLength: 6 }).map(macText)
const anyPort = fc.nat(0xffff)
const any32 = fc.nat(0xffffffff).map((n) => n >>> 0)
/** A 64-bit result, which arrives as a signed bigint. */
const mac = (result: number) => BigInt.asUintN(64, result as unknown as bigint)
const macNumber = (mac: string) => BigInt(`0x${mac.replaceAll(':', '')}`)

// ── checksum ──

test('checksumAdd equals the plain sum at every address and length', async (t) => {
  const { wire, memory } = await compiled
  const property = fc.property(
    fc.uint8Array({ maxLength: 3000 }),
    fc.nat(130),
    fc.nat(0x1ffff),
    (data, shift, initial) => {
      memory.fill(0xff, AT, AT + 4000)
      memory.set(data, AT + shift)
      const expected = internetChecksum(data, data.length % 2 ? Uint8Array.of(0) : new Uint8Array(0), word(initial))
      const sum = wire.checksumAdd!(AT + shift, data.length, swapped(initial))
      return wire.checksumFinish!(sum) === swap16(expected)
    },
  )
  t.notThrows(() => fc.assert(property, { numRuns: 500 }))
})

/** Bytes that add `value` to a sum of big-endian words. */
function word(value: number): Uint8Array {
  const folded = (value & 0xffff) + (value >>> 16)
  return Uint8Array.of(folded >>> 24, folded >>> 16, folded >>> 8, folded)
}

/** The same value in a sum of words as they stand in memory. */
function swapped(value: number): number {
  const folded = (value & 0xffff) + (value >>> 16)
  return swap16(folded & 0xffff) + swap16(folded >>> 16)
}

function swap16(value: number): number {
  return ((value & 255) << 8) | (value >>> 8)
}

test('checksumAdd of the longest run of ones does not overflow', async (t) => {
  const { wire, memory } = await compiled
  memory.fill(0xff, 0x20000, 0x30000)
  t.is(wire.checksumFold!(wire.checksumAdd!(0x20000, 0x10000, 0)), 0xffff)
  t.is(wire.checksumFold!(wire.checksumAdd!(0x20000, 0xffff, 0x1fffe)), swap16(0xff00))
})

test('checksumCopy copies exactly its bytes and sums them, in pieces that start anywhere', async (t) => {
  const { wire, memory } = await compiled
  const pieces = fc.array(fc.uint8Array({ maxLength: 200 }), { minLength: 1, maxLength: 6 })
  const property = fc.property(pieces, fc.nat(40), fc.nat(40), (parts, from, to) => {
    const all = concat(...parts)
    const source = AT + from
    const target = AT + 0x8000 + to
    memory.set(all, source)
    memory.fill(0xa5, target - 8, target + all.length + 64)
    let offset = 0
    let sum = 0
    for (const part of parts) {
      const piece = wire.checksumCopy!(target + offset, source + offset, part.length, 0)
      sum += offset % 2 ? wire.checksumOdd!(piece) : piece
      offset += part.length
    }
    const copied = Buffer.compare(memory.subarray(target, target + all.length), all) === 0
    const untouched = memory[target - 1] === 0xa5 && memory[target + all.length] === 0xa5
    return copied && untouched && wire.checksumFinish!(sum) === swap16(internetChecksum(all))
  })
  t.notThrows(() => fc.assert(property, { numRuns: 500 }))
})

test('pseudoHeaderSum equals the sum of the pseudo-header', async (t) => {
  const { wire } = await compiled
  const property = fc.property(anyIp, anyIp, fc.nat(255), fc.nat(0xffff), (source, destination, protocol, length) => {
    const sum = wire.pseudoHeaderSum!(ipNumber(source), ipNumber(destination), protocol, length)
    return wire.checksumFinish!(sum) === swap16(internetChecksum(pseudoHeader(source, destination, protocol, length)))
  })
  t.notThrows(() => fc.assert(property))
})

// ── headers, against the builders of test/support ──

test('Ethernet: write and read', async (t) => {
  const { wire, memory } = await compiled
  const property = fc.property(anyMac, anyMac, anyPort, (destinationMac, sourceMac, type) => {
    wire.ethernetWrite!(AT, macNumber(destinationMac), macNumber(sourceMac), type)
    const expected = ethernet({ destinationMac, sourceMac, type, payload: new Uint8Array(0) })
    return (
      Buffer.compare(memory.subarray(AT, AT + 14), expected) === 0 &&
      mac(wire.ethernetDestination!(AT)) === macNumber(destinationMac) &&
      mac(wire.ethernetSource!(AT)) === macNumber(sourceMac) &&
      wire.ethernetType!(AT) === type &&
      Boolean(wire.macIsGroup!(macNumber(destinationMac))) === ((macBytes(destinationMac)[0]! & 1) === 1)
    )
  })
  t.notThrows(() => fc.assert(property))
})

test('ARP: write and read', async (t) => {
  const { wire, memory } = await compiled
  const property = fc.property(
    fc.nat(3),
    anyMac,
    anyIp,
    anyMac,
    anyIp,
    (operation, senderMac, sender, targetMac, target) => {
      const numbers = [macNumber(senderMac), ipNumber(sender), macNumber(targetMac), ipNumber(target)]
      wire.arpWrite!(AT, operation, ...numbers)
      const expected = arp({ operation, senderMac, sender, targetMac, target })
      const read = [
        mac(wire.arpSenderMac!(AT)),
        wire.arpSender!(AT) >>> 0,
        mac(wire.arpTargetMac!(AT)),
        wire.arpTarget!(AT) >>> 0,
      ]
      return (
        Buffer.compare(memory.subarray(AT, AT + 28), expected) === 0 &&
        Boolean(wire.arpIsIpv4!(AT)) &&
        wire.arpOperation!(AT) === operation &&
        read.every((value, i) => value === numbers[i])
      )
    },
  )
  t.notThrows(() => fc.assert(property))
})

test('ARP: other address families are told apart', async (t) => {
  const { wire, memory } = await compiled
  const good = arp({ operation: 'request', senderMac: '02:00:00:00:00:01', sender: '192.0.2.1', target: '192.0.2.2' })
  for (const at of [0, 1, 2, 3, 4, 5]) {
    memory.set(good, AT)
    memory[AT + at]! ^= 1
    t.false(Boolean(wire.arpIsIpv4!(AT)), `byte ${at}`)
  }
})

test('IPv4: write, check and read', async (t) => {
  const { wire, memory } = await compiled
  const fields = fc.record({
    source: anyIp,
    destination: anyIp,
    protocol: fc.nat(255),
    identification: fc.nat(0xffff),
    ttl: fc.nat(255),
    dontFragment: fc.boolean(),
    moreFragments: fc.boolean(),
    offset: fc.nat(0x1fff).map((blocks) => blocks * 8),
    payload: fc.uint8Array({ maxLength: 100 }),
  })
  const property = fc.property(fields, fc.nat(255), (f, tos) => {
    const expected = ipv4(f)
    const flags = (f.dontFragment ? 0x4000 : 0) | (f.moreFragments ? 0x2000 : 0) | (f.offset / 8)
    const [source, destination] = [ipNumber(f.source), ipNumber(f.destination)]
    wire.ipv4Write!(AT, expected.length, f.identification, flags, f.ttl, f.protocol, source, destination)
    const written = Buffer.compare(memory.subarray(AT, AT + 20), expected.subarray(0, 20)) === 0
    const read =
      wire.ipv4Check!(AT, expected.length) === 0 &&
      wire.ipv4HeaderBytes!(AT) === 20 &&
      wire.ipv4TotalBytes!(AT) === expected.length &&
      wire.ipv4Identification!(AT) === f.identification &&
      wire.ipv4Fragment!(AT) === flags &&
      wire.ipv4Ttl!(AT) === f.ttl &&
      wire.ipv4Protocol!(AT) === f.protocol &&
      wire.ipv4Source!(AT) >>> 0 === source &&
      wire.ipv4Destination!(AT) >>> 0 === destination
    wire.ipv4SetTos!(AT, tos)
    const marked = ipv4({ ...f, tos }).subarray(0, 20)
    return written && read && Buffer.compare(memory.subarray(AT, AT + 20), marked) === 0 && wire.ipv4Tos!(AT) === tos
  })
  t.notThrows(() => fc.assert(property, { numRuns: 500 }))
})

test('IPv4: changing the length of a header with options keeps its checksum good', async (t) => {
  const { wire, memory } = await compiled
  const options = fc.uint8Array({ maxLength: 40 })
  const property = fc.property(options, fc.integer({ min: 60, max: 65535 }), (given, totalLength) => {
    const base = {
      source: '192.0.2.1',
      destination: '192.0.2.2',
      protocol: 17,
      payload: new Uint8Array(0),
      options: given,
    }
    const before = ipv4({ ...base, identification: 7, moreFragments: true })
    memory.set(before, AT)
    wire.ipv4Resize!(AT, totalLength, 0x4000)
    const after = ipv4({ ...base, identification: 7, dontFragment: true, totalLength })
    return Buffer.compare(memory.subarray(AT, AT + after.length), after) === 0
  })
  t.notThrows(() => fc.assert(property))
})

const HEADER = { source: '192.0.2.1', destination: '192.0.2.2', protocol: 6, payload: bytes(40) }
const OK = 0
const BAD_HEADER = 1
const BAD_CHECKSUM = 2

for (const [title, packet, there, expected] of [
  ['a plain packet', ipv4(HEADER), 60, OK],
  ['padding behind the packet', concat(ipv4(HEADER), bytes(20)), 80, OK],
  ['options', ipv4({ ...HEADER, options: Uint8Array.of(1, 1, 1, 0) }), 64, OK],
  ['a header of 60 bytes', ipv4({ ...HEADER, options: new Uint8Array(40) }), 100, OK],
  ['no payload', ipv4({ ...HEADER, payload: new Uint8Array(0) }), 20, OK],
  ['nothing', new Uint8Array(0), 0, BAD_HEADER],
  ['19 bytes', ipv4(HEADER), 19, BAD_HEADER],
  ['version 6', ipv4({ ...HEADER, version: 6 }), 60, BAD_HEADER],
  ['IHL 4', ipv4({ ...HEADER, headerWords: 4 }), 60, BAD_HEADER],
  ['IHL beyond the total length', ipv4({ ...HEADER, headerWords: 15, totalLength: 40 }), 60, BAD_HEADER],
  ['total length beyond the frame', ipv4({ ...HEADER, totalLength: 61 }), 60, BAD_HEADER],
  ['total length shorter than the header', ipv4({ ...HEADER, totalLength: 19 }), 60, BAD_HEADER],
  ['a bad checksum', ipv4({ ...HEADER, checksum: 0x1234 }), 60, BAD_CHECKSUM],
  ['a bad checksum with options', ipv4({ ...HEADER, options: bytes(4), checksum: 1 }), 64, BAD_CHECKSUM],
] as const) {
  test(`IPv4 check: ${title}`, async (t) => {
    const { wire, memory } = await compiled
    memory.fill(0x45, AT, AT + 200)
    memory.set(packet, AT)
    t.is(wire.ipv4Check!(AT, there), expected)
  })
}

test('ICMP: write, and an echo request turned into its reply', async (t) => {
  const { wire, memory } = await compiled
  const property = fc.property(any32, fc.uint8Array({ maxLength: 100 }), (rest, payload) => {
    const request = icmp({ type: 8, rest, payload })
    memory.set(payload, AT + 8)
    wire.icmpWrite!(AT, 8, 0, rest, request.length)
    const written = Buffer.compare(memory.subarray(AT, AT + request.length), request) === 0
    wire.icmpTurnEcho!(AT, request.length)
    const reply = icmp({ type: 0, rest, payload })
    return written && Buffer.compare(memory.subarray(AT, AT + reply.length), reply) === 0
  })
  t.notThrows(() => fc.assert(property, { numRuns: 500 }))
})

test('ICMP: the reply to an echo request of zeros has a checksum of ones', async (t) => {
  const { wire, memory } = await compiled
  memory.set(icmp({ type: 8, payload: new Uint8Array(12) }), AT)
  wire.icmpTurnEcho!(AT, 20)
  t.deepEqual(memory.slice(AT, AT + 20), icmp({ type: 0, payload: new Uint8Array(12) }))
})

test('UDP: write and read', async (t) => {
  const { wire, memory } = await compiled
  const property = fc.property(anyPort, anyPort, fc.integer({ min: 8, max: 0xffff }), (from, to, length) => {
    wire.udpWrite!(AT, from, to, length)
    const ports = { source: '0.0.0.0', destination: '0.0.0.0', sourcePort: from, destinationPort: to }
    const expected = udp({ ...ports, udpLength: length, udpChecksum: 0 })
    return (
      Buffer.compare(memory.subarray(AT, AT + 8), expected) === 0 &&
      wire.udpSourcePort!(AT) === from &&
      wire.udpDestinationPort!(AT) === to &&
      wire.udpBytes!(AT) === length &&
      wire.udpChecksum!(AT) === 0
    )
  })
  t.notThrows(() => fc.assert(property))
})

// ── the tests' own builders and parser ──

const tcpFields = fc.record({
  sourcePort: anyPort,
  destinationPort: anyPort,
  sequence: any32,
  acknowledgment: any32,
  flags: fc.subarray([...'SFRPAUEC']).map((flags) => flags.join('')),
  window: fc.nat(0xffff),
  urgent: fc.nat(0xffff),
  options: fc.record(
    {
      mss: fc.nat(0xffff),
      windowScale: fc.nat(14),
      sackPermitted: fc.constant(true),
      timestamps: fc.tuple(any32, any32),
    },
    { requiredKeys: [] },
  ),
  payload: fc.uint8Array({ maxLength: 100 }),
})

test('test builders and parser agree: TCP', (t) => {
  const link = { destinationMac: '02:00:00:00:00:01', sourceMac: '02:00:00:00:00:02' }
  const property = fc.property(tcpFields, anyIp, anyIp, (fields, source, destination) => {
    const packet = parse(tcpFrame({ ...link, source, destination, ...(fields as TcpFields) }))
    const { kinds: _, ...options } = packet.tcp!.options
    const same = { ...packet.tcp, options, payload: Buffer.from(packet.tcp!.payload) }
    t.deepEqual(packet.problems, [])
    t.deepEqual(same, { ...fields, payload: Buffer.from(fields.payload) } as never)
    return packet.ipv4?.source === source && packet.ipv4.destination === destination && !format(packet).includes('!!')
  })
  t.notThrows(() => fc.assert(property))
})

const BROKEN = { source: '192.0.2.1', destination: '192.0.2.2', sourcePort: 1, destinationPort: 2 }
const wrap = (payload: Uint8Array, protocol: number, extra = {}) =>
  ethernet({
    destinationMac: '02:00:00:00:00:01',
    sourceMac: '02:00:00:00:00:02',
    type: 0x0800,
    payload: ipv4({ ...BROKEN, protocol, payload, ...extra }),
  })

for (const [title, frame, problem] of [
  ['a frame of 13 bytes', new Uint8Array(13), 'frame of 13 bytes'],
  ['IPv4 checksum', wrap(bytes(8), 99, { checksum: 1 }), 'IPv4 checksum'],
  ['IPv4 length', wrap(bytes(8), 99, { totalLength: 100 }), 'IPv4 total length 100 of 28'],
  ['ICMP checksum', wrap(icmp({ type: 8, icmpChecksum: 1 }), 1), 'ICMP checksum'],
  ['UDP checksum', wrap(udp({ ...BROKEN, udpChecksum: 1 }), 17), 'UDP checksum'],
  ['UDP length', wrap(udp({ ...BROKEN, udpLength: 9 }), 17), 'UDP length 9 of 8'],
  ['TCP checksum', wrap(tcp({ ...BROKEN, flags: 'S', tcpChecksum: 1 }), 6), 'TCP checksum'],
  ['TCP header', wrap(tcp({ ...BROKEN, flags: 'S', tcpHeaderWords: 6 }), 6), 'TCP header of 24 bytes in 20'],
] as [string, Uint8Array, string][]) {
  test(`test parser names the problem: ${title}`, (t) => {
    const packet: Packet = parse(frame)
    t.deepEqual(packet.problems, [problem])
    t.true(format(frame).endsWith(`!! ${problem}`))
  })
}

test('test parser never throws', (t) => {
  t.notThrows(() => fc.assert(fc.property(fc.uint8Array({ maxLength: 120 }), (frame) => format(frame).length > 0)))
  const typed = fc.uint8Array({ minLength: 15, maxLength: 120 }).map((frame) => {
    frame.set([0x08, 0x00, 0x45], 12)
    return frame
  })
  t.notThrows(() => fc.assert(fc.property(typed, (frame) => format(frame).length > 0)))
})
