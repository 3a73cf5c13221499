/** Rules of docs/protocol.md: how a move is prepared and committed, what a lost, late or repeated packet does to it, and what moves. */
import test from 'ava'
import { IPOS_TCP, RELEASE_UNKNOWN } from '../abi/ipos.ts'
import { formatAll, type IposKind } from './support/packets.ts'
import { CLIENT_IP, type Connection, carried, ENTRY_IP, Lab, losing, PORT } from './support/protocol-lab.ts'

/** Long enough that no interval or time of the hub's packets is missed. */
const LONG_MS = 12_000
const PREPARED_MS = 10_000
const HELD_PACKETS = 64

test('names: the client is the source everywhere, the receiver the destination, and one thread port names the endpoint', async (t) => {
  const lab = await Lab.elsewhere()
  const client = await lab.request()
  client.send({ flags: 'PA', payload: 'more' })
  await lab.run(5)
  const [connect] = lab.hub('connect')
  const packets = lab.sent.flatMap(({ on, from, packet: { ipos } }) =>
    on === 'hub' && ipos && ipos.kind !== 'state' ? [{ from, ipos }] : [],
  )
  t.true(packets.length >= 6)
  for (const { from, ipos } of packets) {
    t.deepEqual([ipos.source, ipos.sourcePort, ipos.thread], [CLIENT_IP, client.port, connect!.thread])
    t.is(ipos.destination, from === 'server1' ? '192.0.2.2' : ENTRY_IP)
  }
  t.not(connect!.thread, 0)
  await lab.close()
})

test('names: a thread port is not used again for the same client within a minute', async (t) => {
  const lab = await Lab.open()
  await lab.request()
  for (let n = 0; n < 40; n++) await lab.migrate((n % 2) + 1, ((n + 1) % 2) + 1)
  for (const n of [1, 2]) {
    const threads = lab.hub('connect', n).map(({ thread }) => thread)
    t.is(new Set(threads).size, 20)
  }
  await lab.close()
})

test('prepare: the endpoint is silent on both sides until the answer has come', async (t) => {
  const lab = await Lab.open({ hub: { delayNs: 500_000 } })
  const client = await lab.request()
  client.drain()
  void lab.socket(1).migrate('server2', {})
  await lab.kit.until(() => lab.hub('connect').length > 0)
  client.send({ flags: 'PA', payload: 'while it moves' })
  await lab.kit.until(() => lab.hub('acknowledge').length > 0)
  t.is(lab.hub('commit').length, 0)
  t.deepEqual(client.drain(), [])
  await lab.run(60)
  t.is(lab.read(2), 'while it moves')
  const from = client.drain().map(({ packet }) => packet.sourceMac.at(-4))
  t.deepEqual([...new Set(from)], ['2'])
  await lab.close()
})

test('prepare: without an answer the endpoint is taken back, and what the client sent meanwhile is served', async (t) => {
  const lab = await Lab.open()
  const client = await lab.request()
  lab.fate = losing({ acknowledge: 99 })
  const moving = lab.socket(1).migrate('server2', {})
  await lab.run(0.1)
  client.drain()
  client.send({ flags: 'PA', payload: ' while it waits' })
  const rejected = t.throwsAsync(moving, { code: 'ETIMEDOUT' })
  await lab.run(200)
  await rejected
  const offers = lab.hub('connect')
  const [first] = offers
  t.deepEqual(
    offers.map(({ ms }) => Math.round(ms - first!.ms)),
    [0, 1, 2, 4, 8, 16, 32, 64],
  )
  t.is(Math.round(lab.hub('cancel')[0]!.ms - first!.ms), 128)
  t.is(lab.read(1), 'request while it waits')
  lab.socket(1).write('still here')
  await lab.run(10)
  t.is(client.text, 'still here')
  t.is(lab.toClient(2).length, 0, 'server 2 never spoke')
  t.is(lab.state(2, 'tcbUsed'), 0, 'and has forgotten it')
  await lab.close()
})

test('prepare: a prepared endpoint of which nothing more is heard dies after ten seconds, and never speaks', async (t) => {
  const lab = await Lab.open({ boot: { leaseMs: 60_000 } })
  const client = await lab.request()
  lab.fate = losing({ acknowledge: 99, cancel: 99 })
  lab
    .socket(1)
    .migrate('server2', {})
    .catch(() => {})
  await lab.run(PREPARED_MS - 10)
  t.is(lab.state(2, 'tcbUsed'), 1)
  await lab.run(100)
  t.is(lab.state(2, 'tcbUsed'), 0)
  t.is(lab.state(2, 'migrationUsed'), 0)
  t.is(lab.toClient(2).length, 0)
  client.send({ flags: 'PA', payload: ' and on' })
  await lab.run(10)
  t.is(lab.read(1), 'request and on')
  await lab.close()
})

test('commit: from the answer on the endpoint is not taken back, however long the other side is not heard', async (t) => {
  const lab = await Lab.open({ boot: { leaseMs: 60_000 } })
  const client = await lab.request()
  lab.fate = losing({ commit: 9999, data: 9999 })
  lab
    .socket(1)
    .migrate('server2', {})
    .catch(() => {})
  await lab.run(1)
  client.drain()
  client.send({ flags: 'PA', payload: 'kept' })
  await lab.run(5000)
  t.deepEqual(client.drain(), [], 'nobody speaks')
  const commits = lab.hub('commit', 1)
  t.true(commits.length > 20)
  const gaps = commits.slice(1).map(({ ms }, n) => ms - commits[n]!.ms)
  t.true(Math.max(...gaps) < 255, 'repeated every 250 ms')
  lab.fate = () => null
  await lab.run(500)
  t.is(lab.read(2), 'kept')
  t.true(client.drain().every(({ packet }) => packet.sourceMac.startsWith('02:00:00:00:02')))
  await lab.close()
})

test('commit: where the other side is lost after its answer, the client is reset, once', async (t) => {
  const lab = await Lab.open({ boot: { leaseMs: 400, stateIntervalMs: 50 } })
  const client = await lab.request()
  lab.fate = losing({ commit: 9999, data: 9999 })
  lab
    .socket(1)
    .migrate('server2', {})
    .catch(() => {})
  await lab.run(1)
  client.drain()
  lab.server(2).board.powerOff()
  await lab.run(LONG_MS)
  t.deepEqual(
    client.drain().map(({ tcp }) => [tcp.flags, tcp.sequence]),
    [['RA', client.rcvNxt]],
  )
  for (const name of ['tcbUsed', 'migrationUsed', 'forwardUsed']) t.is(lab.state(1, name), 0, name)
  await lab.close()
})

test('commit: with nothing to send on it is told alone', async (t) => {
  const lab = await Lab.open()
  const client = await lab.request()
  lab.sent.length = 0
  await lab.migrate(1, 2)
  t.deepEqual(lab.hub('data'), [])
  t.is(lab.hub('commit').length, 1)
  lab.socket(2).write('here')
  await lab.run(5)
  t.is(client.text, 'here')
  await lab.close()
})

const LOST: IposKind[] = ['connect', 'acknowledge', 'data', 'commit', 'committed']
for (const kind of LOST) {
  test(`lost: ${kind}, twice`, async (t) => {
    const lab = await Lab.elsewhere()
    lab.fate = losing({ [kind]: 2 })
    const client = await lab.request()
    await lab.run(600)
    lab.socket(2).write('answer')
    await lab.run(50)
    t.is(lab.read(2), 'request')
    t.is(client.text, 'answer')
    t.is(lab.counter(1, 'migrationsGiven'), 1)
    t.is(lab.counter(2, 'migrationsTaken'), 1)
    await lab.close()
  })
}

test('twice: every packet of the hub comes again at once, and once more a little later', async (t) => {
  const lab = await Lab.open()
  lab.fate = ({ on }) => (on === 'hub' ? [{}, {}, { delayNs: 700_000 }] : null)
  const client = await lab.request('a')
  for (let n = 0; n < 6; n++) {
    const here = (n % 2) + 1
    lab.socket(here).write(`${n}`)
    client.send({ flags: 'PA', payload: `${n}` })
    await lab.migrate(here, 3 - here)
  }
  await lab.run(500)
  t.is(client.text, '012345')
  t.deepEqual(lab.errors, [])
  t.is(lab.state(1, 'tcbUsed') + lab.state(2, 'tcbUsed'), 1, 'one owner')
  await lab.close()
})

/** What is left on the hub of a connection that was served by server 2 and is over, by kind. */
async function afterwards(): Promise<{
  lab: Lab
  again: (kind: IposKind, from: number) => Promise<void>
  client: Connection
}> {
  const lab = await Lab.elsewhere()
  const client = await lab.request()
  lab.socket(2).end('answer')
  await lab.run(5)
  client.send({ flags: 'FA' })
  await lab.run(1000)
  const frames = lab.sent.filter(({ on }) => on === 'hub')
  lab.sent.length = 0
  const again = async (kind: IposKind, from: number) => {
    const ipos = frames.find((sent) => sent.from === `server${from}` && sent.packet.ipos?.kind === kind)?.packet.ipos
    if (!ipos) throw new Error(`no ${kind} of server ${from}\n${formatAll(frames)}`)
    lab.fromHub(from, 3 - from, kind, ipos as never)
    await lab.run(20)
  }
  return { lab, again, client }
}

test('late: a connection packet builds nothing once its endpoint has come and gone', async (t) => {
  const { lab, again } = await afterwards()
  await again('connect', 1)
  t.is(lab.state(2, 'tcbUsed'), 0)
  t.deepEqual(lab.hub('acknowledge'), [])
  await lab.run(50_000)
  await again('connect', 1)
  t.is(lab.state(2, 'tcbUsed'), 0, 'for as long as a packet may be on the hub')
  await lab.close()
})

test('late: a connection packet for an earlier life of its receiver builds nothing', async (t) => {
  const lab = await Lab.elsewhere()
  await lab.request()
  const [connect] = lab.hub('connect')
  lab.server(2).board.powerOff()
  lab.kit.powerOnServer(lab.server(2))
  lab.listen(2)
  await lab.run(100)
  lab.fromHub(1, 2, 'connect', connect!)
  await lab.run(20)
  t.is(lab.hub('acknowledge').length, 1, 'that of before')
  t.is(lab.state(2, 'tcbUsed'), 0)
  await lab.close()
})

test('late: data of an endpoint that is gone is handed back, and the client of it reset', async (t) => {
  const { lab, again, client } = await afterwards()
  client.drain()
  await again('data', 1)
  const [release] = lab.hub('release', 2)
  t.is(release?.reason, RELEASE_UNKNOWN)
  t.is(carried(release!).tcp?.sequence, client.iss + 1)
  t.deepEqual(client.drain(), [], 'nothing is forwarded any more, so nobody is reset')
  await lab.close()
})

for (const kind of ['acknowledge', 'committed', 'release'] as const) {
  test(`late: ${kind} of a move that is over means nothing to a newer one`, async (t) => {
    const { lab, again, client } = await afterwards()
    const next = await lab.request('again', { port: client.port, iss: client.sndNxt + 1_000_000 })
    await again(kind, 2)
    lab.socket(2).write('served')
    await lab.run(20)
    t.is(lab.read(2), 'again')
    t.is(next.text, 'served')
    await lab.close()
  })
}

test('clash: a thread port that the other side has given to this client already is proposed anew', async (t) => {
  // Of the numbers each has every third.
  const servers = 3
  const lab = await Lab.open({ servers })
  const client = await lab.request()
  // Server 3 gives server 2 another endpoint of the same client, under the number that server 1 will choose.
  lab.fate = losing({ connect: 99 })
  lab
    .socket(1)
    .migrate('server2', {})
    .catch(() => {})
  await lab.run(1)
  const [offer] = lab.hub('connect')
  await lab.run(200)
  lab.fate = () => null
  const { checksum: _, ...names } = offer!
  const thread = (offer!.thread + servers) & 0xffff
  lab.fromHub(3, 2, 'connect', {
    ...names,
    thread,
    server: '192.0.2.3',
    block: { ...names.block!, entry: '192.0.2.3' },
  })
  await lab.run(1)
  t.is(lab.hub('acknowledge', 2).length, 1)
  await lab.migrate(1, 2)
  t.deepEqual(
    lab
      .hub('connect', 1)
      .slice(-2)
      .map((connect) => (connect.thread - offer!.thread) & 0xffff),
    [servers, 2 * servers],
  )
  t.is(lab.hub('refuse', 2).length, 1)
  lab.socket(2).write('here')
  await lab.run(10)
  t.is(client.text, 'here')
  await lab.close()
})

test("held: the client's packets of a move wait, as many as there is room for, in their order", async (t) => {
  const lab = await Lab.open({ hub: { delayNs: 2e6 } })
  const client = await lab.request('')
  client.send({ flags: 'PA', payload: 'first ' })
  await lab.run(20)
  lab
    .socket(1)
    .migrate('server2', {})
    .catch(() => {})
  await lab.run(0.1)
  const texts = Array.from({ length: HELD_PACKETS + 6 }, (_, n) => `${n} `)
  for (const payload of texts) client.send({ flags: 'PA', payload })
  await lab.run(30)
  t.is(lab.read(2), `first ${texts.slice(0, HELD_PACKETS).join('')}`.slice('first '.length))
  t.is(client.last?.tcp.acknowledgment, (client.sndNxt - texts.slice(HELD_PACKETS).join('').length) >>> 0)
  await lab.close()
})

test('checksum: a connection packet that is damaged anywhere builds nothing', async (t) => {
  const lab = await Lab.open()
  await lab.request()
  for (const flip of [14 * 8 + 3, 40 * 8 + 1, 100 * 8 + 7, 170 * 8]) {
    lab.fate = ({ packet }) => (packet.ipos?.kind === 'connect' ? [{ flip }] : null)
    const refused = lab.counter(2, 'iposRefused')
    lab
      .socket(1)
      .migrate('server2', {})
      .catch(() => {})
    await lab.run(200)
    t.true(lab.counter(2, 'iposRefused') > refused)
  }
  t.is(lab.hub('acknowledge').length, 0)
  t.is(lab.state(2, 'tcbUsed'), 0)
  t.is(lab.hub('connect')[0]?.protocol, IPOS_TCP)
  t.is(lab.socket(1).localPort, PORT)
  await lab.close()
})
