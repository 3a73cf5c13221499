/** Rules of docs/protocol.md: when servers do not hear each other any more, never two of them speak to one client. */
import test from 'ava'
import { PLACEMENT_ROUND_ROBIN } from '../abi/boot.ts'
import { type Connection, Lab, lanMac, type Sent } from './support/protocol-lab.ts'

const LEASE_MS = 400
const INTERVAL_MS = 50
/** How often server 2 writes, and the client acknowledges. */
const TALK_MS = 20

const open = () => Lab.elsewhere({ leaseMs: LEASE_MS, stateIntervalMs: INTERVAL_MS })

/** Server 2 writes and the client acknowledges for so long; returns when the last frame of server 2 and the first reset came. */
async function talk(
  lab: Lab,
  client: Connection,
  ms: number,
): Promise<{ lastMs: number; resetMs: number; by?: string }> {
  const start = lab.nowMs
  while (lab.nowMs - start < ms) {
    const socket = lab.socket(2)
    if (!socket.destroyed) socket.write('x')
    client.send({ flags: 'A' })
    await lab.run(TALK_MS)
  }
  const received = client.drain()
  const resets = received.filter(({ tcp }) => tcp.flags.includes('R'))
  const [reset] = resets
  const spoken = received.filter(({ packet }) => packet.sourceMac === lanMac(2))
  const result = { lastMs: (spoken.at(-1)?.ms ?? Number.NaN) - start, resetMs: (reset?.ms ?? Number.NaN) - start }
  return reset ? { ...result, by: reset.packet.sourceMac } : result
}

const CUTS: Record<string, (sent: Sent) => boolean> = {
  'neither hears the other': () => true,
  'the entry INIC does not hear the serving one': ({ from }) => from === 'server2',
}
for (const [name, lost] of Object.entries(CUTS)) {
  test(`partition: ${name}: the serving one falls silent by its lease, and the client is reset later, by the entry INIC`, async (t) => {
    const lab = await open()
    const client = await lab.request()
    lab.fate = (sent) => (sent.on === 'hub' && lost(sent) ? [] : null)
    const { lastMs, resetMs, by } = await talk(lab, client, 4 * LEASE_MS)
    t.true(lastMs <= LEASE_MS + TALK_MS, `it spoke ${lastMs} ms after the cut`)
    t.true(resetMs >= 2 * LEASE_MS - INTERVAL_MS - TALK_MS, `reset after ${resetMs} ms`)
    t.is(by, lanMac(1))
    t.deepEqual(lab.errors, ['server2 EHOSTUNREACH'])
    t.is(lab.state(2, 'tcbUsed'), 0)
    t.is(lab.state(1, 'forwardUsed'), 0)
    await lab.close()
  })
}

test('partition: the serving INIC does not hear the entry INIC: it falls silent, and the client learns it when the hub is mended', async (t) => {
  const lab = await open()
  const client = await lab.request()
  lab.fate = ({ on, from }) => (on === 'hub' && from === 'server1' ? [] : null)
  const { lastMs, resetMs } = await talk(lab, client, 4 * LEASE_MS)
  t.true(lastMs <= LEASE_MS + TALK_MS)
  t.is(resetMs, Number.NaN, 'the entry INIC hears it, and has no reason')
  lab.fate = () => null
  await lab.run(200)
  client.send({ flags: 'A' })
  await lab.run(50)
  t.like(client.last?.tcp, { flags: 'R', sequence: client.rcvNxt })
  await lab.close()
})

test('partition: a cut that is shorter than the lease costs nothing but time', async (t) => {
  const lab = await open()
  const client = await lab.request()
  lab.fate = ({ on }) => (on === 'hub' ? [] : null)
  await talk(lab, client, LEASE_MS - 4 * INTERVAL_MS)
  lab.fate = () => null
  const { resetMs } = await talk(lab, client, 4 * LEASE_MS)
  t.is(resetMs, Number.NaN)
  t.deepEqual(lab.errors, [])
  client.send({ flags: 'PA', payload: ' and on' })
  await lab.run(20)
  t.is(lab.read(2), 'request and on')
  await lab.close()
})

test('death: the client of a server that is gone is reset within two leases and an interval', async (t) => {
  const lab = await open()
  const client = await lab.request()
  client.drain()
  const start = lab.nowMs
  lab.server(2).board.powerOff()
  await lab.run(2 * LEASE_MS + INTERVAL_MS)
  const [reset] = client.drain()
  t.is(reset?.tcp.flags, 'RA')
  t.true(reset!.ms - start >= 2 * LEASE_MS - INTERVAL_MS)
  await lab.close()
})

test('death: a server that is on again has nothing of before, and its clients are reset at once', async (t) => {
  const lab = await open()
  const client = await lab.request()
  client.drain()
  lab.server(2).board.powerOff()
  lab.kit.powerOnServer(lab.server(2))
  await lab.run(INTERVAL_MS)
  t.like(client.last?.tcp, { flags: 'RA', sequence: client.rcvNxt })
  await lab.close()
})

test('death: an entry INIC that is on again: the endpoint stops at once, and the client is reset by its next packet', async (t) => {
  const lab = await open()
  const client = await lab.request()
  client.drain()
  lab.server(1).board.powerOff()
  lab.kit.powerOnServer(lab.server(1))
  await lab.run(INTERVAL_MS)
  t.deepEqual(lab.errors, ['server2 EHOSTUNREACH'])
  t.deepEqual(client.drain(), [], 'silently')
  client.send({ flags: 'A' })
  await lab.run(LEASE_MS)
  t.deepEqual(client.drain(), [], 'as long as it may have let another server speak')
  client.send({ flags: 'A' })
  await lab.run(20)
  t.is(client.last?.tcp.flags, 'R')
  await lab.close()
})

test('death: who is silent is given nothing new', async (t) => {
  const lab = await Lab.open({
    servers: 3,
    listening: [2, 3],
    boot: { placement: PLACEMENT_ROUND_ROBIN, leaseMs: LEASE_MS, stateIntervalMs: INTERVAL_MS },
  })
  lab.server(2).board.powerOff()
  await lab.run(LEASE_MS + INTERVAL_MS)
  lab.sent.length = 0
  for (let n = 0; n < 4; n++) await lab.request()
  t.deepEqual(
    lab.hub('connect').map(({ destination }) => destination),
    Array<string>(4).fill('192.0.2.3'),
  )
  await lab.close()
})
