import assert from 'node:assert/strict'
import { once } from 'node:events'
import test from 'node:test'
import { bootCard, frames, iposFirmware, projectFirmware, VirtualLab } from 'inic/testing'

const firmware = await projectFirmware()
const STATIONS = ['02:00:00:00:00:0a', '02:00:00:00:00:0b', '02:00:00:00:00:0c']
const [A, B, C] = STATIONS

/** A switch that is on, and the test's ends of the cables to its ports. */
function boot() {
  const card = bootCard({ firmware })
  const ports = [0, 1, 2].map((n) => card.port(n))
  return { card, ports }
}

/** A frame of an EtherType for experiments, padded to what a wire demands. */
function frame(destinationMac, sourceMac) {
  return frames.padded(frames.ethernet({ destinationMac, sourceMac, type: 0x88b5, payload: frames.bytes('hello') }))
}

/** Has each station say something, so that the switch knows them all. */
async function introduce(ports) {
  for (const [n, mac] of STATIONS.entries()) ports[n].inject(frame(frames.BROADCAST_MAC, mac))
  await ports[0].expectFrame({ sourceMac: C })
  for (const port of ports) port.take()
}

test('floods what it does not know', async () => {
  const { card, ports } = boot()
  ports[0].inject(frame(B, A))
  await ports[1].expectFrame({ destinationMac: B, sourceMac: A })
  await ports[2].expectFrame({ destinationMac: B, sourceMac: A })
  await ports[0].expectSilence(10)
  await card.close()
})

test('sends to a known station alone', async () => {
  const { card, ports } = boot()
  await introduce(ports)
  ports[2].inject(frame(A, C))
  await ports[0].expectFrame({ destinationMac: A, sourceMac: C })
  await ports[1].expectSilence(10)
  const rows = card.table('Station').map(({ mac, port }) => [mac, port])
  assert.deepEqual(new Map(rows), new Map(STATIONS.map((mac, n) => [BigInt(`0x${mac.replaceAll(':', '')}`), n])))
  await card.close()
})

test('keeps a frame for a station on its own port from the others', async () => {
  const { card, ports } = boot()
  await introduce(ports)
  ports[0].inject(frame(A, '02:00:00:00:00:0d'))
  for (const port of ports) await port.expectSilence(10)
  assert.equal(card.table('Counters')[0].filtered, 1n)
  await card.close()
})

test('follows a station that moves', async () => {
  const { card, ports } = boot()
  await introduce(ports)
  ports[1].inject(frame(frames.BROADCAST_MAC, A))
  await ports[2].expectFrame({ sourceMac: A })
  ports[2].inject(frame(A, C))
  await ports[1].expectFrame({ destinationMac: A })
  await card.expectConsole(`${A} is on port 1`)
  await card.close()
})

test('forgets a station after five minutes of silence', async () => {
  const { card, ports } = boot()
  await introduce(ports)
  await card.run(299_000)
  assert.equal(card.table('Station').length, 3)
  ports[0].inject(frame(B, A)) // so it goes on knowing A
  await ports[1].expectFrame()
  await card.run(2_000)
  assert.deepEqual(
    card.table('Station').map(({ port }) => port),
    [0],
  )
  ports[0].inject(frame(B, A))
  await ports[2].expectFrame({ destinationMac: B })
  await card.close()
})

test('forgets what was on a port whose link goes down', async () => {
  const { card, ports } = boot()
  await introduce(ports)
  card.cables[1].cut()
  await card.run(10)
  assert.deepEqual(
    card
      .table('Station')
      .map(({ port }) => port)
      .sort(),
    [0, 2],
  )
  await card.close()
})

test('passes no reserved group address on', async () => {
  const { card, ports } = boot()
  ports[0].inject(frame('01:80:c2:00:00:00', A))
  await ports[1].expectSilence(10)
  await card.close()
})

test('a thousand stations and more: none is believed to be where it is not', async () => {
  const { card, ports } = boot()
  const mac = (n) => `02:00:00:01:${(n >> 8).toString(16).padStart(2, '0')}:${(n & 255).toString(16).padStart(2, '0')}`
  for (let n = 0; n < 1500; n++) {
    ports[n % 3].inject(frame(frames.BROADCAST_MAC, mac(n)))
    if (n % 50 === 49) await card.run(1)
  }
  const rows = card.table('Station')
  assert.ok(rows.length > 900 && rows.length <= 1024, `${rows.length} rows`)
  for (const { mac: known, port } of rows) assert.equal(Number(known & 0xffffn) % 3, port)
  await card.close()
})

test('two servers talk through it', async () => {
  const lab = new VirtualLab()
  const card = lab.addCard('switch', { firmware })
  const ipos = await iposFirmware()
  const hosts = [1, 2].map((n) => lab.addHost(`host${n}`, { firmware: ipos, address: `192.0.2.${n}/24` }))
  for (const [n, host] of hosts.entries()) lab.connect([card, n], [host, 0], { delayNs: 5_000 })
  const server = hosts[0].net.createServer((socket) => socket.end('through the switch')).listen(80)
  const socket = hosts[1].net.connect(80, '192.0.2.1').setEncoding('utf8')
  const [text] = await lab.settled(once(socket, 'data'))
  assert.equal(text, 'through the switch')
  assert.equal(card.table('Station').length, 2)
  server.close()
  socket.destroy()
  await lab.close()
})
