/** Rules of docs/protocol.md: what a connection takes along, so that its client cannot tell that it has moved. */
import test from 'ava'
import * as I from '../abi/ipos.ts'
import { OP_LISTEN } from '../abi/messages.ts'
import { command } from './support/bare-card.ts'
import { CARD_ADDRESS, FarmCard, HUB_MAC, HUB_PORT, LEASE_MS, type Peer } from './support/farm-card.ts'
import { type ControlBlock, type IposFields, iposFrame, parse } from './support/packets.ts'
import { type Connection, carried, Lab } from './support/protocol-lab.ts'

const MSS = 1460
/** Without timestamps in SYN, no window scale: what stands in the header is the window. */
const edge = ({ tcp: { acknowledgment, window } }: { tcp: { acknowledgment: number; window: number } }) =>
  acknowledgment + window

test('window edge: the window that was advertised stays open, unread bytes and all', async (t) => {
  const lab = await Lab.open()
  const client = await lab.request('')
  client.send({ flags: 'PA', payload: 'first' })
  await lab.run(10)
  lab.socket(1).pause()
  for (let n = 0; n < 8; n++) client.send({ flags: 'A', payload: 'u'.repeat(1400) })
  await lab.run(60)
  const before = Math.max(...client.drain().map(edge))
  // Nothing of what comes after the pause is consumed.
  await lab.migrate(1, 2)
  lab.socket(2).pause()
  lab.socket(2).write('x')
  await lab.run(60)
  const after = client.drain()
  t.true(after.length > 0)
  for (const segment of after) t.true(edge(segment) >= before, `${edge(segment)} < ${before}`)
  lab.socket(2).resume()
  await lab.run(10)
  t.is(lab.read(2).length, 8 * 1400)
  await lab.close()
})

/** A card whose peer 1 offers it an endpoint; returns what it answers. */
async function offered(block: Partial<ControlBlock>, change: (card: FarmCard, peer: Peer) => void = () => {}) {
  const card = await FarmCard.settled()
  card.command(0, command({ op: OP_LISTEN, socket: 1, b: 80 | (16 << 16), fields: [0, 0, 7, 0] }))
  card.run()
  const peer = card.peer(1)
  change(card, peer)
  const answers = offer(card, peer, {
    block: { entry: peer.address, receiver: card.last!.incarnation, moves: 1, ...block },
  })
  return { card, peer, answers }
}

function offer(card: FarmCard, peer: Peer, fields: IposFields<'connect'>) {
  const link = { destinationMac: HUB_MAC, sourceMac: peer.mac }
  const names = { source: '192.0.2.10', sourcePort: 4000, destination: CARD_ADDRESS, thread: 5 }
  const server = { server: peer.address, serverPort: 80 }
  card.receive(HUB_PORT, iposFrame('connect', { ...link, ...names, ...server, ...fields }))
  return card.run().flatMap(({ port, frame }) => {
    const { ipos } = parse(frame)
    return port === HUB_PORT && ipos && ipos.kind !== 'state' ? [ipos] : []
  })
}

const RCV = 0x20000001
const REFUSALS: [name: string, reason: number, block: Partial<ControlBlock>, change?: Parameters<typeof offered>[1]][] =
  [
    ['a window larger than can be reserved', I.REFUSE_WINDOW, { rcvAdvertised: RCV + 0x100_0000 }],
    ['a window that would have to shrink by what is unread', I.REFUSE_WINDOW, { rcvRead: RCV - 0x100_0000 }],
    ['a recovery of nothing', I.REFUSE_BLOCK, { flags: I.BLOCK_FLAG_RECOVERY, sndMax: 0x10000001, sndEnd: 0x10000001 }],
    ['a control block of another version', I.REFUSE_BLOCK, { version: 9 }],
    ['an entry INIC that does not have the address', I.REFUSE_BLOCK, { entry: '192.0.2.103' }],
    ['more than there is memory for', I.REFUSE_NO_MEMORY, { sndEnd: 0x10000001 + 0x400_0000 }],
    [
      'an entry INIC from which there is no lease',
      I.REFUSE_NO_LEASE,
      {},
      (card, peer) => {
        for (let ms = 0; ms < LEASE_MS; ms += 200) {
          card.advance(200)
          peer.say({ heard: [] })
        }
      },
    ],
  ]
for (const [name, reason, block, change] of REFUSALS) {
  test(`refused: ${name}`, async (t) => {
    const { card, answers } = await offered(block, change)
    t.like(answers, [{ kind: 'refuse', reason }] as never)
    t.is(card.state('tcbUsed'), 0)
  })
}

test('refused: a port on which nobody listens', async (t) => {
  const { card, peer } = await offered({})
  const block = { entry: peer.address, receiver: card.last!.incarnation, moves: 1 }
  const answers = offer(card, peer, { serverPort: 81, thread: 6, block })
  t.like(answers, [{ kind: 'refuse', reason: I.REFUSE_NO_LISTENER }] as never)
})

test('taken: what is not refused is acknowledged, and again when it is said again', async (t) => {
  const { card, peer, answers } = await offered({})
  t.is(answers[0]?.kind, 'acknowledge')
  const block = { entry: peer.address, receiver: card.last!.incarnation, moves: 1 }
  t.is(offer(card, peer, { block })[0]?.kind, 'acknowledge')
  t.is(card.state('tcbUsed'), 1)
})

test('timestamps: the clock goes on from where it stood, so that PAWS at the client holds', async (t) => {
  const lab = await Lab.open()
  const client = await lab.request('request', { tsClock: 1000 })
  lab.socket(1).write('a')
  await lab.run(50)
  const before = client.drain().at(-1)!
  await lab.migrate(1, 2)
  for (let n = 0; n < 3; n++) {
    lab.socket(2).write('b')
    await lab.run(50)
  }
  let last = before
  for (const segment of client.drain()) {
    const elapsed = segment.ms - before.ms
    const ticks = (segment.tcp.options.timestamps![0] - before.tcp.options.timestamps![0]) | 0
    t.true(segment.tcp.options.timestamps![0] >= last.tcp.options.timestamps![0])
    t.true(Math.abs(ticks - elapsed) <= 2, `${ticks} ticks in ${elapsed} ms`)
    last = segment
  }
  t.not(last, before)
  await lab.close()
})

test('PAWS: a segment from before is old to the new owner as well, which answers and drops it', async (t) => {
  const lab = await Lab.open()
  const client = await lab.request('request', { tsClock: 1000 })
  await lab.migrate(1, 2)
  client.drain()
  client.send({ flags: 'PA', payload: 'old', tsValue: 500, sequence: client.sndNxt })
  await lab.run(60)
  t.is(lab.read(2), '')
  t.deepEqual(
    client.drain().map(({ tcp }) => [tcp.flags, tcp.acknowledgment]),
    [['A', client.sndNxt]],
  )
  client.send({ flags: 'PA', payload: 'new' })
  await lab.run(60)
  t.is(lab.read(2), 'new')
  await lab.close()
})

test('out of order: bytes beyond a gap go along, and are selectively acknowledged by the new owner', async (t) => {
  const lab = await Lab.open()
  const client = await lab.request('a')
  client.send({ flags: 'PA', payload: 'c', sequence: (client.sndNxt + 1) >>> 0 })
  await lab.run(5)
  client.drain()
  await lab.migrate(1, 2)
  const from = client.sndNxt + 1
  t.deepEqual(client.drain()[0]?.tcp.options.sack, [[from, from + 1]])
  client.send({ flags: 'PA', payload: 'b' })
  await lab.run(5)
  t.is(lab.read(2), 'bc')
  await lab.close()
})

test('order of bytes: unread, unacknowledged and unsent ones arrive once each', async (t) => {
  const lab = await Lab.open()
  const client = await lab.request('r', { window: 2 * MSS })
  lab.socket(1).pause()
  client.send({ flags: 'PA', payload: 'unread' })
  await lab.run(10)
  const text = 'abcdefgh'.repeat(1000)
  lab.socket(1).write(text)
  await lab.run(1)
  t.is(client.text.length, 2 * MSS, 'a window full is on its way')
  await lab.migrate(1, 2)
  t.is(lab.read(2), 'unread')
  for (let n = 0; n < 20; n++) {
    client.send({ flags: 'A' })
    await lab.run(5)
  }
  t.is(client.text, text)
  await lab.close()
})

/** A connection whose server has sent so many segments that none is acknowledged. */
async function inFlight(lab: Lab, segments: number): Promise<Connection> {
  const client = await lab.request()
  // Two round trips, so that there is a measured one and a window.
  for (let n = 0; n < 3; n++) {
    lab.socket(1).write('x')
    await lab.run(20)
    client.send({ flags: 'A' })
    await lab.run(5)
  }
  client.drain()
  lab.socket(1).write('s'.repeat(segments * MSS))
  await lab.run(1)
  return client
}

test('retransmission: the time-out that was measured goes along, and its timer begins anew', async (t) => {
  const lab = await Lab.open()
  const client = await inFlight(lab, 2)
  client.drain()
  await lab.migrate(1, 2)
  const block = lab.hub('connect')[0]!.block!
  t.true(block.rto < 1000, `${block.rto} ms: less than that of an unmeasured path`)
  await lab.run(1500)
  // The last segment goes again, twice, as a probe of what was lost (RFC 8985 §7); then the timer counts.
  const [first, probe, ...repeated] = client.drain()
  for (const sent of [first, probe]) t.is(sent?.tcp.sequence, (block.sndUna + MSS) >>> 0)
  t.deepEqual([...new Set(repeated.map(({ tcp }) => tcp.sequence))], [block.sndUna])
  const gaps = repeated.map(({ ms }, n) => Math.round(ms - (repeated[n - 1] ?? probe!).ms))
  t.deepEqual(gaps, [block.rto, 2 * block.rto, 4 * block.rto])
  await lab.close()
})

test('congestion: the new owner has no more on its way than the old one might have', async (t) => {
  const lab = await Lab.open()
  const client = await inFlight(lab, 2)
  client.send({ flags: 'A' })
  await lab.run(5)
  client.drain()
  await lab.migrate(1, 2)
  const block = lab.hub('connect')[0]!.block!
  lab.socket(2).write('s'.repeat(60_000))
  await lab.run(20)
  const bytes = client.drain().reduce((sum, { tcp }) => sum + tcp.payload.length, 0)
  t.true(bytes <= block.cwnd + MSS && bytes > block.cwnd - MSS, `${bytes} bytes with a window of ${block.cwnd}`)
  await lab.close()
})

test("recovery: the new owner repeats the first segment, and the client's next SACK blocks say again what else is missing", async (t) => {
  const lab = await Lab.open()
  const client = await inFlight(lab, 8)
  const lost = client.drain()[0]!.tcp.sequence
  const also = lost + 4 * MSS
  const sack: [number, number][] = [
    [also + MSS, lost + 8 * MSS],
    [lost + MSS, also],
  ]
  const again = () => client.send({ flags: 'A', acknowledgment: lost, sack })
  lab.fate = ({ on, packet }) => (on === 'lan' && [lost, also].includes(packet.tcp?.sequence ?? 0) ? [] : null)
  for (let n = 0; n < 4; n++) again()
  await lab.run(1)
  lab.fate = () => null
  client.drain()
  await lab.migrate(1, 2)
  const block = lab.hub('connect')[0]!.block!
  t.is(block.flags & (I.BLOCK_FLAG_LOSS | I.BLOCK_FLAG_RECOVERY), I.BLOCK_FLAG_RECOVERY)
  await lab.run(1)
  client.send({ flags: 'A', acknowledgment: also, sack: sack.slice(0, 1) })
  await lab.run(1)
  lab.socket(2).write('new')
  await lab.run(1)
  const sequences = client.drain().flatMap(({ tcp }) => (tcp.payload.length > 0 ? [tcp.sequence] : []))
  t.deepEqual(
    [...new Set(sequences)],
    [lost, also, block.sndMax],
    'what is missing, and what is new; nothing that came',
  )
  await lab.close()
})

test('half closed: the end that the client has sent goes along, and the other way goes on', async (t) => {
  const lab = await Lab.open()
  const client = await lab.request('all')
  client.send({ flags: 'FA' })
  await lab.run(60)
  await lab.migrate(1, 2)
  await lab.run(20)
  t.deepEqual(lab.ended.map(({ name }) => name).at(-1), 'server2')
  lab.socket(2).end('answer')
  await lab.run(20)
  t.is(client.text, 'answer')
  t.true(client.last?.tcp.flags.includes('F'))
  await lab.close()
})

test('bytes on the hub: received ones go as packets of the client, sent ones as packets to it', async (t) => {
  const lab = await Lab.open()
  const client = await lab.request('r')
  lab.socket(1).pause()
  client.send({ flags: 'PA', payload: 'unread' })
  await lab.run(10)
  lab.socket(1).write('unacknowledged')
  await lab.run(1)
  await lab.migrate(1, 2)
  const packets = lab.hub('data').map((data) => carried(data))
  t.deepEqual(
    packets.map(({ ipv4, tcp }) => [ipv4?.source, ipv4?.destination, Buffer.from(tcp!.payload).toString()]),
    [
      ['192.0.2.200', '192.0.2.1', 'unread'],
      ['192.0.2.1', '192.0.2.200', 'unacknowledged'],
    ],
  )
  for (const { problems } of packets) t.deepEqual(problems, [])
  t.is(client.text, 'unacknowledged', 'the client got it from the old server')
  await lab.close()
})
