/** A router and its neighbours: ARP, and the packets that wait for it. */
import test from 'ava'
import { Farm } from '../emulator/farm.ts'
import { TestPort } from './emulator-kit.ts'
import { arpFrame, expectFrames, ipNumber, macBytes, parse } from './support/packets.ts'
import { A, answer, arpRequest, ask, B, by, datagram, ENDS, passed, RouterLab } from './support/router-lab.ts'

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
  expectFrames(t, await lab.settle(), [arpRequest(1, B.ip)])
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
  const unicast = { ...arpRequest(1, B.ip), destinationMac: B.mac }
  expectFrames(t, await lab.send(0, datagram(B.ip)), [unicast, passed(B)])
  expectFrames(t, await lab.send(1, answer(B)), [])
  await lab.wait(30_000)
  expectFrames(t, await lab.send(0, datagram(B.ip)), [passed(B)])
  await lab.wait(61_000)
  await lab.send(0, datagram(B.ip))
  await lab.wait(2500)
  expectFrames(t, await lab.send(0, datagram(B.ip)), [passed(B)])
  expectFrames(t, await lab.wait(1000), [arpRequest(1, B.ip)])
  expectFrames(t, await lab.send(0, datagram(B.ip)), [])
  const moved = { ...B, mac: '02:00:00:00:0b:99' }
  expectFrames(t, await lab.send(1, answer(moved)), [passed(moved)])
})

test('an address not heard of for ten minutes is asked for as if it were new', async (t) => {
  const lab = await RouterLab.make()
  await lab.wait(600_001)
  expectFrames(t, await lab.send(0, datagram(B.ip)), [arpRequest(1, B.ip)])
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
