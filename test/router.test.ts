import test from 'ava'
import fc from 'fast-check'
import { Farm } from '../emulator/farm.ts'
import type { RouterDrops } from '../emulator/router/router.ts'
import { TestPort } from './emulator-kit.ts'
import {
  arpFrame,
  BROADCAST_MAC,
  bytes,
  concat,
  ethernet,
  expectFrames,
  formatAll,
  type Ipv4Fields,
  icmp,
  icmpFrame,
  ipNumber,
  ipv4Frame,
  type LinkFields,
  macBytes,
  type PacketPattern,
  parse,
  quotedPacket,
  udp,
  udpFrame,
} from './support/packets.ts'
import {
  A,
  answer,
  ask,
  B,
  by,
  C,
  ENDS,
  NEXT_B,
  NEXT_C,
  RouterLab,
  type RouterStation,
  type Sent,
} from './support/router-lab.ts'

const PORTS = { sourcePort: 1000, destinationPort: 2000 }

/** A UDP datagram of A for `destination`. */
function datagram(destination: string, fields: Partial<Ipv4Fields & LinkFields> = {}, payload = bytes(32)): Uint8Array {
  const addresses = { ...by(A, destination), ...fields }
  return ipv4Frame({ protocol: 17, payload: udp({ ...PORTS, ...addresses, payload }), ...addresses })
}

/** As it leaves to `to`. */
function passed(to: RouterStation, fields: PacketPattern = {}): PacketPattern {
  return { port: to.port, destinationMac: to.mac, sourceMac: ENDS[to.port].mac, ...fields }
}

/** An ICMP error from the router to A. */
function error(type: number, code: number, rest = 0): PacketPattern {
  return passed(A, { ipv4: { source: ENDS[0].ip, destination: A.ip, ttl: 64 }, icmp: { type, code, rest } })
}

function request(port: number, target: string): PacketPattern {
  const { mac, ip } = ENDS[port]
  return { port, destinationMac: BROADCAST_MAC, arp: { operation: 'request', senderMac: mac, sender: ip, target } }
}

// ── forwarding ──

for (const [title, destination, next] of [
  ['to a host on another network', B.ip, B],
  ['to a host on the network that it came from', '192.0.2.11', undefined],
  ['by a static route', '10.9.9.9', NEXT_B],
  ['by the longer of two prefixes', '10.1.9.9', NEXT_C],
  ['by a route to one host', '10.1.2.3', NEXT_B],
] as const) {
  test(`a packet is forwarded ${title}`, async (t) => {
    const there = next ?? { port: 0, mac: '02:00:00:00:0a:02', ip: destination }
    const lab = await RouterLab.make({}, [A, B, C, NEXT_B, NEXT_C, there])
    const frame = datagram(destination, { ttl: 17, identification: 7, tos: 0xb8, dontFragment: true })
    const ipv4 = { source: A.ip, destination, ttl: 16, identification: 7, tos: 0xb8, dontFragment: true }
    const [packet] = expectFrames(t, await lab.send(0, frame), [passed(there, { ipv4, udp: PORTS })])
    t.deepEqual(packet.udp?.payload, bytes(32))
    t.is(lab.router.statistics().forwarded, 1)
  })
}

test('a reply may come in by any port: sources are not checked against routes', async (t) => {
  const lab = await RouterLab.make()
  const frame = datagram(C.ip, { ...by(B, C.ip), source: '172.16.0.1' })
  expectFrames(t, await lab.send(1, frame), [passed(C, { ipv4: { source: '172.16.0.1', destination: C.ip } })])
})

test('padding behind the packet stays behind', async (t) => {
  const lab = await RouterLab.make()
  const [{ frame }] = await lab.send(0, concat(datagram(B.ip, {}, bytes(1)), new Uint8Array(17)))
  t.is(frame.length, 14 + 20 + 8 + 1)
})

test('options go along', async (t) => {
  const lab = await RouterLab.make()
  for (const options of [Uint8Array.of(0x94, 4, 0, 0), Uint8Array.of(7, 0, 255, 255), new Uint8Array(40).fill(1)]) {
    expectFrames(t, await lab.send(0, datagram(B.ip, { options })), [passed(B, { ipv4: { options, ttl: 63 } })])
  }
})

test('the header checksum is that of the new header, for every TTL, protocol and address', async (t) => {
  const lab = await RouterLab.make()
  const header = fc.record({
    ttl: fc.integer({ min: 2, max: 255 }),
    protocol: fc.nat(255),
    identification: fc.nat(0xffff),
    tos: fc.nat(255),
    source: fc.nat(0xffffff).map((n) => `172.${n >>> 16}.${(n >>> 8) & 255}.${n & 255}`),
  })
  await fc.assert(
    fc.asyncProperty(header, async (fields) => {
      const sent = await lab.send(0, ipv4Frame({ ...by(A, B.ip), payload: bytes(8), ...fields }))
      const { ipv4, problems } = parse(sent[0].frame)
      return ipv4?.ttl === fields.ttl - 1 && problems.filter((problem) => problem.includes('IPv4')).length === 0
    }),
    { numRuns: 300 },
  )
  t.true(lab.router.statistics().forwarded >= 300)
})

test('a default route takes what no other does', async (t) => {
  const routes = [{ network: 0, prefix: 0, via: ipNumber(NEXT_B.ip) }]
  const lab = await RouterLab.make({ routes })
  expectFrames(t, await lab.send(0, datagram('8.8.8.8')), [passed(NEXT_B, { ipv4: { destination: '8.8.8.8' } })])
  expectFrames(t, await lab.send(0, datagram(C.ip)), [passed(C)])
})

test('a port without a carrier leads nowhere; another route takes over', async (t) => {
  const routes = [{ network: 0, prefix: 0, via: ipNumber(NEXT_C.ip) }]
  const lab = await RouterLab.make({ routes })
  lab.cables[1].cut()
  expectFrames(t, await lab.send(0, datagram(B.ip)), [passed(NEXT_C, { ipv4: { destination: B.ip } })])
  lab.cables[2].cut()
  expectFrames(t, await lab.send(0, datagram(B.ip)), [error(3, 0)])
  lab.cables[1].mend()
  expectFrames(t, await lab.send(0, datagram(B.ip)), [request(1, B.ip)])
})

test('a frame takes as long as the router says', async (t) => {
  const lab = await RouterLab.make({ delayNs: 40_000 })
  await lab.settle()
  const startNs = lab.farm.now()
  lab.inject(0, datagram(B.ip))
  const [{ timeNs }] = await lab.settle()
  t.is(timeNs - startNs, 40_000)
})

test('two routers on one switch pass packets on: the answer is not lost in the switch', async (t) => {
  const farm = new Farm({ clock: 'virtual' })
  const hub = farm.addSwitch('internet')
  const lans = [1, 2].map((n) => {
    const router = farm.addRouter(`router-${n}`, {
      interfaces: [
        { name: 'internet', mac: Uint8Array.of(2, 0, 0, 0, n, 0), address: 0xc0000200 + n, prefix: 24, mtuBytes: 1500 },
        {
          name: 'lan',
          mac: Uint8Array.of(2, 0, 0, 0, n, 1),
          address: 0x0a000001 + (n << 8),
          prefix: 24,
          mtuBytes: 1500,
        },
      ],
      routes: [{ network: 0x0a000000 + ((3 - n) << 8), prefix: 24, via: 0xc0000200 + (3 - n) }],
    })
    const lan = new TestPort(`lan-${n}`)
    farm.connect(router.ports[0], hub.addPort())
    farm.connect(lan, router.ports[1])
    return lan
  })
  const sender = { destinationMac: '02:00:00:00:01:01', sourceMac: '02:00:00:00:00:09' }
  lans[0].send(icmpFrame({ ...sender, source: '10.0.1.9', destination: '10.0.2.9', type: 8 }), 0)
  await farm.run(1e6)
  const [asked] = lans[1].frames
  t.like(parse(asked.bytes).arp, { operation: 'request', target: '10.0.2.9' })
  const reply = { operation: 'reply', senderMac: '02:00:00:00:00:08', sender: '10.0.2.9' } as const
  lans[1].send(arpFrame({ ...reply, targetMac: '02:00:00:00:02:01', target: '10.0.2.1' }), farm.now())
  await farm.run(2e6)
  t.like(parse(lans[1].frames[1].bytes).ipv4, { source: '10.0.1.9', destination: '10.0.2.9', ttl: 62 })
})

// ── what is dropped without a word ──

const SILENT: Record<string, { frame: Uint8Array; reason: keyof RouterDrops }> = {
  'version 6': { frame: datagram(B.ip, { version: 6 }), reason: 'header' },
  'IHL 4': { frame: datagram(B.ip, { headerWords: 4 }), reason: 'header' },
  'a header longer than the packet': { frame: datagram(B.ip, { headerWords: 15, totalLength: 40 }), reason: 'header' },
  'a length beyond the frame': { frame: datagram(B.ip, { totalLength: 200 }), reason: 'header' },
  'a frame too short for a header': { frame: datagram(B.ip).subarray(0, 33), reason: 'header' },
  'an empty frame': { frame: datagram(B.ip).subarray(0, 14), reason: 'header' },
  'a wrong checksum': { frame: datagram(B.ip, { checksum: 0x1234 }), reason: 'checksum' },
  'another EtherType': {
    frame: ethernet({ destinationMac: ENDS[0].mac, sourceMac: A.mac, type: 0x86dd, payload: bytes(60) }),
    reason: 'protocol',
  },
  'a frame to everybody': { frame: datagram(B.ip, { destinationMac: BROADCAST_MAC }), reason: 'broadcastFrame' },
  'from 0.0.0.0': { frame: datagram(B.ip, { source: '0.0.0.0' }), reason: 'source' },
  'from a loopback address': { frame: datagram(B.ip, { source: '127.0.0.1' }), reason: 'source' },
  'from a group': { frame: datagram(B.ip, { source: '224.0.0.1' }), reason: 'source' },
  'from class E': { frame: datagram(B.ip, { source: '250.0.0.1' }), reason: 'source' },
  'from everybody': { frame: datagram(B.ip, { source: '255.255.255.255' }), reason: 'source' },
  'from a link-local address': { frame: datagram(B.ip, { source: '169.254.1.1' }), reason: 'source' },
  "from the network's broadcast address": { frame: datagram(B.ip, { source: '192.0.2.255' }), reason: 'source' },
  'from the router itself': { frame: datagram(B.ip, { source: ENDS[1].ip }), reason: 'source' },
  'to everybody on the link': { frame: datagram('255.255.255.255'), reason: 'destination' },
  'to 0.0.0.0': { frame: datagram('0.0.0.0'), reason: 'destination' },
  'to a loopback address': { frame: datagram('127.0.0.1'), reason: 'destination' },
  'to a group': { frame: datagram('239.1.1.1'), reason: 'destination' },
  'to class E': { frame: datagram('240.0.0.1'), reason: 'destination' },
  'to a link-local address': { frame: datagram('169.254.1.1'), reason: 'destination' },
  'to everybody on another network': { frame: datagram('198.51.100.255'), reason: 'destination' },
  'to another network itself': { frame: datagram('198.51.100.0'), reason: 'destination' },
  'longer than any port carries': { frame: concat(datagram(B.ip), new Uint8Array(4000)), reason: 'overflow' },
}

for (const [title, { frame, reason }] of Object.entries(SILENT)) {
  test(`dropped without a word: ${title}`, async (t) => {
    const lab = await RouterLab.make()
    expectFrames(t, await lab.send(0, frame), [])
    const { dropped, forwarded } = lab.router.statistics()
    t.is(forwarded, 0)
    t.deepEqual(
      Object.entries(dropped).filter(([, count]) => count > 0),
      [[reason, 1]],
    )
  })
}

test('frames for others are not looked at', async (t) => {
  const lab = await RouterLab.make()
  const { received } = lab.router.statistics()
  for (const destinationMac of [B.mac, '01:00:5e:00:00:01', '33:33:00:00:00:01'])
    expectFrames(t, await lab.send(0, datagram(B.ip, { destinationMac })), [])
  expectFrames(t, await lab.send(0, bytes(13)), [])
  t.is(lab.router.statistics().received, received)
})

// ── ICMP errors (RFC 1812 §4.3.2, §5.2.7) ──

for (const ttl of [0, 1]) {
  test(`TTL ${ttl}: time exceeded, quoting the packet`, async (t) => {
    const lab = await RouterLab.make()
    const frame = datagram(B.ip, { ttl })
    const [packet] = expectFrames(t, await lab.send(0, frame), [error(11, 0)])
    t.deepEqual(packet.icmp?.payload, frame.subarray(14))
    t.is(packet.ipv4?.tos, 0xc0, 'internetwork control')
  })
}

test('no route: network unreachable', async (t) => {
  const lab = await RouterLab.make()
  expectFrames(t, await lab.send(0, datagram('8.8.8.8')), [error(3, 0)])
})

test('no answer to ARP: host unreachable, after three requests a second apart', async (t) => {
  const lab = await RouterLab.make()
  lab.inject(0, datagram('198.51.100.77', { ttl: 9 }))
  const startNs = lab.farm.now()
  const sent = await lab.wait(3500)
  const asked = request(1, '198.51.100.77')
  const packets = expectFrames(t, sent, [asked, asked, asked, error(3, 1)])
  t.deepEqual(
    sent.map(({ timeNs }) => Math.round((timeNs - startNs) / 1e6)),
    [0, 1000, 2000, 3000],
  )
  t.is(quotedPacket(packets[3]).ipv4?.ttl, 8, 'the packet as it was when it could not go on')
  t.is(lab.router.statistics().dropped.unresolved, 1)
})

test("too big for the way out and not to be fragmented: fragmentation needed, with that way's MTU", async (t) => {
  const lab = await RouterLab.make()
  const fits = datagram(C.ip, { dontFragment: true }, bytes(600 - 28))
  expectFrames(t, await lab.send(0, fits), [passed(C, { ipv4: { totalLength: 600 } })])
  const tooBig = datagram(C.ip, { dontFragment: true }, bytes(600 - 27))
  const [packet] = expectFrames(t, await lab.send(0, tooBig), [error(3, 4, 600)])
  t.is(packet.ipv4?.totalLength, 576, 'as much as fits')
  t.deepEqual(packet.icmp?.payload, tooBig.subarray(14, 14 + 548))
})

test('an error goes the way that its receiver is reached by, with the address of that port', async (t) => {
  const lab = await RouterLab.make()
  const frame = datagram('8.8.8.8', { source: '10.1.9.9' })
  const ipv4 = { source: ENDS[2].ip, destination: '10.1.9.9' }
  expectFrames(t, await lab.send(0, frame), [passed(NEXT_C, { ipv4, icmp: { type: 3, code: 0 } })])
})

const EXPIRED = { ...by(A, B.ip), ttl: 1 }
const MUTE: Record<string, Uint8Array> = {
  'an ICMP error': icmpFrame({ ...EXPIRED, type: 3, code: 1, payload: bytes(28) }),
  'a redirect': icmpFrame({ ...EXPIRED, type: 5, code: 1, payload: bytes(28) }),
  'a source quench': icmpFrame({ ...EXPIRED, type: 4, payload: bytes(28) }),
  'a time exceeded': icmpFrame({ ...EXPIRED, type: 11, payload: bytes(28) }),
  'a parameter problem': icmpFrame({ ...EXPIRED, type: 12, payload: bytes(28) }),
  'an ICMP packet without a type': ipv4Frame({ ...EXPIRED, protocol: 1, payload: new Uint8Array(0) }),
  'a later fragment': ipv4Frame({ ...EXPIRED, protocol: 17, offset: 8, payload: bytes(64) }),
  'a source that has no route': datagram('8.8.8.8', { source: '9.9.9.9' }),
}

for (const [title, frame] of Object.entries(MUTE)) {
  test(`no ICMP error about ${title} (RFC 1812 §4.3.2.7)`, async (t) => {
    const lab = await RouterLab.make()
    expectFrames(t, await lab.send(0, frame), [])
    t.is(lab.router.statistics().icmpErrors, 0)
  })
}

for (const [title, frame] of [
  ['an echo request', icmpFrame({ ...EXPIRED, type: 8 })],
  ['an echo reply', icmpFrame({ ...EXPIRED, type: 0 })],
  ['a first fragment', ipv4Frame({ ...EXPIRED, protocol: 17, moreFragments: true, payload: bytes(64) })],
] as const) {
  test(`an ICMP error about ${title}`, async (t) => {
    const lab = await RouterLab.make()
    expectFrames(t, await lab.send(0, frame), [error(11, 0)])
  })
}

test('errors are limited: so many at once, so many a second after that', async (t) => {
  const lab = await RouterLab.make({ errorsPerSecond: 20 })
  const burst = async () => {
    for (let n = 0; n < 50; n++) lab.inject(0, datagram('8.8.8.8'))
    return (await lab.settle()).length
  }
  t.is(await burst(), 20)
  t.is(await burst(), 0)
  await lab.wait(500)
  t.is(await burst(), 10)
  t.is(lab.router.statistics().icmpSuppressed, 50 + 50 + 50 - 30)
})

// ── packets for the router itself ──

for (const [title, asked] of [
  ['the address of the port that it came in by', ENDS[0].ip],
  ['that of another port', ENDS[2].ip],
] as const) {
  test(`echo to ${title} is answered from there`, async (t) => {
    const lab = await RouterLab.make()
    const echo = { type: 8, rest: 0x12340001, payload: bytes(56) }
    const ipv4 = { source: asked, destination: A.ip, ttl: 64, options: new Uint8Array(0) }
    const reply = passed(A, { ipv4, icmp: { ...echo, type: 0, code: 0 } })
    expectFrames(t, await lab.send(0, icmpFrame({ ...by(A, asked), ...echo })), [reply])
    const options = Uint8Array.of(7, 7, 4, 0, 0, 0, 0, 0)
    expectFrames(t, await lab.send(0, icmpFrame({ ...by(A, asked), ...echo, options, ttl: 1 })), [reply])
    t.is(lab.router.statistics().answered, 2)
  })
}

test('echo of every length comes back as it was, in fragments where the way back is narrow', async (t) => {
  const lab = await RouterLab.make()
  for (const length of [0, 1, 2, 57, 571, 572, 1471, 1472]) {
    const payload = bytes(length)
    const [reply] = await lab.send(0, icmpFrame({ ...by(A, ENDS[0].ip), type: 8, payload }))
    t.deepEqual(parse(reply.frame).icmp?.payload, payload)
    const back = await lab.send(2, icmpFrame({ ...by(C, ENDS[2].ip), type: 8, payload }))
    t.is(back.length, length + 28 <= 600 ? 1 : Math.ceil((length + 8) / 576))
    t.deepEqual(reassemble(back).subarray(8), payload)
  }
})

for (const [title, fields, code] of [
  ['UDP: port unreachable', { protocol: 17 }, 3],
  ['TCP, which it does not speak: protocol unreachable', { protocol: 6 }, 2],
  ['any other protocol: protocol unreachable', { protocol: 89 }, 2],
] as const) {
  test(`for the router itself, ${title}`, async (t) => {
    const lab = await RouterLab.make()
    const frame = ipv4Frame({ ...by(A, ENDS[1].ip), ...fields, payload: bytes(40) })
    expectFrames(t, await lab.send(0, frame), [error(3, code)])
  })
}

for (const [title, frame] of [
  ['an echo request with a wrong checksum', icmpFrame({ ...by(A, ENDS[0].ip), type: 8, icmpChecksum: 1 })],
  ['an echo request that is cut short', ipv4Frame({ ...by(A, ENDS[0].ip), protocol: 1, payload: bytes(7) })],
  ['an echo reply', icmpFrame({ ...by(A, ENDS[0].ip), type: 0 })],
  ['an unknown ICMP type', icmpFrame({ ...by(A, ENDS[0].ip), type: 200 })],
  [
    'a fragment',
    ipv4Frame({
      ...by(A, ENDS[0].ip),
      protocol: 1,
      moreFragments: true,
      payload: icmp({ type: 8, payload: bytes(8) }),
    }),
  ],
] as const) {
  test(`for the router itself, and not answered: ${title}`, async (t) => {
    const lab = await RouterLab.make()
    expectFrames(t, await lab.send(0, frame), [])
    t.is(lab.router.statistics().dropped.refused, 1)
  })
}

// ── fragmentation (RFC 791 §3.2) ──

/** The payload that the fragments make, checked for gaps, and for what must be the same in all. */
function reassemble(sent: readonly Sent[]): Uint8Array {
  const packets = sent.map(({ frame }) => parse(frame).ipv4!)
  let end = packets[0].offset
  for (const [index, packet] of packets.entries()) {
    if (packet.offset !== end) throw new Error(`fragment at ${packet.offset}, not ${end}\n${formatAll([...sent])}`)
    if (packet.identification !== packets[0].identification) throw new Error('another identification')
    if (index < packets.length - 1 && !packet.moreFragments) throw new Error('an end in the middle')
    end += packet.payload.length
  }
  return concat(...packets.map(({ payload }) => payload))
}

test('what is too big is taken apart: every fragment fits, and together they are the packet', async (t) => {
  const lab = await RouterLab.make()
  for (const size of [573, 576, 580, 1148, 1152, 1472]) {
    const frame = datagram(C.ip, { identification: 0x1000 + size, ttl: 9 }, bytes(size))
    const sent = await lab.send(0, frame)
    t.is(sent.length, Math.ceil((size + 8) / 576), `${size} bytes`)
    t.deepEqual(reassemble(sent), frame.subarray(34))
    for (const [index, { port, frame: piece }] of sent.entries()) {
      const { ipv4, problems, destinationMac } = parse(piece)
      t.deepEqual([port, destinationMac, ipv4!.ttl], [2, C.mac, 8])
      t.true(ipv4!.totalLength <= 600)
      t.is(ipv4!.moreFragments, index < sent.length - 1)
      t.deepEqual(
        problems.filter((problem) => problem.includes('IPv4')),
        [],
      )
    }
  }
  t.is(lab.router.statistics().fragmented, 6)
})

test('a fragment is taken apart further, wherever it stands', async (t) => {
  const lab = await RouterLab.make()
  for (const moreFragments of [true, false]) {
    const payload = bytes(1200)
    const sent = await lab.send(0, ipv4Frame({ ...by(A, C.ip), protocol: 17, offset: 800, moreFragments, payload }))
    const offsets = sent.map(({ frame }) => parse(frame).ipv4!.offset)
    t.deepEqual(offsets, [800, 800 + 576, 800 + 1152])
    t.deepEqual(reassemble(sent), payload)
    t.is(parse(sent.at(-1)!.frame).ipv4!.moreFragments, moreFragments)
  }
})

test('later fragments have the options that are to be copied, and no others', async (t) => {
  const lab = await RouterLab.make()
  const copied = [0x94, 4, 0, 0]
  for (const [options, later] of [
    [[...copied, 7, 7, 4, 0, 0, 0, 0, 0], copied],
    [[7, 7, 4, 0, 0, 0, 0, 1, ...copied, 0, 0, 0, 0], copied],
    [[7, 7, 4, 0, 0, 0, 0, 0], []],
    [
      [0x94, 3, 9, 0],
      [0x94, 3, 9, 0],
    ],
    [[0x94, 0, 0, 0], []],
    [[0x94, 44, 0, 0], []],
    [[7, 1, 1, 1], []],
  ]) {
    const frame = datagram(C.ip, { options: Uint8Array.from(options) }, bytes(1000))
    const sent = await lab.send(0, frame)
    const [first, second] = sent.map(({ frame: piece }) => parse(piece).ipv4!)
    t.deepEqual([...first.options], options)
    t.deepEqual([...second.options], later)
    t.true(first.totalLength <= 600 && second.totalLength <= 600)
    t.deepEqual(reassemble(sent), frame.subarray(34 + options.length))
  }
})

// ── ARP ──

test('a request for the address of the port is answered, and teaches who asked', async (t) => {
  const lab = await RouterLab.make({}, [])
  const [end] = ENDS
  expectFrames(t, await lab.send(0, ask(A, end)), [
    passed(A, {
      arp: { operation: 'reply', senderMac: end.mac, sender: end.ip, targetMac: A.mac, target: A.ip },
    }),
  ])
  t.like(lab.router.neighbors(), [{ address: ipNumber(A.ip), state: 'reachable', mac: macBytes(A.mac) }])
})

for (const [title, port, frame] of [
  ['for the address of another port', 0, ask(A, ENDS[1])],
  ['for a neighbour', 0, ask(A, { ip: '192.0.2.11' })],
  ['with another hardware type', 0, patch(ask(A, ENDS[0]), 15, 6)],
  ['with another protocol', 0, patch(ask(A, ENDS[0]), 16, 0x86)],
  ['with long hardware addresses', 0, patch(ask(A, ENDS[0]), 18, 8)],
  ['of an unknown operation', 0, patch(ask(A, ENDS[0]), 21, 3)],
  ['that is cut short', 0, ask(A, ENDS[0]).subarray(0, 41)],
  ['from a group address', 0, ask({ ...A, mac: '01:00:00:00:00:01' }, ENDS[0])],
  ['from nobody', 0, ask({ ...A, mac: '00:00:00:00:00:00' }, ENDS[0])],
  ['from another network', 0, ask({ ...A, ip: B.ip }, ENDS[0])],
  ["from the network's broadcast address", 0, ask({ ...A, ip: '192.0.2.255' }, ENDS[0])],
] as const) {
  test(`an ARP request that is not answered, and teaches nothing: ${title}`, async (t) => {
    const lab = await RouterLab.make({}, [])
    expectFrames(t, await lab.send(port, frame), [])
    t.deepEqual(lab.router.neighbors(), [])
  })
}

function patch(frame: Uint8Array, at: number, value: number): Uint8Array {
  const copy = Uint8Array.from(frame)
  copy[at] = value
  return copy
}

test('a probe is answered and teaches nothing (RFC 5227)', async (t) => {
  const lab = await RouterLab.make({}, [])
  const reply = passed(A, { arp: { operation: 'reply', target: '0.0.0.0' } })
  expectFrames(t, await lab.send(0, ask({ ...A, ip: '0.0.0.0' }, ENDS[0])), [reply])
  t.deepEqual(lab.router.neighbors(), [])
})

test('who claims an address of the router is counted and not believed', async (t) => {
  const lab = await RouterLab.make({}, [])
  expectFrames(t, await lab.send(0, ask({ ...A, ip: ENDS[0].ip }, ENDS[0])), [])
  t.is(lab.router.statistics().arpConflicts, 1)
  t.deepEqual(lab.router.neighbors(), [])
})

test('packets wait for the answer and leave in their order', async (t) => {
  const lab = await RouterLab.make({}, [A])
  for (let n = 0; n < 5; n++) lab.inject(0, datagram(B.ip, { identification: n }))
  expectFrames(t, await lab.settle(), [request(1, B.ip)])
  const expected = [0, 1, 2, 3, 4].map((identification) => passed(B, { ipv4: { identification } }))
  expectFrames(t, await lab.send(1, answer(B)), expected)
})

test('sixteen packets wait for one neighbour, the newest', async (t) => {
  const lab = await RouterLab.make({}, [A])
  for (let n = 0; n < 40; n++) lab.inject(0, datagram(B.ip, { identification: n }))
  await lab.settle()
  const sent = await lab.send(1, answer(B))
  t.deepEqual(
    sent.map(({ frame }) => parse(frame).ipv4?.identification),
    Array.from({ length: 16 }, (_, n) => 24 + n),
  )
  t.is(lab.router.statistics().dropped.overflow, 24)
})

test('an answer that nobody asked for teaches nothing; one about a known address is news', async (t) => {
  const lab = await RouterLab.make({}, [A])
  await lab.send(1, answer(B))
  t.is(lab.router.neighbors().length, 1)
  const moved = { ...A, mac: '02:00:00:00:0a:99' }
  // A gratuitous request: the station's own address is asked for.
  await lab.send(0, ask(moved, A))
  await lab.send(1, ask(B, ENDS[1]))
  expectFrames(t, await lab.send(1, datagram(A.ip, by(B, A.ip))), [passed(moved)])
})

test('an old answer is confirmed by unicast while it is used; no answer, and it is asked for by broadcast', async (t) => {
  const lab = await RouterLab.make()
  await lab.wait(61_000)
  const unicast = { ...request(1, B.ip), destinationMac: B.mac }
  expectFrames(t, await lab.send(0, datagram(B.ip)), [unicast, passed(B)])
  expectFrames(t, await lab.send(1, answer(B)), [])
  await lab.wait(30_000)
  expectFrames(t, await lab.send(0, datagram(B.ip)), [passed(B)])
  await lab.wait(61_000)
  await lab.send(0, datagram(B.ip))
  await lab.wait(2500)
  expectFrames(t, await lab.send(0, datagram(B.ip)), [passed(B)])
  expectFrames(t, await lab.wait(1000), [request(1, B.ip)])
  expectFrames(t, await lab.send(0, datagram(B.ip)), [])
  const moved = { ...B, mac: '02:00:00:00:0b:99' }
  expectFrames(t, await lab.send(1, answer(moved)), [passed(moved)])
})

test('an address not heard of for ten minutes is asked for as if it were new', async (t) => {
  const lab = await RouterLab.make()
  await lab.wait(600_001)
  expectFrames(t, await lab.send(0, datagram(B.ip)), [request(1, B.ip)])
  expectFrames(t, await lab.send(1, answer(B)), [passed(B)])
})

test('an idle router leaves the clock alone', async (t) => {
  const lab = await RouterLab.make()
  await lab.send(0, datagram(B.ip))
  t.is(await lab.farm.run(() => false), 'idle')
  t.true(lab.farm.now() < 1e9)
})

test('a sweep over a network holds a bounded number of packets, and real neighbours are still found', async (t) => {
  const lab = await RouterLab.make({ errorsPerSecond: 1000 })
  const interfaces = lab.router.ports.length
  for (let n = 1; n < 250; n++) if (n !== 10) lab.inject(0, datagram(`198.51.100.${n}`))
  await lab.settle()
  t.true(lab.router.neighbors().length <= 128 + 5 + interfaces)
  expectFrames(t, await lab.send(0, datagram(B.ip)), [passed(B)])
  await lab.wait(4000)
  t.deepEqual(
    lab.router
      .neighbors()
      .map(({ waiting }) => waiting)
      .filter((waiting) => waiting > 0),
    [],
  )
  // All slots are back: a whole router's worth of frames goes through at once.
  for (let n = 0; n < 1000; n++) lab.inject(0, datagram(B.ip))
  t.is((await lab.settle()).length, 1000)
})

test('the cache has a bound; the neighbour not used for longest goes', async (t) => {
  const farm = new Farm({ clock: 'virtual' })
  const mac = Uint8Array.of(2, 0, 0, 0, 0, 1)
  const router = farm.addRouter('wide', {
    interfaces: [{ name: 'net', mac, address: 0x0a000001, prefix: 8, mtuBytes: 1500 }],
  })
  const station = new TestPort('station')
  farm.connect(station, router.ports[0])
  for (let n = 2; n < 1500; n++) {
    const ip = `10.0.${n >> 8}.${n & 255}`
    const frame = arpFrame({ operation: 'request', senderMac: '02:00:00:00:00:09', sender: ip, target: '10.0.0.1' })
    station.send(frame, farm.now())
    await farm.run(farm.now() + 1000)
  }
  const neighbors = router.neighbors()
  t.is(neighbors.length, 1024)
  t.is(neighbors[0].address, 0x0a000000 + 1500 - 1024)
})

test('more frames than the router holds are dropped and counted', async (t) => {
  const lab = await RouterLab.make({ delayNs: 1000 })
  for (let n = 0; n < 1500; n++) lab.inject(0, datagram(B.ip))
  const sent = await lab.settle()
  const { overflow } = lab.router.statistics().dropped
  t.is(sent.length + overflow, 1500)
  t.is(sent.length, 1023)
})

// ── what cannot be meant, whatever comes, and the same every time ──

test('a router that cannot be meant', (t) => {
  const farm = new Farm({ clock: 'virtual' })
  const end = { name: 'x', mac: macBytes(A.mac), address: ipNumber(A.ip), prefix: 24, mtuBytes: 1500 }
  const route = { network: 0, prefix: 0, via: ipNumber(B.ip) }
  t.throws(() => farm.addRouter('r', { interfaces: [] }), { instanceOf: RangeError, message: /0 ports/ })
  t.throws(() => farm.addRouter('r', { interfaces: [{ ...end, mtuBytes: 9000 }] }), { message: /MTU of 9000/ })
  t.throws(() => farm.addRouter('r', { interfaces: [end], routes: [route] }), { message: /no neighbour/ })
  t.throws(() => farm.addRouter('r', { interfaces: [end], routes: [{ ...route, via: end.address }] }))
  t.throws(() => farm.addRouter('r', { interfaces: [end], delayNs: 0.5 }), { message: /delayNs/ })
  farm.addRouter('r', { interfaces: [end] })
  t.throws(() => farm.addRouter('r', { interfaces: [end] }), { message: /a router r already/ })
})

/** Frames that are nearly right: a good one with some bytes changed, cut off, or added. */
const nearlyRight = fc
  .record({
    frame: fc.constantFrom(
      datagram(B.ip),
      datagram(C.ip, {}, bytes(1200)),
      datagram('10.1.9.9', { options: Uint8Array.of(0x94, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0) }, bytes(900)),
      datagram('8.8.8.8'),
      icmpFrame({ ...by(A, ENDS[1].ip), type: 8, payload: bytes(30) }),
      udpFrame({ ...by(A, ENDS[0].ip), ...PORTS, payload: bytes(30) }),
      ask(A, ENDS[0]),
      answer(A),
    ),
    changes: fc.array(fc.tuple(fc.nat(60), fc.nat(255)), { maxLength: 4 }),
    reseal: fc.boolean(),
    length: fc.option(fc.nat(120)),
  })
  .map(({ frame, changes, reseal, length }) => {
    const changed = Uint8Array.from(frame)
    for (const [at, value] of changes) changed[12 + (at % (changed.length - 12))] = value
    if (reseal) sealHeader(changed)
    return length === null ? changed : changed.subarray(0, Math.max(14, length))
  })

/** Makes the checksum of the IPv4 header right, so that more than the first check is reached. */
function sealHeader(frame: Uint8Array): void {
  const view = new DataView(frame.buffer)
  const words = (frame[14] & 15) * 2
  if (14 + words * 2 > frame.length || words < 10) return
  view.setUint16(24, 0)
  let sum = 0
  for (let n = 0; n < words; n++) sum += view.getUint16(14 + n * 2)
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  view.setUint16(24, ~sum & 0xffff)
}

test('whatever comes, what leaves is well-formed, and no slot is lost', async (t) => {
  const lab = await RouterLab.make({ errorsPerSecond: 1e6 })
  await fc.assert(
    fc.asyncProperty(fc.array(nearlyRight, { maxLength: 20 }), async (frames) => {
      for (const frame of frames) lab.inject(0, frame)
      for (const { frame, port } of await lab.settle()) {
        const { problems, sourceMac, ipv4 } = parse(frame)
        const faults = problems.filter((problem) => /IPv4|ARP|ICMP/.test(problem) && ipv4?.source === ENDS[port].ip)
        if (faults.length > 0 || sourceMac !== ENDS[port].mac || (ipv4?.totalLength ?? 0) > ENDS[port].mtu)
          throw new Error(`${faults.join(', ')}\n${formatAll([{ frame }])}`)
      }
    }),
    { numRuns: 400 },
  )
  await lab.wait(10_000)
  for (const station of [A, B, C]) lab.inject(station.port, ask(station, ENDS[station.port]))
  await lab.settle()
  for (let n = 0; n < 1023; n++) lab.inject(0, datagram(B.ip))
  t.is((await lab.settle()).filter(({ port }) => port === 1).length, 1023)
})

test('the same frames at the same times give the same frames at the same times', async (t) => {
  const frames = fc.sample(nearlyRight, { numRuns: 300, seed: 7 })
  const run = async () => {
    const lab = await RouterLab.make({ delayNs: 500 }, [A])
    const sent: Sent[] = []
    for (const [n, frame] of frames.entries()) {
      lab.inject(n % 3, frame)
      if (n % 10 === 9) sent.push(...(await lab.wait(n * 3)))
    }
    sent.push(...(await lab.wait(5000)))
    return { sent, statistics: lab.router.statistics() }
  }
  const first = await run()
  t.true(first.sent.length > 30, String(first.sent.length))
  t.deepEqual(await run(), first)
})
