import assert from 'node:assert/strict'
import test from 'node:test'
import { bootCard, frames, iposFirmware, projectFirmware, VirtualLab } from 'inic/testing'

const firmware = await projectFirmware()
const CARD = '192.0.2.1'
const PEER = '192.0.2.9'
const PEER_MAC = '02:00:00:00:00:09'
const boot = { interfaces: [{ address: frames.ipNumber(CARD), prefix: 24 }] }

/** A card that is on, and the fields of frames from the peer to it. */
function card() {
  const card = bootCard({ firmware, boot })
  const fields = { destinationMac: card.mac(0), sourceMac: PEER_MAC, source: PEER, destination: CARD }
  return { card, port: card.port(0), fields }
}

test('answers ARP requests for its address, and for no other', async () => {
  const { card: it, port } = card()
  const ask = (target) => frames.arpFrame({ operation: 'request', senderMac: PEER_MAC, sender: PEER, target })
  port.inject(ask('192.0.2.2'))
  await port.expectSilence(10)
  port.inject(ask(CARD))
  await port.expectFrame({ arp: { operation: 'reply', sender: CARD, senderMac: it.mac(0), target: PEER } })
  await it.close()
})

test('answers a ping', async () => {
  const { card: it, port, fields } = card()
  const payload = frames.bytes('are you there?')
  port.inject(frames.icmpFrame({ ...fields, type: 8, rest: 0x12340001, payload }))
  await port.expectFrame({
    destinationMac: PEER_MAC,
    ipv4: { source: CARD, destination: PEER, ttl: 64 },
    icmp: { type: 0, rest: 0x12340001, payload },
  })
  await it.close()
})

test('sends a datagram back', async () => {
  const { card: it, port, fields } = card()
  const payload = frames.bytes(1000)
  port.inject(frames.udpFrame({ ...fields, sourcePort: 5000, destinationPort: 7, payload }))
  await port.expectFrame({ udp: { sourcePort: 7, destinationPort: 5000, payload } })
  assert.equal(it.table('Counters')[0].udpReplies, 1n)
  await it.close()
})

// What is wrong is dropped, and the trace ring says why: DROP_* of inic/abi/trace.ts.
const DROPPED = {
  'a ping with a wrong checksum': { reason: 11, frame: (to) => frames.icmpFrame({ ...to, type: 8, icmpChecksum: 1 }) },
  'a datagram with a wrong checksum': {
    reason: 10,
    frame: (to) => frames.udpFrame({ ...to, sourcePort: 1, destinationPort: 7, udpChecksum: 1 }),
  },
  'a datagram longer than its packet': {
    reason: 9,
    frame: (to) => frames.udpFrame({ ...to, sourcePort: 1, destinationPort: 7, udpLength: 99 }),
  },
  'a datagram to another port': {
    reason: 12,
    frame: (to) => frames.udpFrame({ ...to, sourcePort: 1, destinationPort: 8 }),
  },
  'a fragment': { reason: 6, frame: (to) => frames.icmpFrame({ ...to, type: 8, moreFragments: true }) },
  'a packet for somebody else': {
    reason: 5,
    frame: (to) => frames.icmpFrame({ ...to, destination: '192.0.2.2', type: 8 }),
  },
}
for (const [name, { reason, frame }] of Object.entries(DROPPED)) {
  test(`drops ${name}`, async () => {
    const { card: it, port, fields } = card()
    port.inject(frame(fields))
    await port.expectSilence(10)
    assert.equal(it.trace(1)[0]?.a, reason)
    await it.close()
  })
}

test('serves a program on another card', async () => {
  const lab = new VirtualLab()
  const echo = lab.addCard('echo', { firmware, boot })
  const host = lab.addHost('host', { firmware: await iposFirmware(), address: `${PEER}/24` })
  lab.connect([echo, 0], [host, 0])
  const socket = host.dgram.createSocket('udp4')
  const answered = new Promise((done) => socket.on('message', (message) => done(message.toString())))
  socket.send('through two cards', 7, CARD)
  assert.equal(await lab.settled(answered), 'through two cards')
  socket.close()
  await lab.close()
})
