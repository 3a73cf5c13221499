import { once } from 'node:events'
import net from 'node:net'
import { pipeline } from 'node:stream/promises'
import { closed, listen, pair, readAll, record, sleep } from './support/sockets.ts'
import { type Case, runTable } from './support/table.ts'

/** Servers and the settings of sockets, as Node documents them; see net.test.ts. */
const cases: Record<string, Case> = {
  'close waits for connections': async (t, network) => {
    const { server, port } = await listen(network, {}, (peer) => peer.resume())
    const accepted = once(server, 'connection')
    const socket = network.client.connect(port, network.address)
    socket.write('x')
    await accepted
    const events = record(server, ['close'])
    let called: unknown = 'no'
    server.close((error) => {
      called = error
    })
    await sleep(20)
    t.deepEqual(events, [])
    const late = network.client.connect(port, network.address)
    t.is((await once(late, 'error'))[0].code, 'ECONNREFUSED')
    socket.end()
    await once(server, 'close')
    t.is(called, undefined)
    const error = await new Promise<NodeJS.ErrnoException | undefined>((resolve) => server.close(resolve))
    t.is(error?.code, 'ERR_SERVER_NOT_RUNNING')
  },
  'getConnections counts': async (t, network) => {
    const { server, port } = await listen(network, {}, (peer) => peer.resume())
    const count = () =>
      new Promise<number>((resolve, reject) =>
        server.getConnections((error, n) => (error ? reject(error) : resolve(n))),
      )
    t.is(await count(), 0)
    const sockets = [0, 1, 2].map(() => network.client.connect(port, network.address))
    for (const socket of sockets) {
      socket.write('x')
      if (!socket.connecting) continue
      await once(socket, 'connect')
    }
    while ((await count()) < 3) await sleep(1)
    for (const socket of sockets) socket.end()
    server.close()
    await once(server, 'close')
    t.is(await count(), 0)
  },
  'maxConnections drops, and says whom': async (t, network) => {
    const { server, port } = await listen(network, {}, (peer) => peer.resume())
    server.maxConnections = 1
    const accepted = once(server, 'connection')
    const first = network.client.connect(port, network.address)
    first.write('x')
    await accepted
    const dropped = once(server, 'drop')
    const second = network.client.connect(port, network.address)
    const over = closed(second.resume())
    second.write('x')
    const [who] = await dropped
    t.like(who, { localAddress: network.address, localPort: port, localFamily: 'IPv4', remoteFamily: 'IPv4' })
    t.true(who.remotePort > 0)
    await over
    first.destroy()
    server.close()
  },
  'pauseOnConnect hands over paused sockets': async (t, network) => {
    const { server, port } = await listen(network, { pauseOnConnect: true })
    const accepted = once(server, 'connection') as Promise<[net.Socket]>
    const socket = network.client.connect(port, network.address)
    socket.write('waiting')
    const [peer] = await accepted
    t.true(peer.isPaused())
    const got: string[] = []
    peer.on('data', (chunk) => got.push(String(chunk)))
    await sleep(20)
    t.deepEqual(got, [])
    peer.resume()
    await once(peer, 'data')
    t.deepEqual(got, ['waiting'])
    socket.destroy()
    server.close()
  },
  'a socket knows its server': async (t, network) => {
    const { server, peer, client } = await pair(network)
    t.is((peer as net.Socket & { server: net.Server }).server, server)
    client.destroy()
  },
  'many connections at once': async (t, network) => {
    const { server, port } = await listen(network, {}, (peer) => pipeline(peer, peer).catch(() => {}))
    const talk = async (i: number) => {
      const socket = network.client.connect(port, network.address)
      socket.end(`client ${i}`)
      return String(await readAll(socket))
    }
    const answers = await Promise.all(Array.from({ length: 300 }, (_, i) => talk(i)))
    t.deepEqual(
      answers,
      Array.from({ length: 300 }, (_, i) => `client ${i}`),
    )
    server.close()
    await once(server, 'close')
  },
  'a server that speaks first is heard': async (t, network) => {
    const { server, port } = await listen(network, {}, (peer) => peer.end('220 ready'))
    t.is(String(await readAll(network.client.connect(port, network.address))), '220 ready')
    server.close()
  },

  'a silent socket times out, an active one does not': async (t, network) => {
    const { client, peer } = await pair(network)
    const events: string[] = []
    client.setTimeout(250, () => events.push('callback'))
    client.on('timeout', () => events.push('timeout'))
    t.is(client.timeout, 250)
    peer.resume()
    for (let i = 0; i < 15; i++) {
      await sleep(20)
      client.write('x')
    }
    for (let i = 0; i < 15; i++) {
      await sleep(20)
      peer.write('y')
      client.resume()
    }
    t.deepEqual(events, [])
    await once(client, 'timeout')
    t.deepEqual(events, ['callback', 'timeout'])
    t.false(client.destroyed)
    await sleep(350)
    t.is(events.length, 2, 'once a silence')
    client.write('x')
    await once(client, 'timeout')
    client.setTimeout(0)
    client.write('x')
    await sleep(350)
    t.is(events.length, 3)
    client.destroy()
  },
  'a timeout given to connect runs from the start': async (t, network) => {
    const { server, port } = await listen(network)
    const socket = network.client.connect({ port, host: network.address, timeout: 30 })
    await once(socket, 'timeout')
    t.is(socket.timeout, 30)
    socket.destroy()
    server.close()
  },
  'settings return the socket': async (t, network) => {
    const { client, server } = await pair(network)
    t.is(client.setNoDelay(), client)
    t.is(client.setNoDelay(false), client)
    t.is(client.setKeepAlive(true, 5000), client)
    t.is(client.setKeepAlive(false), client)
    t.is(client.setTimeout(1000), client)
    t.is(client.ref(), client)
    t.is(client.unref(), client)
    t.is(server.ref(), server)
    t.is(server.unref(), server)
    const early = new network.client.Socket()
    t.is(early.setNoDelay(), early)
    t.is(early.setKeepAlive(true), early)
    t.is(early.unref(), early)
    client.destroy()
  },
  'sockets can be subclassed': async (t, network) => {
    const { server, port } = await listen(network, {}, (peer) => peer.end('sub'))
    class Special extends network.client.Socket {
      special = 'yes'
      shout(): string {
        return this.special.toUpperCase()
      }
    }
    const socket = new Special()
    t.true(socket instanceof Special)
    t.true(socket instanceof net.Socket)
    t.true(socket instanceof network.client.Socket)
    t.is(socket.shout(), 'YES')
    socket.connect(port, network.address)
    t.is(String(await readAll(socket)), 'sub')
    server.close()
  },
}

runTable(cases)
