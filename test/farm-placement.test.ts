/** Connections placed at the request (SEED.md steps 1 and 2): who serves, what is on the hub, and whom it disturbs. */
import test from 'ava'
import { IPOS_ACKNOWLEDGE, IPOS_COMMIT, IPOS_CONNECT, IPOS_DATA, IPOS_STATE } from '../abi/ipos.ts'
import { DIRECTORY_COUNTERS } from '../abi/memory.ts'
import { FarmKit, type FarmKitOptions, type Node } from './support/farm-kit.ts'

const ROUND_ROBIN = 3
const HTTP_PORT = 80
/** Ethernet and ipOS header. */
const TYPE_OFFSET = 14 + 12

async function farmOf(options: FarmKitOptions = {}): Promise<FarmKit> {
  const farm = new FarmKit({ ...options, boot: { placement: ROUND_ROBIN, ...options.boot } })
  for (const server of farm.servers) {
    server.net
      .createServer((socket) => {
        socket.on('error', () => {})
        socket.once('data', (request) => socket.end(`${server.name} ${request}`))
      })
      .listen(HTTP_PORT)
  }
  await farm.settle()
  return farm
}

async function request(farm: FarmKit, text: string, address = '192.0.2.1'): Promise<string> {
  let answer = ''
  let closed = false
  const socket = farm.client().net.connect(HTTP_PORT, address, () => socket.write(text))
  socket.on('data', (data) => {
    answer += data
  })
  socket.on('error', (error: NodeJS.ErrnoException) => {
    answer = `error ${error.code}`
  })
  socket.on('close', () => {
    closed = true
  })
  await farm.until(() => closed, 20_000)
  return closed ? answer : 'no answer'
}

function interrupts(node: Node): number {
  return Object.values(node.board.statistics().interrupts).reduce((sum, count) => sum + count, 0)
}

test('999 requests to one address are answered by three servers, 333 each', async (t) => {
  const farm = await farmOf()
  const served = new Map<string, number>()
  for (let n = 0; n < 999; n++) {
    const [server, ...rest] = (await request(farm, `request ${n}`)).split(' ')
    t.is(rest.join(' '), `request ${n}`)
    served.set(server!, (served.get(server!) ?? 0) + 1)
  }
  t.deepEqual(Object.fromEntries(served), { server1: 333, server2: 333, server3: 333 })
  await farm.close()
})

test('a connection that another server serves does not disturb the main board', async (t) => {
  const farm = await farmOf({ servers: 2 })
  t.is(await request(farm, 'a'), 'server1 a')
  await farm.run(10)
  const before = interrupts(farm.server(1))
  t.is(await request(farm, 'b'), 'server2 b')
  await farm.run(10)
  t.is(interrupts(farm.server(1)), before)
  t.true(before > 0)
  await farm.close()
})

test('handshake, 0x01, 0x03, 0x02 and the direct reply come in the order and the sizes of the drawings', async (t) => {
  const farm = await farmOf({ servers: 2 })
  await request(farm, 'a')
  await farm.run(100)
  const seen: string[] = []
  for (const server of farm.servers) {
    const [lan, hub] = server.cables
    const note = (where: string) => ({
      frame(memory: Uint8Array, offset: number, length: number) {
        const frame = Buffer.from(memory.buffer, memory.byteOffset + offset, length)
        const type = frame[TYPE_OFFSET]
        if (where === 'hub' && type !== IPOS_STATE) seen.push(`${server.name} hub ${type} ${length}`)
        if (where === 'lan' && frame.readUInt16BE(12) === 0x0800) seen.push(`${server.name} lan ${length}`)
      },
    })
    lan!.capture(note('lan'), 'forward')
    hub!.capture(note('hub'), 'forward')
  }
  t.is(await request(farm, 'hello'), 'server2 hello')
  const [synAck, connect, acknowledge, data, commit, committed, reply] = seen
  t.is(synAck, 'server1 lan 78')
  t.is(connect, `server1 hub ${IPOS_CONNECT} ${14 + 16 + 146}`)
  t.is(acknowledge, `server2 hub ${IPOS_ACKNOWLEDGE} ${14 + 16}`)
  t.is(data, `server1 hub ${IPOS_DATA} ${14 + 16 + 40 + 'hello'.length}`)
  t.is(commit?.slice(0, -3), `server1 hub ${IPOS_COMMIT}`)
  t.true(committed?.startsWith('server2 hub'))
  t.is(reply, `server2 lan ${14 + 20 + 32 + 'server2 hello'.length}`)
  t.false(
    seen.slice(1).some((line) => line.startsWith('server1 lan')),
    'nothing more leaves server 1 for the client',
  )
  await farm.close()
})

test('a server without a listener forwards to those that have one', async (t) => {
  const farm = new FarmKit({ servers: 2, boot: { placement: ROUND_ROBIN } })
  farm
    .server(2)
    .net.createServer((socket) => socket.once('data', () => socket.end('server2')))
    .listen(HTTP_PORT)
  await farm.settle()
  t.is(await request(farm, 'a'), 'server2')
  t.is(interrupts(farm.server(1)), 0)
  await farm.close()
})

test('while the hub is cut every server serves what comes to it; once it is mended placement goes on', async (t) => {
  const farm = await farmOf({ servers: 2, boot: { leaseMs: 400, stateIntervalMs: 50 } })
  for (const server of farm.servers) server.cables[1]!.cut()
  await farm.run(1000)
  for (let n = 0; n < 4; n++) t.is(await request(farm, `${n}`), `server1 ${n}`)
  t.is(await request(farm, 'x', '192.0.2.2'), 'server2 x')
  for (const server of farm.servers) server.cables[1]!.mend()
  await farm.run(200)
  const answers = [await request(farm, 'a'), await request(farm, 'b')]
  t.deepEqual(answers.sort(), ['server1 a', 'server2 b'].sort())
  await farm.close()
})

test('a request whose server does not answer is served by the next, or here', async (t) => {
  const farm = await farmOf({ servers: 3 })
  t.is(await request(farm, 'a'), 'server1 a')
  // Its state is still good for a while.
  farm.server(2).cables[1]!.cut()
  t.is(await request(farm, 'b'), 'server3 b')
  farm.server(3).cables[1]!.cut()
  t.is(await request(farm, 'c'), 'server1 c')
  t.is(farm.server(1).rows(DIRECTORY_COUNTERS)[0]!.number('migrationsLost'), 0)
  await farm.close()
})
