/** What a router says about packets: ICMP errors (RFC 1812), and answers to what is for itself. */
import test from 'ava'
import { bytes, expectFrames, icmp, icmpFrame, ipv4Frame, parse, quotedPacket } from './support/packets.ts'
import {
  A,
  arpRequest,
  B,
  by,
  C,
  datagram,
  ENDS,
  icmpError,
  NEXT_C,
  passed,
  RouterLab,
  reassemble,
} from './support/router-lab.ts'

// ── ICMP errors (RFC 1812 §4.3.2, §5.2.7) ──

for (const ttl of [0, 1]) {
  test(`TTL ${ttl}: time exceeded, quoting the packet`, async (t) => {
    const lab = await RouterLab.make()
    const frame = datagram(B.ip, { ttl })
    const [packet] = expectFrames(t, await lab.send(0, frame), [icmpError(11, 0)])
    t.deepEqual(packet.icmp?.payload, frame.subarray(14))
    t.is(packet.ipv4?.tos, 0xc0, 'internetwork control')
  })
}

test('no route: network unreachable', async (t) => {
  const lab = await RouterLab.make()
  expectFrames(t, await lab.send(0, datagram('8.8.8.8')), [icmpError(3, 0)])
})

test('no answer to ARP: host unreachable, after three requests a second apart', async (t) => {
  const lab = await RouterLab.make()
  lab.inject(0, datagram('198.51.100.77', { ttl: 9 }))
  const startNs = lab.farm.now()
  const sent = await lab.wait(3500)
  const asked = arpRequest(1, '198.51.100.77')
  const packets = expectFrames(t, sent, [asked, asked, asked, icmpError(3, 1)])
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
  const [packet] = expectFrames(t, await lab.send(0, tooBig), [icmpError(3, 4, 600)])
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
    expectFrames(t, await lab.send(0, frame), [icmpError(11, 0)])
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
    expectFrames(t, await lab.send(0, frame), [icmpError(3, code)])
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
