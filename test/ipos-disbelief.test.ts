/** State messages that a card does not believe: from strangers, malformed, broken. */
import test from 'ava'
import { IPOS_TCP, STATE_MAXIMUM_SERVICES } from '../abi/ipos.ts'
import {
  FarmCard,
  HUB_MAC,
  HUB_PORT,
  INTERVAL_MS,
  KNOWN,
  LEASE_MS,
  LEASED,
  type Peer,
  UP,
} from './support/farm-card.ts'
import { type IposFields, resealIpos } from './support/packets.ts'
import { HTTP } from './support/state-messages.ts'

/** Broken messages in CI; INIC_FUZZ_STATES asks for more. */
const FUZZ_MESSAGES = Number(process.env.INIC_FUZZ_STATES ?? 5000)

const STRANGERS: Record<string, (peer: Peer) => { port: number; frame: Uint8Array }> = {
  'from a MAC address that is no peer': (peer) => ({
    port: HUB_PORT,
    frame: peer.frame({ sourceMac: '02:00:00:00:01:77' } as object),
  }),
  'from its own MAC address': (peer) => ({ port: HUB_PORT, frame: peer.frame({ sourceMac: HUB_MAC } as object) }),
  'on a LAN': (peer) => ({ port: 0, frame: peer.frame() }),
  'to another station': (peer) => ({
    port: HUB_PORT,
    frame: peer.frame({ destinationMac: '02:00:00:00:01:02' } as object),
  }),
  'with a wrong checksum': (peer) => ({ port: HUB_PORT, frame: peer.frame({ checksum: 0x1234 }) }),
  'with another EtherType': (peer) => ({ port: HUB_PORT, frame: peer.frame({ etherType: 0x88b5 } as object) }),
}
for (const [name, make] of Object.entries(STRANGERS)) {
  test(`not believed: ${name}`, async (t) => {
    const card = await FarmCard.settled()
    const peer = card.peer(1)
    const { port, frame } = make(Object.assign(peer, { sequence: 99 }))
    card.receive(port, frame)
    card.advance(INTERVAL_MS)
    t.is(card.last?.heard[0]?.sequence, 2)
  })
}

const SERVICES = [HTTP, { port: 443, protocol: IPOS_TCP, flags: 0 }]
const MALFORMED: Record<string, { fields?: IposFields<'state'>; cut?: number }> = {
  'more heard than there is': { fields: { heardCount: 2 } },
  'more services than there are': { fields: { serviceCount: 4 } },
  'as many heard as the field holds': { fields: { heardCount: 0xffff } },
  'as many services as the field holds': { fields: { serviceCount: 0xffff } },
  'more heard than a farm has': { fields: { heard: Array.from({ length: 32 }, () => ({ ...HEARD_NOBODY() })) } },
  'more services than a server may tell': {
    fields: { services: Array.from({ length: STATE_MAXIMUM_SERVICES + 1 }, (_, port) => ({ ...HTTP, port })) },
  },
  'no incarnation': { fields: { incarnation: 0 } },
  'cut in a service': { cut: 1 },
  'cut in what was heard': { cut: 9 },
  'cut in the fixed part': { cut: 21 },
  'a header alone': { cut: 60 },
}

function HEARD_NOBODY() {
  return { address: '0.0.0.0', incarnation: 0, sequence: 0 }
}

for (const [name, { fields = {}, cut = 0 }] of Object.entries(MALFORMED)) {
  test(`malformed: ${name}`, async (t) => {
    const card = await FarmCard.settled()
    const peer = card.peer(1)
    const refused = card.counter('iposRefused')
    const whole = peer.frame({ sequence: 50, services: SERVICES, ...fields })
    const frame = whole.slice(0, whole.length - cut)
    resealIpos(frame)
    card.receive(HUB_PORT, frame)
    card.advance(INTERVAL_MS)
    t.is(card.last?.heard[0]?.sequence, 2)
    t.is(card.call('service', 1, 80, IPOS_TCP), 0)
    t.is(card.counter('iposRefused'), refused + 1)
  })
}

test('a peer with another lease is as one that is not there, and the console says so once', async (t) => {
  const card = await FarmCard.settled({}, { services: [HTTP] })
  const console = () => card.console()
  const before = console()
  const peer = card.peer(1)
  peer.incarnation = 0x5555
  for (let n = 0; n < 3; n++) peer.say({ services: [HTTP], lease: LEASE_MS + 1 })
  t.is(card.status(1), 0)
  t.is(card.call('service', 1, 80, IPOS_TCP), 0)
  card.advance(INTERVAL_MS)
  t.deepEqual(
    card.last?.heard.map(({ address }) => address),
    ['192.0.2.103'],
    'it is not said to be heard',
  )
  const line = 'ipOS: 192.0.2.102 has a lease of 2001 ms, this server one of 2000 ms: they do not work together\n'
  t.is(console().slice(before.length), line)
  peer.incarnation++
  peer.say({ services: [HTTP] })
  t.is(card.status(1), KNOWN | UP | LEASED, 'on again with the same one, it is')
})

test('bytes behind a message do not matter', async (t) => {
  const card = await FarmCard.settled()
  const frame = Buffer.concat([card.peer(1).frame({ sequence: 50, services: SERVICES }), new Uint8Array(100)])
  card.receive(HUB_PORT, frame)
  card.advance(INTERVAL_MS)
  t.is(card.last?.heard[0]?.sequence, 50)
  t.is(card.call('service', 1, 443, IPOS_TCP), 1)
})

test('broken messages with right checksums break nothing', async (t) => {
  const card = await FarmCard.settled()
  let seed = 0x2545f491
  const random = (below: number) => {
    seed ^= seed << 13
    seed ^= seed >>> 17
    seed ^= seed << 5
    return (seed >>> 0) % below
  }
  for (let n = 0; n < FUZZ_MESSAGES; n++) {
    const peer = card.hub[n % 2]!
    const services = Array.from({ length: random(STATE_MAXIMUM_SERVICES) }, () => ({
      port: random(0x10000),
      protocol: random(4),
      flags: random(256),
    }))
    const frame = peer.frame({ sequence: random(3) ? ++peer.sequence : random(0xffffffff), services })
    // Counts and the end of the frame are where it hurts.
    if (random(2)) frame[14 + 52 + random(4)] = random(256)
    for (let i = random(4); i > 0; i--) frame[30 + random(frame.length - 30)] = random(256)
    const piece = random(2) ? frame : frame.slice(0, 30 + random(frame.length - 30))
    resealIpos(piece)
    card.receive(HUB_PORT, piece)
    if (n % 16 === 0) card.advance(random(3) ? 1 : random(3 * LEASE_MS))
  }
  card.advance(2 * LEASE_MS + INTERVAL_MS)
  t.deepEqual(card.last?.heard, [])
  for (const peer of card.hub) {
    peer.incarnation += 100
    peer.say({ sequence: 1, services: SERVICES })
    t.is(card.status(peer.row), KNOWN | UP | LEASED)
    t.is(card.call('service', peer.row, 443, IPOS_TCP), 1)
    t.is(card.call('missing', peer.row), 0)
  }
  card.advance(2 * LEASE_MS)
  // No row of the table is lost: as many ports as it has find room again.
  const many = (from: number) => Array.from({ length: STATE_MAXIMUM_SERVICES }, (_, n) => ({ ...HTTP, port: from + n }))
  for (const [n, peer] of card.hub.entries()) {
    peer.say({ services: many(1000 + n * STATE_MAXIMUM_SERVICES) })
    t.is(card.call('missing', peer.row), 0)
  }
})
