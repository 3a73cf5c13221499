/** What a peer that is broken, or bribed, may put on the hub: no trap, no leak, and nothing broken goes out. */
import test from 'ava'
import * as I from '../abi/ipos.ts'
import { OP_LISTEN, OP_UDP_BIND, SOCKET_OPTION_TAKES_OVER } from '../abi/messages.ts'
import { command } from './support/bare-card.ts'
import { CARD_ADDRESS, FarmCard as Card, type FarmCard, HUB_MAC, HUB_PORT, peerAddressOf } from './support/farm-card.ts'
import { CARD, GATEWAY, PEER } from './support/lan.ts'
import {
  arpFrame,
  concat,
  ethernet,
  IPOS_KINDS,
  type IposKind,
  iposFrame,
  ipv4,
  parse,
  resealIpos,
  tcp,
  udp,
} from './support/packets.ts'
import { noise, type Random, randomFrom } from './support/random.ts'

/** Frames in CI; INIC_FUZZ_FRAMES asks for more. */
const FRAMES = Number(process.env.INIC_FUZZ_FRAMES ?? 24_000)
const SEED = Number(process.env.INIC_FUZZ_SEED ?? 1)
const BATCH = 32
const TCP_PORT = 80
const UDP_PORT = 53
/** Leases, TIME-WAIT, FIN-WAIT-2, user timeout and the minutes of the Forward table are over after this time. */
const ALL_OVER_MS = 900_000
const BASE = 0x10000000

const pick = <T>(random: Random, values: readonly T[]): T => values[random(values.length)]!
/** Sequence numbers that lie near each other, so that some fit. */
const near = (random: Random) => (BASE + random(4) * random(3000)) >>> 0

const CLIENTS = ['192.0.2.10', '192.0.2.10', '203.0.113.5']
const SERVERS = [CARD_ADDRESS, peerAddressOf(1), peerAddressOf(2), '198.51.100.9']

/** A packet of the transfer, or of a client, or of nobody. */
function innerPacket(random: Random): Uint8Array {
  const down = random(3) === 0
  const [client, server] = [pick(random, CLIENTS), pick(random, SERVERS)]
  const addresses = { source: down ? server : client, destination: down ? client : server }
  const [near1, near2] = [4000 + random(3), random(8) ? TCP_PORT : UDP_PORT]
  const ports = { sourcePort: down ? near2 : near1, destinationPort: down ? near1 : near2 }
  const payload = noise(random, random(4) ? random(100) : random(1400))
  const piece = random(16) === 0 ? { moreFragments: true, offset: random(4) * 8 } : {}
  if (random(5) === 0)
    return ipv4({ ...addresses, ...piece, protocol: 17, payload: udp({ ...addresses, ...ports, payload }) })
  const flags = pick(random, ['A', 'PA', 'FA', 'S', 'R', 'RA', ''])
  const segment = {
    ...addresses,
    ...ports,
    sequence: near(random),
    acknowledgement: near(random),
    flags,
    window: random(65536),
  }
  return ipv4({ ...addresses, ...piece, ttl: 1 + random(64), protocol: 6, payload: tcp({ ...segment, payload }) })
}

/** A packet that makes some sense: of a kind, about one of a few endpoints. */
function sensible(random: Random, kind: IposKind): Uint8Array {
  const row = 1 + random(2)
  const [received, queued] = [near(random), near(random)]
  const entry = pick(random, SERVERS)
  return iposFrame(kind, {
    destinationMac: HUB_MAC,
    sourceMac: `02:00:00:00:01:0${row}`,
    source: pick(random, CLIENTS),
    sourcePort: 4000 + random(3),
    destination: random(20) ? CARD_ADDRESS : peerAddressOf(1),
    thread: 1 + random(4),
    protocol: random(4) ? I.IPOS_TCP : I.IPOS_UDP,
    server: entry,
    serverPort: random(4) ? TCP_PORT : UDP_PORT,
    block: {
      entry: random(8) ? entry : pick(random, SERVERS),
      moves: random(4),
      flags: random(512),
      state: random(4) ? 3 : random(16),
      iss: BASE,
      sndUna: BASE + 1,
      sndMax: (BASE + 1 + random(2) * random(3000)) >>> 0,
      sndEnd: (BASE + 1 + random(3000)) >>> 0,
      irs: BASE,
      rcvRead: BASE + 1,
      rcvNxt: received,
      rcvAdvertised: (received + random(70_000)) >>> 0,
      stateBytes: random(3) ? 0 : random(5000),
      mss: random(2) ? 1460 : random(65536),
      tsRecentAge: random(2) * random(0x7fffffff),
      persistLeft: random(2) * random(0x7fffffff),
      keepAliveLeft: random(2) * random(0x7fffffff),
    },
    packet: innerPacket(random),
    data: noise(random, random(1400)),
    receiveEnd: received,
    sendEnd: queued,
    received,
    queued,
    stateBytes: random(2) * random(5000),
    outOfOrder: random(2) * random(2000),
    reason: random(8),
    offset: random(2) * random(3000),
    moves: random(5),
    newAddress: pick(random, SERVERS),
    newThread: random(5),
    floor: random(2) * random(0x7fffffff),
  } as never)
}

const KINDS: Record<string, (random: Random) => Uint8Array> = {
  'packets that make some sense': (random) =>
    sensible(
      random,
      pick(
        random,
        IPOS_KINDS.filter((kind) => kind !== 'state'),
      ),
    ),
  'packets with bytes changed': (random) => {
    const frame = sensible(
      random,
      pick(
        random,
        IPOS_KINDS.filter((kind) => kind !== 'state'),
      ),
    )
    for (let n = random(6); n >= 0; n--) frame[30 + random(frame.length - 30)] = random(256)
    return random(8) ? resealIpos(frame) : frame
  },
  'packets cut short or drawn out': (random) => {
    const frame = sensible(
      random,
      pick(
        random,
        IPOS_KINDS.filter((kind) => kind !== 'state'),
      ),
    )
    const changed = random(2)
      ? frame.slice(0, 30 + random(frame.length - 29))
      : concat(frame, noise(random, random(600)))
    return resealIpos(changed.slice(0, 2032))
  },
  'noise behind an ipOS header': (random) => {
    const frame = sensible(random, 'acknowledge').slice(0, 30)
    const changed = concat(frame, noise(random, random(300)))
    changed[26] = pick(random, [1, 2, 3, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, random(256)])
    return resealIpos(changed)
  },
}

/** Clients on the LAN that talk to the card meanwhile. */
function fromLan(random: Random): Uint8Array {
  const link = { destinationMac: CARD.mac, sourceMac: PEER.mac }
  const addresses = { source: PEER.ip, destination: CARD.ip }
  const ports = { sourcePort: 4000 + random(random(2) ? 3 : 200), destinationPort: random(8) ? TCP_PORT : UDP_PORT }
  const flags = pick(random, ['S', 'S', 'A', 'PA', 'FA', 'R'])
  const segment = {
    ...addresses,
    ...ports,
    sequence: near(random),
    acknowledgement: near(random),
    flags,
    window: 65535,
  }
  const payload = noise(random, flags === 'S' ? 0 : random(200))
  const isUdp = random(4) === 0
  const inner = isUdp ? udp({ ...addresses, ...ports, payload: noise(random, 20) }) : tcp({ ...segment, payload })
  return ethernet({ ...link, type: 0x0800, payload: ipv4({ ...addresses, protocol: isUdp ? 17 : 6, payload: inner }) })
}

/** What the card sends is often answered as it should be, so that it gets somewhere. */
function answer(random: Random, card: FarmCard, port: number, frame: Uint8Array): void {
  const { arp, ipv4: ip, tcp: segment, ipos } = parse(frame)
  if (arp) {
    const station = [PEER, GATEWAY].find(({ ip: address }) => address === arp.target)
    if (arp.operation !== 'request' || port !== 0 || station === undefined) return
    const { mac: senderMac, ip: sender } = station
    card.receive(0, arpFrame({ operation: 'reply', senderMac, sender, target: arp.sender, targetMac: arp.senderMac }))
  } else if (ip && segment?.flags === 'SA' && random(4)) {
    const addresses = { source: ip.destination, destination: ip.source }
    const ports = { sourcePort: segment.destinationPort, destinationPort: segment.sourcePort }
    const numbers = { sequence: segment.acknowledgment, acknowledgement: (segment.sequence + 1) >>> 0 }
    const payload = tcp({ ...addresses, ...ports, ...numbers, flags: 'PA', window: 65535, payload: noise(random, 50) })
    const link = { destinationMac: CARD.mac, sourceMac: PEER.mac }
    card.receive(0, ethernet({ ...link, type: 0x0800, payload: ipv4({ ...addresses, protocol: 6, payload }) }))
  } else if (ipos && (ipos.kind === 'connect' || ipos.kind === 'commit')) {
    const peer = card.hub.find(({ address }) => address === ipos.destination)
    if (peer === undefined || random(5) === 0) return
    const { source, sourcePort, thread, protocol, server, serverPort } = ipos
    const link = { destinationMac: HUB_MAC, sourceMac: peer.mac }
    const names = {
      ...link,
      source,
      sourcePort,
      destination: CARD_ADDRESS,
      thread,
      protocol,
      server,
      serverPort,
    }
    const flags = random(3) ? I.COMMITTED_FLAG_COMPLETE : random(4)
    if (ipos.kind === 'commit') card.receive(HUB_PORT, iposFrame('committed', { ...names, flags }))
    else if (random(3)) card.receive(HUB_PORT, iposFrame('acknowledge', names))
    else card.receive(HUB_PORT, iposFrame('refuse', { ...names, reason: 1 + random(6) }))
  }
}

for (const [title, make] of Object.entries(KINDS)) {
  test(`garbage on the hub neither traps the card nor costs it memory: ${title}`, async (t) => {
    const random = randomFrom(SEED)
    const services = [
      { port: TCP_PORT, protocol: I.IPOS_TCP, flags: I.SERVICE_FLAG_TAKES_OVER },
      { port: UDP_PORT, protocol: I.IPOS_UDP, flags: 0 },
    ]
    const card = await Card.settled({}, { services })
    const listen = [0, 0, 7, SOCKET_OPTION_TAKES_OVER]
    card.command(0, command({ op: OP_LISTEN, socket: 1, b: TCP_PORT | (16 << 16), fields: listen }))
    card.command(0, command({ op: OP_UDP_BIND, socket: 2, b: UDP_PORT }))
    card.run()
    card.records()
    const free = card.state('chunkFreeCount')
    const broken: string[] = []
    let taken = 0
    for (let n = 0; n < FRAMES / Object.keys(KINDS).length; n++) {
      if (random(4)) card.receive(HUB_PORT, make(random))
      else card.receive(0, fromLan(random))
      if (n % BATCH !== BATCH - 1) continue
      for (const { port, frame } of random(8) ? card.poll() : card.advance(random(400))) {
        broken.push(...parse(frame).problems)
        answer(random, card, port, frame)
      }
      if (random(6) === 0) for (const peer of card.hub) peer.say({ services })
      taken += card.records().length
    }
    t.deepEqual([...new Set(broken)], [], 'the card sent broken frames')
    t.true(taken > 0, 'something reached the host')
    const happened = ['iposRefused', 'migrationsRefused', 'migrationsTaken', 'migrationsOffered', 'forwarded']
    t.log(happened.map((name) => `${name} ${card.counter(name)}`).join(', '))
    if (title === 'packets that make some sense') for (const name of happened) t.true(card.counter(name) > 0, name)
    card.disableSet(0)
    card.run()
    card.advance(ALL_OVER_MS)
    const left = ['tcbUsed', 'forwardUsed', 'migrationUsed', 'timeWaitUsed', 'flowUsed', 'reassemblyUsed', 'arpQueued']
    for (const name of left) t.is(card.state(name), 0, name)
    t.is(card.state('chunkFreeCount'), free)
  })
}
