import test from 'ava'
import { OP_UDP_BIND } from '../abi/messages.ts'
import { type BareCard, command } from './support/bare-card.ts'
import { CARD, CARD_B, greet, PEER, settledCard, TO_CARD } from './support/lan.ts'
import {
  arp,
  bytes,
  concat,
  ethernet,
  expectFrames,
  icmp,
  icmpFrame,
  ipv4,
  parse,
  tcp,
  udp,
} from './support/packets.ts'
import { noise, type Random, randomFrom } from './support/random.ts'

/** Frames in CI; INIC_FUZZ_FRAMES asks for more. */
const FRAMES = Number(process.env.INIC_FUZZ_FRAMES ?? 100000)
const SEED = Number(process.env.INIC_FUZZ_SEED ?? 1)
const BATCH = 64

const PORTS = { sourcePort: 4000, destinationPort: 5000 }
const TEMPLATES: Uint8Array[] = [
  ethernet({
    ...TO_CARD,
    type: 0x0806,
    payload: arp({ operation: 'request', senderMac: PEER.mac, sender: PEER.ip, target: CARD.ip }),
  }),
  ethernet({
    ...TO_CARD,
    type: 0x0806,
    payload: arp({ operation: 'reply', senderMac: PEER.mac, sender: PEER.ip, target: CARD.ip }),
  }),
  packet(1, icmp({ type: 8, rest: 7, payload: bytes(64) })),
  packet(1, icmp({ type: 3, code: 3, payload: quoted(17, udp({ ...TO_CARD, ...PORTS })) })),
  packet(1, icmp({ type: 3, code: 4, rest: 576, payload: quoted(6, tcp({ ...TO_CARD, ...PORTS, flags: 'A' })) })),
  packet(17, udp({ ...TO_CARD, ...PORTS, payload: bytes(200) })),
  packet(17, udp({ ...TO_CARD, ...PORTS, destinationPort: 9 })),
  packet(
    6,
    tcp({
      ...TO_CARD,
      ...PORTS,
      flags: 'S',
      options: { mss: 1460, sackPermitted: true, timestamps: [1, 0], windowScale: 7 },
    }),
  ),
  packet(6, tcp({ ...TO_CARD, ...PORTS, flags: 'A', payload: bytes(30) })),
  packet(6, tcp({ ...TO_CARD, ...PORTS, flags: 'RA' })),
  packet(99, bytes(50)),
]

function quoted(protocol: number, payload: Uint8Array): Uint8Array {
  return ipv4({ source: CARD.ip, destination: PEER.ip, protocol, payload })
}

function packet(protocol: number, payload: Uint8Array): Uint8Array {
  return ethernet({ ...TO_CARD, type: 0x0800, payload: ipv4({ ...TO_CARD, protocol, payload }) })
}

/** Corrects the IPv4 header checksum, so that the damage behind it is looked at. */
function repaired(frame: Uint8Array): Uint8Array {
  const header = frame.subarray(14, 14 + (frame[14]! & 15) * 4)
  if (frame.length < 34 || header.length < 20) return frame
  header[10] = header[11] = 0
  let sum = 0
  for (let i = 0; i + 1 < header.length; i += 2) sum += header[i]! * 256 + header[i + 1]!
  sum = (sum & 0xffff) + (sum >>> 16)
  sum = ~((sum & 0xffff) + (sum >>> 16)) & 0xffff
  header[10] = sum >> 8
  header[11] = sum & 255
  return frame
}

const KINDS: Record<string, (random: Random) => Uint8Array> = {
  'noise of every length': (random) => noise(random, random(2033)),
  'noise behind an Ethernet header': (random) =>
    ethernet({ ...TO_CARD, type: random(2) ? 0x0800 : 0x0806, payload: noise(random, random(100)) }),
  'noise behind an IPv4 header': (random) => {
    const protocol = [1, 6, 17, 99][random(4)]!
    const piece = { moreFragments: random(4) === 0, offset: random(4) === 0 ? random(8192) * 8 : 0 }
    const fields = { ...TO_CARD, ...piece, protocol, identification: random(4), payload: noise(random, random(200)) }
    return ethernet({ ...TO_CARD, type: 0x0800, payload: ipv4(fields) })
  },
  'frames with a few bytes changed': (random) => {
    const frame = TEMPLATES[random(TEMPLATES.length)]!.slice()
    for (let i = random(4); i >= 0; i--) frame[14 + random(frame.length - 14)] = random(256)
    return random(2) ? repaired(frame) : frame
  },
  'frames cut short or drawn out': (random) => {
    const frame = TEMPLATES[random(TEMPLATES.length)]!
    return random(2) ? frame.slice(0, random(frame.length + 1)) : concat(frame, noise(random, random(1400)))
  },
}

/** The card still does its work, and holds no more memory than before. */
function expectHealthy(t: Parameters<typeof expectFrames>[0], card: BareCard, freeChunks: number): void {
  card.advance(120000)
  t.is(card.state('chunkFreeCount'), freeChunks)
  t.is(card.state('arpQueued'), 0)
  t.is(card.state('reassemblyUsed'), 0)
  greet(card, PEER, CARD)
  card.receive(0, icmpFrame({ ...TO_CARD, type: 8, rest: 1, payload: bytes(100) }))
  expectFrames(t, card.run(), [{ destinationMac: PEER.mac, icmp: { type: 0, rest: 1, payload: bytes(100) } }])
}

for (const [title, make] of Object.entries(KINDS)) {
  test(`garbage neither traps the card nor costs it memory: ${title}`, (t) => {
    const random = randomFrom(SEED)
    const card = settledCard()
    card.command(0, command({ op: OP_UDP_BIND, socket: 1, b: 5000 }))
    card.run()
    const free = card.state('chunkFreeCount')
    const broken: string[] = []
    for (let i = 0; i < FRAMES / Object.keys(KINDS).length; i++) {
      card.receive(random(8) ? 0 : random(3), make(random))
      if (i % BATCH !== BATCH - 1) continue
      for (const { frame } of random(8) ? card.poll() : card.advance(random(3000))) {
        broken.push(...parse(frame).problems)
      }
      card.records()
    }
    t.deepEqual(broken, [], 'the card sent broken frames')
    card.run()
    expectHealthy(t, card, free)
  })
}

test('nothing that claims to come from the card itself is believed', (t) => {
  const card = settledCard()
  const free = card.state('chunkFreeCount')
  for (const source of [CARD.ip, CARD_B.ip, '127.0.0.1']) {
    for (const template of TEMPLATES.slice(2)) {
      const payload = template.slice(34)
      const forged = ipv4({ source, destination: CARD.ip, protocol: template[23]!, payload })
      card.receive(0, ethernet({ ...TO_CARD, type: 0x0800, payload: forged }))
    }
  }
  expectFrames(t, card.run(), [])
  t.is(card.state('chunkFreeCount'), free)
})
