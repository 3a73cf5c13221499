/** UDP conversations in a farm: placed by state, forwarded, answered with the address that the client has asked. */
import test, { type ExecutionContext } from 'ava'
import { DIRECTORY_COUNTERS, DIRECTORY_STATE } from '../abi/memory.ts'
import { FarmKit, type FarmKitOptions, type Node } from './support/farm-kit.ts'

const ROUND_ROBIN = 3
const LOCAL_ONLY = 4
const DNS_PORT = 53

interface Answer {
  text: string
  from: string
}

/** Every server answers with its name and the question. */
function serve(server: Node, port = DNS_PORT) {
  const socket = server.dgram.createSocket('udp4')
  socket.on('message', (message, { port: clientPort, address }) => {
    socket.send(`${server.name} ${message}`, clientPort, address)
  })
  // A test may switch the card off.
  socket.on('error', () => {})
  socket.bind(port)
  return socket
}

/** A client's socket and what it has heard. */
function ask(client: Node) {
  const answers: Answer[] = []
  const socket = client.dgram.createSocket('udp4')
  socket.on('message', (message, { address, port }) => answers.push({ text: `${message}`, from: `${address}:${port}` }))
  socket.bind(0)
  return { socket, answers }
}

async function farmOf(options: FarmKitOptions = {}): Promise<FarmKit> {
  const farm = new FarmKit({ ...options, boot: { placement: ROUND_ROBIN, ...options.boot } })
  for (const server of farm.servers) serve(server)
  await farm.settle()
  return farm
}

function counter(server: Node, name: string): number {
  return server.rows(DIRECTORY_COUNTERS)[0]!.number(name)
}

function state(server: Node, name: string): number {
  return server.rows(DIRECTORY_STATE)[0]!.number(name)
}

async function expectClean(t: ExecutionContext, farm: FarmKit): Promise<void> {
  await farm.run(200_000)
  for (const server of farm.servers) {
    t.is(state(server, 'flowUsed'), 0, server.name)
    t.is(state(server, 'forwardUsed'), 0, server.name)
  }
  await farm.close()
}

test('conversations are spread over the farm, and each stays where it began', async (t) => {
  const farm = await farmOf()
  for (let n = 0; n < 9; n++) {
    const { socket, answers } = ask(farm.client())
    await farm.run(1)
    for (let k = 0; k < 3; k++) {
      socket.send(`question ${k}`, DNS_PORT, '192.0.2.1')
      await farm.run(k === 0 ? 5 : 1)
    }
    const server = `server${(n % 3) + 1}`
    const from = '192.0.2.1:53'
    t.deepEqual(
      answers,
      [0, 1, 2].map((k) => ({ text: `${server} question ${k}`, from })),
    )
    socket.close()
  }
  t.is(counter(farm.server(1), 'forwarded'), 18)
  await expectClean(t, farm)
})

test('datagrams that come while another server is asked wait for its answer', async (t) => {
  const farm = await farmOf({ hub: { delayNs: 2e6 } })
  await farm.run(500)
  const first = ask(farm.client())
  const second = ask(farm.client())
  await farm.run(1)
  first.socket.send('mine', DNS_PORT, '192.0.2.1')
  await farm.run(20)
  for (let n = 0; n < 10; n++) second.socket.send(`${n}`, DNS_PORT, '192.0.2.1')
  await farm.run(30)
  t.deepEqual(
    second.answers.map(({ text }) => text),
    [0, 1, 2, 3, 4, 5, 6, 7].map((n) => `server2 ${n}`),
    'eight wait, more are dropped',
  )
  await expectClean(t, farm)
})

test('datagrams larger than the MTU go through the farm in fragments, both ways', async (t) => {
  const farm = await farmOf()
  ask(farm.client()).socket.send('first', DNS_PORT, '192.0.2.1')
  await farm.run(5)
  const { socket, answers } = ask(farm.client())
  await farm.run(1)
  const large = 'x'.repeat(5000)
  for (const text of ['small', large, 'small again']) {
    socket.send(text, DNS_PORT, '192.0.2.1')
    await farm.run(5)
  }
  t.deepEqual(
    answers.map(({ text }) => text),
    ['small', large, 'small again'].map((text) => `server2 ${text}`),
  )
  await expectClean(t, farm)
})

test('a server that stops serving hands the conversation back, and it is placed anew', async (t) => {
  const farm = new FarmKit({ servers: 2, boot: { placement: ROUND_ROBIN } })
  serve(farm.server(1))
  const other = serve(farm.server(2))
  await farm.settle()
  ask(farm.client()).socket.send('first', DNS_PORT, '192.0.2.1')
  await farm.run(5)
  const { socket, answers } = ask(farm.client())
  await farm.run(1)
  socket.send('a', DNS_PORT, '192.0.2.1')
  await farm.run(5)
  other.close()
  await farm.run(20)
  socket.send('b', DNS_PORT, '192.0.2.1')
  await farm.run(5)
  t.deepEqual(
    answers.map(({ text }) => text),
    ['server2 a', 'server1 b'],
  )
  await expectClean(t, farm)
})

test('a server that nobody hears any more is given no conversation, and those that it had are placed anew', async (t) => {
  const farm = await farmOf({ servers: 2, boot: { leaseMs: 400, stateIntervalMs: 50 } })
  ask(farm.client()).socket.send('first', DNS_PORT, '192.0.2.1')
  await farm.run(5)
  const { socket, answers } = ask(farm.client())
  await farm.run(1)
  socket.send('a', DNS_PORT, '192.0.2.1')
  await farm.run(5)
  farm.server(2).board.powerOff()
  await farm.run(1000)
  for (const text of ['b', 'c']) {
    socket.send(text, DNS_PORT, '192.0.2.1')
    await farm.run(5)
  }
  t.deepEqual(
    answers.map(({ text }) => text),
    ['server2 a', 'server1 b', 'server1 c'],
  )
  await farm.close()
})

test("a port that the system chose is a client's: its answers are not placed", async (t) => {
  const farm = await farmOf()
  const { socket, answers } = ask(farm.server(1))
  await farm.run(1)
  const echo = serve(farm.client(), 7)
  socket.send('from a server', 7, farm.client().address)
  await farm.run(5)
  t.deepEqual(answers, [{ text: 'client1 from a server', from: `${farm.client().address}:7` }])
  t.is(counter(farm.server(1), 'migrationsOffered'), 0)
  echo.close()
  await farm.close()
})

test('a server without the service forwards to those that have it; without any, the client is told', async (t) => {
  const farm = new FarmKit({ servers: 2, boot: { placement: ROUND_ROBIN } })
  serve(farm.server(2))
  await farm.settle()
  const { socket, answers } = ask(farm.client())
  await farm.run(1)
  socket.send('q', DNS_PORT, '192.0.2.1')
  await farm.run(5)
  t.deepEqual(answers, [{ text: 'server2 q', from: '192.0.2.1:53' }])
  t.is(counter(farm.server(1), 'icmpOut'), 0)
  socket.send('q', 54, '192.0.2.1')
  await farm.run(5)
  t.is(counter(farm.server(1), 'icmpOut'), 1, 'port unreachable')
  await expectClean(t, farm)
})

test('local-only: no datagram leaves its server', async (t) => {
  const farm = await farmOf({ boot: { placement: LOCAL_ONLY } })
  const { socket, answers } = ask(farm.client())
  await farm.run(1)
  for (let n = 0; n < 4; n++) socket.send(`${n}`, DNS_PORT, '192.0.2.2')
  await farm.run(5)
  t.deepEqual(
    answers.map(({ text }) => text),
    [0, 1, 2, 3].map((n) => `server2 ${n}`),
  )
  t.is(counter(farm.server(2), 'migrationsOffered'), 0)
  await farm.close()
})

test('ten thousand clients of a DNS-like service are answered, and nothing is left of them', async (t) => {
  const farm = await farmOf({ clients: 2, memoryBytes: 64 << 20 })
  let answered = 0
  const wrong: string[] = []
  // Everybody knows everybody's MAC address first.
  for (const client of farm.clients) {
    for (const server of farm.servers) ask(client).socket.send('hello', DNS_PORT, server.address)
    await farm.run(5)
  }
  for (let round = 0; round < 125; round++) {
    const sockets = farm.clients.flatMap((client) =>
      Array.from({ length: 40 }, (_, n) => {
        const socket = client.dgram.createSocket('udp4')
        socket.on('message', (message, { address }) => {
          if (address !== '192.0.2.1' || !`${message}`.endsWith(` name ${n}`)) wrong.push(`${message} from ${address}`)
          answered++
        })
        socket.bind(0)
        socket.send(`name ${n}`, DNS_PORT, '192.0.2.1')
        return socket
      }),
    )
    await farm.run(3)
    for (const socket of sockets) socket.close()
    await farm.run(1)
  }
  t.deepEqual(wrong, [])
  t.is(answered, 10_000)
  // A port that comes again within a minute is the same conversation, so the shares are not exact.
  const shares = farm.servers.map((server) => counter(server, 'udpOut'))
  for (const share of shares) t.true(Math.abs(share - 10_006 / 3) <= 100, `answered by each: ${shares}`)
  await expectClean(t, farm)
})
