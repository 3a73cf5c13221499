/** Rules of docs/protocol.md: how a connection ends whose endpoint is elsewhere, what its 4-tuple means afterwards, and chains. */
import test from 'ava'
import { RELEASE_ENDED } from '../abi/ipos.ts'
import { type Connection, type ConnectionOptions, carried, Lab, lanMac, losing } from './support/protocol-lab.ts'

/** Of the farm kit's boards. */
const MSL_MS = 100
const MINUTE_MS = 60_000
const REPEAT_MS = 50

function rows(lab: Lab): number[] {
  return lab.kit.servers.map((_, n) => lab.state(n + 1, 'forwardUsed'))
}

test('FIN of the client: goes on to where the endpoint is, whose answer and FIN come back', async (t) => {
  const lab = await Lab.elsewhere()
  const client = await lab.request()
  client.send({ flags: 'FA' })
  await lab.run(60)
  t.is(lab.ended.length, 1)
  lab.socket(2).end('the rest')
  await lab.run(5)
  t.is(client.text, 'the rest')
  t.is(client.last?.tcp.flags.replace('P', ''), 'FA')
  t.deepEqual(rows(lab), [1, 0])
  client.send({ flags: 'A' })
  await lab.run(20)
  t.deepEqual(rows(lab), [0, 0], 'CLOSED at once: no row is left')
  await lab.close()
})

test('FIN of the client: one that comes while its endpoint moves is held, and counts where that arrives', async (t) => {
  const lab = await Lab.open({ hub: { delayNs: 1e6 } })
  const client = await lab.request()
  lab
    .socket(1)
    .migrate('server2', {})
    .catch(() => {})
  await lab.kit.until(() => lab.hub('connect').length > 0)
  client.send({ flags: 'PA', payload: 'last words' })
  client.send({ flags: 'FA' })
  await lab.run(100)
  t.is(lab.read(2), 'last words')
  t.deepEqual(lab.ended, [lab.server(2)])
  await lab.close()
})

test('RST of the client: the exact one ends the endpoint and its row', async (t) => {
  const lab = await Lab.elsewhere()
  const client = await lab.request()
  client.send({ flags: 'R' })
  await lab.run(20)
  t.deepEqual(lab.errors, ['server2 ECONNRESET'])
  t.deepEqual(rows(lab), [0, 0])
  await lab.close()
})

test('RST of the client: one elsewhere in the window is challenged by who serves (RFC 5961 §3.2)', async (t) => {
  const lab = await Lab.elsewhere()
  const client = await lab.request()
  client.drain()
  client.send({ flags: 'R', sequence: client.sndNxt + 10 })
  await lab.run(20)
  const [challenge] = client.drain()
  t.like(challenge?.tcp, { flags: 'A', acknowledgment: client.sndNxt })
  t.is(challenge?.packet.sourceMac, lanMac(2))
  t.deepEqual(lab.errors, [])
  t.deepEqual(rows(lab), [1, 0])
  await lab.close()
})

test('RST of the client: one that comes while its endpoint moves ends it where that arrives', async (t) => {
  const lab = await Lab.open({ hub: { delayNs: 1e6 } })
  const client = await lab.request()
  lab
    .socket(1)
    .migrate('server2', {})
    .catch(() => {})
  await lab.kit.until(() => lab.hub('connect').length > 0)
  client.send({ flags: 'R' })
  await lab.run(200)
  t.is(lab.state(1, 'tcbUsed') + lab.state(2, 'tcbUsed'), 0)
  t.deepEqual(rows(lab), [0, 0])
  await lab.close()
})

test('RST of the server: carries the number that the client waits for, and the row goes', async (t) => {
  const lab = await Lab.elsewhere()
  const client = await lab.request()
  client.drain()
  lab.socket(2).resetAndDestroy()
  await lab.run(20)
  t.like(client.drain()[0]?.tcp, { flags: 'RA', sequence: client.rcvNxt })
  t.deepEqual(rows(lab), [0, 0])
  await lab.close()
})

test('release: repeated until it is heard', async (t) => {
  const lab = await Lab.elsewhere()
  const client = await lab.request()
  lab.fate = losing({ release: 3 })
  client.send({ flags: 'R' })
  await lab.run(500)
  const releases = lab.hub('release', 2)
  const [first] = releases
  t.is(first?.reason, RELEASE_ENDED)
  t.deepEqual(
    releases.map(({ ms }) => Math.round((ms - first!.ms) / REPEAT_MS)),
    [0, 1, 2, 3],
  )
  t.is(lab.hub('released', 1).length, 1)
  t.deepEqual(rows(lab), [0, 0])
  await lab.close()
})

test('release: a row whose end was never told is found by the question after a silent minute', async (t) => {
  const lab = await Lab.elsewhere()
  const client = await lab.request()
  lab.fate = losing({ release: 1e6 })
  client.send({ flags: 'R' })
  await lab.run(10_000)
  t.deepEqual(rows(lab), [1, 0], 'it is not repeated for ever')
  lab.fate = () => null
  await lab.run(2 * MINUTE_MS)
  t.deepEqual(rows(lab), [0, 0])
  await lab.close()
})

/** A connection that server 2 has ended: TIME-WAIT is there. */
async function inTimeWait(lab: Lab, options: ConnectionOptions = {}): Promise<Connection> {
  const client = await lab.request('request', options)
  lab.socket(2).end('answer')
  await lab.run(5)
  client.send({ flags: 'FA' })
  await lab.run(5)
  client.drain()
  return client
}

test('TIME-WAIT: is kept where the endpoint was, and forwarded to until it is over', async (t) => {
  const lab = await Lab.elsewhere()
  const client = await inTimeWait(lab)
  t.is(lab.state(2, 'timeWaitUsed'), 1)
  t.deepEqual(rows(lab), [1, 0])
  client.send({ flags: 'FA', sequence: client.sndNxt - 1 })
  await lab.run(5)
  const [answer] = client.drain()
  t.like(answer?.tcp, { flags: 'A', acknowledgment: client.sndNxt })
  t.is(answer?.packet.sourceMac, lanMac(2))
  await lab.run(2 * MSL_MS)
  t.is(lab.state(2, 'timeWaitUsed'), 0)
  t.deepEqual(rows(lab), [0, 0])
  await lab.close()
})

/** @returns the new connection, whose SYN was sent */
function again(lab: Lab, before: Connection, options: ConnectionOptions): Connection {
  lab.station.connections.splice(0)
  const next = new (before.constructor as typeof Connection)(lab.station, before.port, options)
  next.sendSyn()
  return next
}

for (const [name, clocks] of Object.entries({
  'by its sequence number': [],
  'by its timestamp (RFC 6191)': [5000, 9000],
})) {
  test(`new SYN: TIME-WAIT elsewhere yields to one that is newer ${name}, which is served like any other`, async (t) => {
    const lab = await Lab.elsewhere()
    const [tsClock, tsLater] = clocks
    const before = await inTimeWait(lab, tsClock === undefined ? {} : { tsClock })
    const end = before.rcvNxt
    const iss = tsLater === undefined ? before.sndNxt + 100_000 : before.iss - 100_000
    const client = again(lab, before, { iss, ...(tsLater !== undefined && { tsClock: tsLater }) })
    await lab.run(5)
    const [release] = lab.hub('release', 2)
    t.is(carried(release!).tcp?.flags, 'S', 'the SYN is handed back')
    t.like(client.last, { tcp: { flags: 'SA', acknowledgment: (iss + 1) >>> 0 } } as never)
    t.true(((client.irs - end) | 0) > 0, 'beyond the numbers of the old one (RFC 1122 §4.2.2.13)')
    t.is(client.last?.packet.sourceMac, lanMac(1), 'the entry INIC opens it')
    client.send({ flags: 'PA', payload: 'again' })
    await lab.run(20)
    lab.socket(2).write('served')
    await lab.run(20)
    t.is(lab.read(2), 'again')
    t.is(client.text, 'served')
    t.is(lab.state(2, 'timeWaitUsed'), 0)
    await lab.close()
  })
}

test('new SYN: TIME-WAIT elsewhere does not yield to an older one, and answers', async (t) => {
  const lab = await Lab.elsewhere()
  const before = await inTimeWait(lab)
  const client = again(lab, before, { iss: before.iss - 100_000 })
  await lab.run(20)
  t.like(client.last?.tcp, { flags: 'A', acknowledgment: before.sndNxt, sequence: before.rcvNxt })
  t.is(client.last?.packet.sourceMac, lanMac(2))
  t.deepEqual(lab.hub('release'), [])
  await lab.close()
})

test('new SYN: on a connection that works elsewhere it is challenged there (RFC 5961 §4)', async (t) => {
  const lab = await Lab.elsewhere()
  const before = await lab.request()
  const client = again(lab, before, { iss: before.sndNxt + 100_000 })
  await lab.run(20)
  t.like(client.last?.tcp, { flags: 'A', acknowledgment: before.sndNxt })
  t.is(client.last?.packet.sourceMac, lanMac(2))
  // It has forgotten the old one: its reset is exact, and its next SYN opens.
  client.send({ flags: 'R', sequence: before.sndNxt })
  await lab.run(20)
  t.deepEqual(rows(lab), [0, 0])
  client.send({ flags: 'S', sequence: client.iss })
  await lab.run(20)
  t.is(client.last?.tcp.flags, 'SA')
  await lab.close()
})

test('new SYN: while its old endpoint moves it waits with the rest, and is challenged where that arrives', async (t) => {
  const lab = await Lab.open({ hub: { delayNs: 1e6 } })
  const before = await lab.request()
  lab
    .socket(1)
    .migrate('server2', {})
    .catch(() => {})
  await lab.kit.until(() => lab.hub('connect').length > 0)
  const client = again(lab, before, { iss: before.sndNxt + 100_000 })
  await lab.run(100)
  t.like(client.last?.tcp, { flags: 'A', acknowledgment: before.sndNxt })
  t.is(client.last?.packet.sourceMac, lanMac(2))
  await lab.close()
})

test('chains: after 1-2-3 the first forwards straight to the third, and the second sends stragglers on for a minute', async (t) => {
  const lab = await Lab.open({ servers: 3 })
  const client = await lab.request()
  await lab.migrate(1, 2)
  await lab.migrate(2, 3)
  const [moved] = lab.hub('moved')
  t.like(moved, { from: 'server2', destination: '192.0.2.1', newAddress: '192.0.2.3', moves: 2 })
  lab.sent.length = 0
  client.send({ flags: 'PA', payload: 'straight' })
  await lab.run(5)
  t.deepEqual(
    lab.hub('data').map(({ from, destination }) => [from, destination]),
    [['server1', '192.0.2.3']],
  )
  t.is(lab.read(3), 'straight')
  // One that was on its way to the second when the endpoint left it.
  const [straggler] = lab.hub('data')
  t.deepEqual(rows(lab), [1, 1, 0])
  const late = { ...straggler!, checksum: undefined, destination: '192.0.2.2' }
  lab.fromHub(1, 2, 'data', late as never)
  await lab.run(5)
  t.is(carried(lab.hub('data', 2)[0]!).ipv4?.ttl, carried(straggler!).ipv4!.ttl - 1)
  await lab.run(MINUTE_MS - 1000)
  t.deepEqual(rows(lab), [1, 1, 0])
  await lab.run(2 * MINUTE_MS)
  t.deepEqual(rows(lab), [1, 0, 0])
  client.send({ flags: 'PA', payload: ' still' })
  await lab.run(5)
  t.is(lab.read(3), 'straight still')
  await lab.close()
})

for (const path of [
  [1, 2, 1],
  [1, 2, 3, 1],
]) {
  test(`chains: ${path.join('-')} removes the row of the first, and what the others know goes`, async (t) => {
    const lab = await Lab.open({ servers: 3 })
    const client = await lab.request()
    for (let n = 1; n < path.length; n++) await lab.migrate(path[n - 1]!, path[n]!)
    t.is(rows(lab)[0], 0)
    lab.sent.length = 0
    client.send({ flags: 'PA', payload: 'home' })
    lab.socket(1).write('here')
    await lab.run(5)
    t.is(lab.read(1), 'home')
    t.is(client.text, 'here')
    t.deepEqual(lab.hub('data'), [])
    await lab.run(3 * MINUTE_MS)
    t.deepEqual(rows(lab), [0, 0, 0])
    await lab.close()
  })
}

test('chains: the entry INIC is told by who gives, and its answer is there when the bytes are', async (t) => {
  const wire = { delayNs: 100_000 }
  const lab = await Lab.open({ servers: 3, hub: wire })
  await lab.request()
  await lab.migrate(1, 2)
  lab.sent.length = 0
  await lab.migrate(2, 3)
  const [connect] = lab.hub('connect')
  const [moved] = lab.hub('moved', 2)
  t.is(moved?.newThread, connect?.thread)
  t.like(lab.hub('movedHeard')[0], { destination: '192.0.2.3', moves: 2, thread: connect?.thread })
  t.true(lab.hub('movedHeard')[0]!.ms - lab.hub('commit')[0]!.ms < 0.21)
  await lab.close()
})

/** A connection on its way from server 2 to server 3, which has answered and hears nothing more of it; server 1 forwards there. */
async function committedInVain(): Promise<{ lab: Lab; client: Connection }> {
  const lab = await Lab.open({ servers: 3, boot: { leaseMs: 60_000 } })
  const client = await lab.request()
  await lab.migrate(1, 2)
  lab.fate = losing({ commit: 1e6, application: 1e6 })
  lab.sent.length = 0
  lab
    .socket(2)
    .migrate('server3', { some: 'state' })
    .catch(() => {})
  await lab.run(5)
  client.drain()
  return { lab, client }
}

for (const fragments of [false, true]) {
  const how = fragments ? 'in fragments' : 'whole'
  test(`chains: what the client sends before the third server has the endpoint waits there, ${how}`, async (t) => {
    const { lab, client } = await committedInVain()
    const segment = client.bytesOf({ flags: 'PA', payload: 'on ahead' })
    if (fragments) {
      lab.station.sendIp({ protocol: 6, identification: 5, offset: 24, payload: segment.subarray(24) })
      lab.station.sendIp({ protocol: 6, identification: 5, moreFragments: true, payload: segment.subarray(0, 24) })
    } else lab.station.sendIp({ protocol: 6, payload: segment })
    await lab.run(1000)
    t.deepEqual(
      lab
        .hub('data')
        .map(({ destination }) => destination)
        .slice(0, 1),
      ['192.0.2.3'],
    )
    t.deepEqual(client.drain(), [])
    lab.fate = () => null
    await lab.run(1000)
    t.is(lab.read(3), 'on ahead')
    await lab.close()
  })
}

test('chains: a third server that forgets what was never committed says so, and the client is reset, once', async (t) => {
  const { lab, client } = await committedInVain()
  await lab.run(12_000)
  t.deepEqual(
    client.drain().map(({ tcp, packet }) => [tcp.flags, packet.sourceMac]),
    [['RA', lanMac(1)]],
  )
  lab.fate = () => null
  await lab.run(5000)
  t.deepEqual(client.drain(), [])
  t.is(lab.toClient(3).length, 0)
  for (const n of [1, 2, 3]) t.is(lab.state(n, 'tcbUsed') + lab.state(n, 'migrationUsed'), 0, `server ${n}`)
  t.deepEqual(rows(lab), [0, 0, 0])
  await lab.close()
})

test('chains: where both the others are lost between the word and the commit, the client is reset', async (t) => {
  const { lab, client } = await committedInVain()
  lab.server(2).board.powerOff()
  lab.server(3).board.powerOff()
  lab.kit.powerOnServer(lab.server(3))
  await lab.run(500)
  t.deepEqual(
    client.drain().map(({ tcp }) => tcp.flags),
    ['RA'],
  )
  t.is(lab.state(1, 'forwardUsed'), 0)
  await lab.close()
})

test('chains: a late word of who gave means nothing to a newer connection of the same ports', async (t) => {
  const lab = await Lab.open({ servers: 3 })
  const before = await lab.request()
  await lab.migrate(1, 2)
  await lab.migrate(2, 3)
  const [moved] = lab.hub('moved', 2)
  before.send({ flags: 'R' })
  await lab.run(100)
  lab.station.connections.splice(0)
  const client = await lab.request('new', { port: before.port, iss: before.sndNxt + 100_000 })
  await lab.migrate(1, 2)
  lab.fromHub(2, 1, 'moved', moved!)
  await lab.run(5)
  client.send({ flags: 'PA', payload: 'still here' })
  await lab.run(20)
  t.is(lab.read(2), 'still here')
  await lab.close()
})

test('chains: a third server is silent until the entry INIC has said that it forwards there', async (t) => {
  const lab = await Lab.open({ servers: 3 })
  const client = await lab.request()
  await lab.migrate(1, 2)
  lab.fate = losing({ movedHeard: 9999 })
  lab.socket(2).write('from the second, ')
  await lab.run(5)
  lab
    .socket(2)
    .migrate('server3', {})
    .catch(() => {})
  await lab.run(1000)
  t.is(lab.toClient(3).length, 0)
  lab.fate = () => null
  await lab.run(300)
  lab.socket(3).write('from the third')
  await lab.run(20)
  t.is(client.text, 'from the second, from the third')
  await lab.close()
})

test('chains: what the entry INIC has given up no third server goes on with', async (t) => {
  const lab = await Lab.open({ servers: 3, boot: { leaseMs: 400, stateIntervalMs: 50 } })
  const client = await lab.request()
  await lab.migrate(1, 2)
  // The third hears nothing from the first but that it is there.
  lab.fate = losing({ moved: 9999, movedHeard: 9999 })
  lab
    .socket(2)
    .migrate('server3', {})
    .catch(() => {})
  await lab.run(5)
  lab.server(2).board.powerOff()
  client.drain()
  await lab.run(2000)
  t.deepEqual(
    client.drain().map(({ tcp }) => tcp.flags),
    ['RA'],
    'the second is lost, and its client reset',
  )
  lab.fate = () => null
  await lab.run(1000)
  t.is(lab.toClient(3).length, 0)
  t.is(lab.state(3, 'tcbUsed'), 0)
  await lab.close()
})
