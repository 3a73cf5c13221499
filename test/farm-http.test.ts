/** HTTP servers in a farm: what Node does with a connection that another server had before. */
import http from 'node:http'
import type { Socket } from 'node:net'
import test from 'ava'
import { PLACEMENT_ROUND_ROBIN } from '../abi/boot.ts'
import { FarmKit, type Node } from './support/farm-kit.ts'

const PORT = 80
const KEEP_ALIVE_MS = 3000
const REQUEST = 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'

function serve(node: Node): http.Server {
  const server = http.createServer((_request, response) => response.end(`from ${node.name}.`))
  server.keepAliveTimeout = KEEP_ALIVE_MS
  return node.net.attach(server, PORT)
}

const MOVES: Record<string, (server: http.Server, socket: Socket) => void> = {
  'by a drain': (server) => void server.drain(),
  'as a new one': (_server, socket) => void socket.migrate(undefined, undefined, { asNew: true }),
}
for (const [name, move] of Object.entries(MOVES)) {
  test(`an idle connection that has moved ${name} is closed after the keep-alive timeout of where it is`, async (t) => {
    const farm = new FarmKit({ servers: 2, boot: { placement: PLACEMENT_ROUND_ROBIN } })
    const [first] = farm.servers.map(serve) as [http.Server]
    await farm.settle()
    const accepted: Socket[] = []
    first.on('connection', (socket) => accepted.push(socket))
    let text = ''
    let endedMs = Number.NaN
    const nowMs = () => farm.farm.now() / 1e6
    const client = farm.client().net.connect(PORT, farm.server(1).address, () => client.write(REQUEST))
    client.on('data', (data) => {
      text += data
    })
    client.on('end', () => {
      endedMs = nowMs()
    })
    t.true(await farm.until(() => text.includes('from server1.')))
    await farm.run(50)
    const movedMs = nowMs()
    move(first, accepted[0]!)
    await farm.run(KEEP_ALIVE_MS - 100)
    t.is(endedMs, Number.NaN)
    await farm.run(3000)
    t.true(endedMs - movedMs >= KEEP_ALIVE_MS && endedMs - movedMs < KEEP_ALIVE_MS + 1100, `${endedMs - movedMs} ms`)
    await farm.close()
  })
}

test('a request on a connection that has moved between two is served where it is, and the time-out waits for it', async (t) => {
  const farm = new FarmKit({ servers: 2, boot: { placement: PLACEMENT_ROUND_ROBIN } })
  const [first] = farm.servers.map(serve) as [http.Server]
  await farm.settle()
  let text = ''
  const client = farm.client().net.connect(PORT, farm.server(1).address, () => client.write(REQUEST))
  client.on('data', (data) => {
    text += data
  })
  await farm.until(() => text.includes('from server1.'))
  void first.drain()
  for (let n = 1; n < 4; n++) {
    await farm.run(KEEP_ALIVE_MS / 2)
    client.write(REQUEST)
    t.true(await farm.until(() => text.split('from server2.').length === n + 1, 1000), `request ${n}`)
  }
  await farm.close()
})
