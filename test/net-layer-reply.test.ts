import test from 'ava'
import { BOOT_FLAG_ALWAYS_COOKIES, BOOT_FLAG_NO_TAIL_PROBES } from '../abi/boot.ts'
import { EVENT_UDP_BOUND, FIRST_SPEAKER_CLIENT, OP_LISTEN, OP_UDP_BIND, OP_UDP_SEND } from '../abi/messages.ts'
import { BareCard, type CardSettings, command, DEFAULT_INTERFACES, type EventRecord } from './support/bare-card.ts'
import {
  ANNOUNCED_MS,
  between,
  CARD,
  CARD_B,
  GATEWAY,
  GATEWAY_B,
  greet,
  PEER,
  settledCard,
  TO_CARD,
} from './support/lan.ts'
import {
  arpFrame,
  expectFrames,
  icmpFrame,
  ipNumber,
  type PacketPattern,
  parse,
  tcpFrame,
  udpFrame,
} from './support/packets.ts'
import { tcpTest } from './support/tcp-net.ts'
import type { Seen } from './support/tcp-script.ts'
import { established } from './support/tcp-states.ts'

/** FIG. 2: what clients send comes in by port 0, what goes to them leaves by port 1. */
const CLIENT = '203.0.113.7'
const FROM_CLIENT = { ...between(GATEWAY, CARD), source: CLIENT }
const TO_CLIENT: PacketPattern = {
  port: 1,
  destinationMac: GATEWAY_B.mac,
  sourceMac: CARD_B.mac,
  ipv4: { source: CARD.ip, destination: CLIENT },
}
const ECHO = { type: 8, rest: 0x12340001, payload: new Uint8Array(8) }
const PORT = 80
const SYN = { sourcePort: 5000, destinationPort: PORT, flags: 'S', sequence: 1000 } as const

function replySettings(settings: CardSettings = {}): CardSettings {
  const [first, ...others] = DEFAULT_INTERFACES
  return { memoryBytes: 0x1000000, ...settings, interfaces: [{ ...first, reply: 1 }, ...others] }
}

function listen(card: BareCard): BareCard {
  const fields = [FIRST_SPEAKER_CLIENT, 0, 1, 0]
  card.command(0, command({ op: OP_LISTEN, socket: 1, b: PORT | (16 << 16), fields }))
  card.run()
  return card
}

function listeningCard(settings: CardSettings = {}): BareCard {
  return listen(settledCard(replySettings(settings)))
}

for (const [title, frame, answer] of [
  ['an echo reply', icmpFrame({ ...FROM_CLIENT, ...ECHO }), { icmp: { type: 0 } }],
  ['an ICMP error', udpFrame({ ...FROM_CLIENT, sourcePort: 9, destinationPort: 9 }), { icmp: { type: 3, code: 3 } }],
  ['a reset', tcpFrame({ ...FROM_CLIENT, ...SYN, destinationPort: 81 }), { tcp: { flags: 'RA' } }],
  ['a SYN-ACK', tcpFrame({ ...FROM_CLIENT, ...SYN }), { tcp: { flags: 'SA' } }],
] as [string, Uint8Array, PacketPattern][]) {
  test(`${title} leaves by the reply port and its gateway, with the address that was asked`, (t) => {
    const card = listeningCard()
    card.receive(0, frame)
    expectFrames(t, card.run(), [{ ...TO_CLIENT, ...answer }])
  })
}

test('a SYN-ACK with a cookie leaves by the reply port', (t) => {
  const card = listeningCard({ flags: BOOT_FLAG_ALWAYS_COOKIES })
  card.receive(0, tcpFrame({ ...FROM_CLIENT, ...SYN }))
  expectFrames(t, card.run(), [{ ...TO_CLIENT, tcp: { flags: 'SA' } }])
})

test('what is asked on the reply port itself is answered there', (t) => {
  const card = listeningCard()
  card.receive(1, icmpFrame({ ...between(GATEWAY_B, CARD_B), source: CLIENT, ...ECHO }))
  expectFrames(t, card.run(), [{ ...TO_CLIENT, ipv4: { source: CARD_B.ip, destination: CLIENT }, icmp: { type: 0 } }])
})

test('a neighbour on the own link is answered there', (t) => {
  const card = listeningCard()
  card.receive(0, icmpFrame({ ...TO_CARD, ...ECHO }))
  card.receive(0, tcpFrame({ ...TO_CARD, ...SYN }))
  expectFrames(t, card.run(), [
    { port: 0, destinationMac: PEER.mac, icmp: { type: 0 } },
    { port: 0, destinationMac: PEER.mac, tcp: { flags: 'SA' } },
  ])
})

for (const [title, destinationPort, flags] of [
  ['a SYN-ACK', PORT, 'SA'],
  ['a reset', 81, 'RA'],
] as const) {
  test(`${title} waits for the reply port's gateway, which is asked for with that port's own address`, (t) => {
    const card = listen(new BareCard(replySettings()))
    card.advance(ANNOUNCED_MS)
    greet(card, GATEWAY, CARD)
    card.receive(0, tcpFrame({ ...FROM_CLIENT, ...SYN, destinationPort }))
    expectFrames(t, card.run(), [
      { port: 1, arp: { operation: 'request', sender: CARD_B.ip, senderMac: CARD_B.mac, target: GATEWAY_B.ip } },
    ])
    const answer = { senderMac: GATEWAY_B.mac, sender: GATEWAY_B.ip, targetMac: CARD_B.mac, target: CARD_B.ip }
    card.receive(1, arpFrame({ operation: 'reply', ...answer }))
    expectFrames(t, card.run(), [{ ...TO_CLIENT, tcp: { flags } }])
  })
}

test('a datagram of an unbound socket leaves by the reply port of the address that it carries', (t) => {
  const card = settledCard(replySettings())
  card.command(0, command({ op: OP_UDP_BIND, socket: 2, b: 7000 }))
  card.run()
  const bound = card.records().find((record) => record.kind === 'event' && record.type === EVENT_UDP_BOUND)
  const { socket } = bound as EventRecord
  card.command(1, command({ op: OP_UDP_SEND, socket, a: ipNumber(CLIENT), b: 53, payload: new Uint8Array(4) }))
  const [sent] = card.run()
  t.truthy(sent, 'a datagram')
  const { ipv4 } = parse(sent!.frame)
  t.deepEqual([sent!.port, ipv4?.source], [1, CARD.ip])
})

test('while the link of the reply port is down, the own port serves, for connections that are there too', (t) => {
  const card = listeningCard()
  card.receive(0, tcpFrame({ ...FROM_CLIENT, ...SYN }))
  expectFrames(t, card.run(), [{ ...TO_CLIENT, tcp: { flags: 'SA' } }])
  card.setLink(1, false)
  card.run()
  card.receive(0, icmpFrame({ ...FROM_CLIENT, ...ECHO }))
  expectFrames(t, card.run(), [{ port: 0, destinationMac: GATEWAY.mac, icmp: { type: 0 } }])
  // The SYN-ACK that was lost with the link is repeated over the other.
  expectFrames(t, card.advance(1000), [{ port: 0, destinationMac: GATEWAY.mac, tcp: { flags: 'SA' } }])
  card.setLink(1, true)
  card.run()
  card.receive(0, icmpFrame({ ...FROM_CLIENT, ...ECHO }))
  t.is(
    card
      .run()
      .filter(({ frame }) => parse(frame).icmp)
      .at(-1)?.port,
    1,
  )
})

tcpTest(
  'a conversation outlives the link that its replies took: what was lost is repeated over the other',
  (net) => {
    const c = established(net, { peer: { ...GATEWAY, ip: CLIENT } })
    const way = ({ packet }: Seen) => packet.destinationMac
    c.write('by the reply port')
    const first = c.expect({ flags: 'PA' })
    if (way(first) !== GATEWAY_B.mac) net.fail(`sent to ${way(first)}`)
    net.card.setLink(1, false)
    const again = c.expect({ flags: 'PA', seq: 1, payload: 'by the reply port', after: 200 })
    if (way(again) !== GATEWAY.mac) net.fail(`repeated to ${way(again)}`)
    c.send({ flags: 'A' })
    c.write('and on')
    if (way(c.expect({ flags: 'PA', payload: 'and on' })) !== GATEWAY.mac) net.fail('not by the link that is up')
    c.send({ flags: 'A' })
  },
  { ...replySettings(), flags: BOOT_FLAG_NO_TAIL_PROBES },
)

test('the MSS that is offered fits the way in, that of what is sent the way out', (t) => {
  const [first, second, hub] = DEFAULT_INTERFACES
  for (const [inMtu, outMtu, offered] of [
    [1400, 1500, 1360],
    [1500, 1400, 1360],
    [1500, 1500, 1460],
  ] as const) {
    const interfaces = [{ ...first, mtu: inMtu, reply: 1 }, { ...second, mtu: outMtu }, hub!]
    for (const flags of [0, BOOT_FLAG_ALWAYS_COOKIES]) {
      const card = listen(settledCard({ memoryBytes: 0x1000000, interfaces, flags }))
      card.receive(0, tcpFrame({ ...FROM_CLIENT, ...SYN, options: { mss: 1460 } }))
      t.is(parse(card.run()[0]!.frame).tcp?.options.mss, offered, `${inMtu} in, ${outMtu} out, flags ${flags}`)
    }
  }
})

for (const [title, interfaces] of [
  ['itself', [{ ...DEFAULT_INTERFACES[0]!, reply: 0 }, ...DEFAULT_INTERFACES.slice(1)]],
  ['one that does not exist', [{ ...DEFAULT_INTERFACES[0]!, reply: 6 }, ...DEFAULT_INTERFACES.slice(1)]],
  ['the hub', [{ ...DEFAULT_INTERFACES[0]!, reply: 2 }, ...DEFAULT_INTERFACES.slice(1)]],
  [
    'one without a gateway',
    [
      { ...DEFAULT_INTERFACES[0]!, reply: 1 },
      { address: '198.51.100.1', prefix: 24, mac: CARD_B.mac },
    ],
  ],
] as const) {
  test(`a reply port that cannot be meant is as none: ${title}`, (t) => {
    const card = settledCard({ memoryBytes: 0x1000000, interfaces: [...interfaces] })
    card.receive(0, icmpFrame({ ...FROM_CLIENT, ...ECHO }))
    expectFrames(t, card.run(), [{ port: 0, destinationMac: GATEWAY.mac, icmp: { type: 0 } }])
  })
}
