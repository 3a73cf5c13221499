/** Rules of docs/protocol.md: what happens when a table is full. */
import test from 'ava'
import { PLACEMENT_ROUND_ROBIN } from '../abi/boot.ts'
import { type Connection, Lab } from './support/protocol-lab.ts'

const ENTRIES = 4

async function requests(lab: Lab, count: number): Promise<Connection[]> {
  const clients = []
  for (let n = 0; n < count; n++) clients.push(await lab.request(`${n}`))
  return clients
}

test('the Forward table is full: connections are served where they are', async (t) => {
  const lab = await Lab.inTurn({ forwardEntries: ENTRIES })
  const clients = await requests(lab, 4 * ENTRIES)
  t.is(lab.state(1, 'forwardUsed'), ENTRIES)
  t.is(lab.counter(2, 'migrationsTaken'), ENTRIES)
  t.is(lab.counter(1, 'attached'), 3 * ENTRIES)
  for (const client of clients) client.send({ flags: 'R' })
  await lab.run(100)
  t.is(lab.state(1, 'forwardUsed'), 0)
  await requests(lab, 2)
  t.is(lab.counter(2, 'migrationsTaken'), ENTRIES + 1, 'and then they are placed again')
  await lab.close()
})

test('the Forward table is full: an application is told that its connection stays', async (t) => {
  const lab = await Lab.inTurn({ forwardEntries: 1 })
  const [first] = await requests(lab, 2)
  t.is(lab.state(1, 'forwardUsed'), 1)
  await t.throwsAsync(
    (async () => {
      const moving = lab.socket(1).migrate('server2', {})
      await lab.run(20)
      return moving
    })(),
    { code: 'EHOSTUNREACH' },
  )
  lab.socket(1).write('still here')
  await lab.run(10)
  t.is(first!.text, 'still here')
  await lab.close()
})

test('the other server has no endpoint left: it refuses, and the connection stays', async (t) => {
  const lab = await Lab.open({
    servers: 2,
    boot: { placement: PLACEMENT_ROUND_ROBIN, maximumConnections: 8, forwardEntries: 64 },
  })
  // Those that server 2 has of its own fill it.
  const full = lab.server(2)
  const own = Array.from({ length: 8 }, () =>
    full.net.connect(80, '127.0.0.1', function opened(this: { write(text: string): void }) {
      this.write('x')
    }),
  )
  for (const socket of own) socket.on('error', () => {})
  await lab.run(50)
  const used = lab.state(2, 'tcbUsed')
  t.is(used, 8)
  const clients = await requests(lab, 3)
  t.is(lab.counter(2, 'migrationsTaken'), 0)
  t.true(lab.counter(2, 'migrationsRefused') > 0)
  for (const client of clients) client.send({ flags: 'PA', payload: 'served' })
  await lab.run(10)
  t.is(lab.counter(1, 'attached'), 3)
  t.is(lab.read(1), '2servedservedserved')
  await lab.close()
})
