/** A router forwards, drops, and bears whatever comes. What it says about packets is in router-icmp, -fragment and -arp. */
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
  icmpFrame,
  ipNumber,
  ipv4Frame,
  macBytes,
  parse,
  udpFrame,
} from './support/packets.ts'
import {
  A,
  answer,
  arpRequest,
  ask,
  B,
  by,
  C,
  datagram,
  ENDS,
  icmpError,
  NEXT_B,
  NEXT_C,
  PORTS,
  passed,
  RouterLab,
  type Sent,
} from './support/router-lab.ts'

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
  expectFrames(t, await lab.send(0, datagram(B.ip)), [icmpError(3, 0)])
  lab.cables[1].mend()
  expectFrames(t, await lab.send(0, datagram(B.ip)), [arpRequest(1, B.ip)])
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
