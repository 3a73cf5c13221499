import assert from 'node:assert/strict'
import { once } from 'node:events'
import test from 'node:test'
import { bootFarm, frames, projectFirmware, startFarm } from 'inic/testing'

const firmware = await projectFirmware()
const IPV4 = 0x0800
const ARP = 0x0806

/** Frames that the server's card has counted, by EtherType. */
function census(server) {
  return Object.fromEntries(server.table('Census').map(({ etherType, frames }) => [etherType, Number(frames)]))
}

test('serves a connection as ipOS does, and counts its frames', async () => {
  const farm = await bootFarm({ firmware, servers: 1 })
  const server = farm.server(1)
  const listener = server.net.createServer((socket) => socket.end('served')).listen(80)
  const socket = farm.client().net.connect(80, server.address).setEncoding('utf8')
  const [text] = await farm.settled(once(socket, 'data'))
  assert.equal(text, 'served')
  // SYN and the handshake's ACK, at least.
  assert.ok(census(server)[IPV4] >= 2)
  assert.ok(census(server)[ARP] >= 1)
  socket.destroy()
  listener.close()
  await farm.close()
})

test('counts each frame once', async () => {
  const farm = await bootFarm({ firmware, servers: 1, clients: 0 })
  const server = farm.server(1)
  const station = farm.station(farm.lan)
  for (let n = 0; n < 1000; n++) {
    station.inject(
      frames.padded(
        frames.ethernet({
          destinationMac: server.mac(0),
          sourceMac: '02:00:00:00:00:99',
          type: 0x88b5,
          payload: frames.bytes(100),
        }),
      ),
    )
    if (n % 100 === 99) await farm.run(1)
  }
  assert.equal(census(server)[0x88b5], 1000)
  await farm.close()
})

test('a farm of two: the cards take turns', async () => {
  const PLACEMENT_ROUND_ROBIN = 3 // inic/abi/boot.ts
  const farm = await bootFarm({ firmware, servers: 2, boot: { placement: PLACEMENT_ROUND_ROBIN } })
  for (const server of farm.servers) server.net.createServer((socket) => socket.end(server.name)).listen(80)
  const served = new Set()
  for (let n = 0; n < 8; n++) {
    const socket = farm.client().net.connect(80, farm.server(1).address).setEncoding('utf8')
    socket.write('which of you?')
    const [name] = await farm.settled(once(socket, 'data'))
    served.add(name)
  }
  assert.deepEqual([...served].sort(), ['server1', 'server2'])
  await farm.close()
})

test('the farm of farm.json, asked from outside', async () => {
  const farm = await startFarm('farm.json')
  const response = await fetch(farm.url('server1', 80))
  assert.match(await response.text(), /Your request came through {{name}}/)
  assert.ok(farm.table('server1', 'Census').some(({ etherType }) => etherType === IPV4))
  await farm.stop()
})
