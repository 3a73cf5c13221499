/** Rules of docs/protocol.md: what becomes of a client's packets whose endpoint is on another server, and who says what on the LAN. */
import test from 'ava'
import { PLACEMENT_ROUND_ROBIN } from '../abi/boot.ts'
import { arpFrame, ipv4, type Packet } from './support/packets.ts'
import { CLIENT_IP, CLIENT_MAC, Connection, carried, ENTRY_IP, Lab, lanMac, PORT } from './support/protocol-lab.ts'

const LONG = 'x'.repeat(2500)

test('TTL and loops: a packet goes on as it came, one hop older', async (t) => {
  const lab = await Lab.elsewhere()
  const client = await lab.request()
  lab.sent.length = 0
  const ip = { ttl: 17, tos: 0x28, identification: 0x1234, options: new Uint8Array([1, 1, 1, 0]) }
  const segment = client.bytesOf({ flags: 'PA', payload: 'as it came', urgent: 7 })
  lab.station.sendIp({ ...ip, protocol: 6, payload: segment })
  await lab.run(5)
  const [data, ...more] = lab.hub('data', 1)
  t.is(more.length, 0)
  const [source, destination] = [CLIENT_IP, ENTRY_IP]
  t.deepEqual(
    Buffer.from(data!.packet),
    Buffer.from(ipv4({ source, destination, ...ip, ttl: 16, protocol: 6, payload: segment })),
  )
  t.is(lab.read(2), 'requestas it came')
  await lab.close()
})

test('TTL and loops: a packet at the end of its life goes no further', async (t) => {
  const lab = await Lab.elsewhere()
  const client = await lab.request()
  lab.sent.length = 0
  client.send({ flags: 'PA', payload: 'last', sequence: client.sndNxt, ip: { ttl: 1 } })
  await lab.run(5)
  t.deepEqual(lab.hub('data'), [])
  client.send({ flags: 'PA', payload: 'once more', ip: { ttl: 2 } })
  await lab.run(5)
  t.is(carried(lab.hub('data')[0]!).ipv4?.ttl, 1)
  t.is(lab.read(2), 'requestonce more', 'who serves it asks for no more than that')
  await lab.close()
})

const FRAGMENTS: Record<string, { text: string; step: number }> = {
  'that fit the hub together': { text: 'y'.repeat(1200), step: 600 },
  'that do not fit the hub together': { text: LONG, step: 1480 },
}
for (const [name, { text, step }] of Object.entries(FRAGMENTS)) {
  test(`fragments: a segment in pieces ${name} reaches its endpoint`, async (t) => {
    const lab = await Lab.elsewhere()
    const client = await lab.request()
    lab.sent.length = 0
    const segment = client.bytesOf({ flags: 'PA', payload: text })
    const pieces = []
    for (let offset = 0; offset < segment.length; offset += step)
      pieces.push({
        offset,
        payload: segment.subarray(offset, offset + step),
        moreFragments: offset + step < segment.length,
      })
    for (const piece of pieces.reverse()) lab.station.sendIp({ ...piece, identification: 0xbeef, protocol: 6 })
    await lab.run(10)
    t.is(lab.read(2), `request${text}`)
    for (const data of lab.hub('data')) t.is(carried(data).ipv4?.identification, 0xbeef)
    await lab.close()
  })
}

/** The last packet that server 2 sent to the client with bytes in it, as a router would quote it. */
function lastData(lab: Lab): Packet & { quote: Uint8Array } {
  const { packet, frame } = lab.toClient(2).findLast((sent) => sent.packet.tcp!.payload.length > 0)!
  return { ...packet, quote: frame.subarray(14, 14 + 20 + 8) }
}

test('ICMP errors: fragmentation needed reaches who sent the segment, which goes again in smaller ones', async (t) => {
  const lab = await Lab.elsewhere()
  const client = await lab.request()
  lab.socket(2).write('z'.repeat(1400))
  await lab.run(5)
  const { quote, ipv4: ip } = lastData(lab)
  t.is(ip?.totalLength, 1440)
  client.drain()
  lab.station.sendIcmp(3, 4, 1000, quote)
  await lab.run(5)
  t.is(carried(lab.hub('data').at(-1)!).icmp?.type, 3, 'over the hub')
  const again = client.drain()
  t.true(again.length >= 2)
  for (const { packet } of again) {
    t.true(packet.ipv4!.totalLength <= 1000)
    t.is(packet.sourceMac, lanMac(2))
  }
  await lab.close()
})

test('ICMP errors: unreachable ends no connection that works, here or there', async (t) => {
  const lab = await Lab.elsewhere()
  const client = await lab.request()
  lab.socket(2).write('data')
  await lab.run(5)
  for (const code of [0, 1, 2, 3, 13]) lab.station.sendIcmp(3, code, 0, lastData(lab).quote)
  await lab.run(5)
  client.send({ flags: 'PA', payload: ' goes on' })
  lab.socket(2).write(' and on')
  await lab.run(5)
  t.is(lab.read(2), 'request goes on')
  t.is(client.text, 'data and on')
  t.deepEqual(lab.errors, [])
  await lab.close()
})

test('ICMP errors: one that quotes a number which is not on its way changes nothing', async (t) => {
  const lab = await Lab.elsewhere()
  const client = await lab.request()
  lab.socket(2).write('z'.repeat(1400))
  await lab.run(5)
  const { quote } = lastData(lab)
  client.send({ flags: 'A' })
  await lab.run(5)
  lab.station.sendIcmp(3, 4, 600, quote)
  lab.socket(2).write('z'.repeat(1400))
  await lab.run(5)
  t.is(client.last?.packet.ipv4?.totalLength, 1440)
  await lab.close()
})

test('ICMP errors: one that comes to where the endpoint was is sent on', async (t) => {
  const lab = await Lab.open({ servers: 3 })
  const client = await lab.request()
  await lab.migrate(1, 2)
  await lab.migrate(2, 3)
  lab.socket(3).write('z'.repeat(1400))
  await lab.run(5)
  const { frame } = lab.toClient(3).at(-1)!
  client.drain()
  // It was on its way to server 2 when the endpoint left that.
  lab.fate = ({ on, from, packet }) => (on === 'hub' && from === 'server1' && packet.ipos?.kind === 'data' ? [] : null)
  lab.station.sendIcmp(3, 4, 1000, frame.subarray(14, 14 + 20 + 8))
  await lab.run(1)
  const { checksum: _, ...straggler } = lab.hub('data', 1).at(-1)!
  lab.fate = () => null
  lab.fromHub(1, 2, 'data', { ...straggler, destination: '192.0.2.2' })
  await lab.run(5)
  const again = client.drain()
  t.true(again.length >= 2)
  for (const { packet } of again) t.true(packet.ipv4!.totalLength <= 1000)
  await lab.close()
})

test('LANs: answers carry the address that the client uses, and the MAC address of who serves', async (t) => {
  const lab = await Lab.elsewhere()
  const client = await lab.request()
  client.drain()
  lab.socket(2).write('answer')
  await lab.run(5)
  const { packet } = client.drain()[0]!
  t.is(packet.ipv4?.source, ENTRY_IP)
  t.is(packet.tcp?.sourcePort, PORT)
  t.is(packet.sourceMac, lanMac(2))
  t.deepEqual(
    lab.toClient(1).filter((sent) => sent.packet.tcp?.payload.length),
    [],
    'server 1 sends none of it',
  )
  await lab.close()
})

test('socket options: a connection that is served elsewhere from its request on has those of the listener there', async (t) => {
  const lab = await Lab.elsewhere()
  const client = await lab.request()
  for (const text of ['not ', 'held ', 'back']) {
    lab.socket(2).write(text)
    await lab.run(1)
  }
  t.is(client.text, 'not held back', 'noDelay, of which the entry INIC knows nothing')
  await lab.close()
})

test('ARP: who serves asks with its own address, and answers for no other', async (t) => {
  const lab = await Lab.elsewhere()
  const client = await lab.request()
  lab.socket(2).write('answer')
  await lab.run(5)
  t.is(client.text, 'answer')
  const asked = arpFrame({ operation: 'request', senderMac: CLIENT_MAC, sender: CLIENT_IP, target: ENTRY_IP })
  lab.station.send(asked)
  await lab.run(100_000)
  const arps = lab.sent.filter(({ packet }) => packet.arp)
  t.true(arps.some(({ from, packet }) => from === 'server2' && packet.arp?.target === CLIENT_IP))
  for (const { from, packet } of arps) t.is(packet.arp?.sender, from === 'server1' ? ENTRY_IP : '192.0.2.2')
  t.true(arps.some(({ from, packet }) => from === 'server1' && packet.arp?.operation === 'reply'))
  await lab.close()
})

test('IP identification: TCP segments are atomic, whoever sends them', async (t) => {
  const lab = await Lab.open()
  await lab.request()
  lab.socket(1).write('from the first')
  await lab.run(1)
  await lab.migrate(1, 2)
  lab.socket(2).write('from the second')
  await lab.run(1)
  for (const n of [1, 2]) {
    t.true(lab.toClient(n).length > 0)
    for (const { packet } of lab.toClient(n)) t.like(packet.ipv4, { dontFragment: true, identification: 0 })
  }
  await lab.close()
})

test('IP identification: datagrams of one address take theirs from ranges, one a server', async (t) => {
  const lab = await Lab.open({ boot: { placement: PLACEMENT_ROUND_ROBIN } })
  for (const node of lab.kit.servers) {
    const socket = node.dgram.createSocket('udp4')
    socket.on('message', (_message, { port, address }) => socket.send('x'.repeat(3000), port, address))
    socket.bind(PORT)
  }
  await lab.run(50)
  for (let port = 5000; port < 5040; port++) {
    const payload = new Uint8Array(12)
    new DataView(payload.buffer).setUint32(0, port * 0x10000 + PORT)
    new DataView(payload.buffer).setUint16(4, 12)
    lab.station.sendIp({ protocol: 17, payload })
    await lab.run(5)
  }
  const places = [1, 2].map((n) => {
    const numbers = lab.toClient(n).map(({ packet }) => packet.ipv4!.identification)
    t.true(numbers.length >= 40, `server ${n}: ${numbers.length} fragments`)
    return [...new Set(numbers.map((number) => number & 31))]
  })
  t.deepEqual(places, [[0], [1]])
  await lab.close()
})

test('a server that is the client itself is served by itself', async (t) => {
  const lab = await Lab.elsewhere()
  const node = lab.server(2)
  let answer = ''
  const socket = node.net.connect(PORT, ENTRY_IP, () => socket.write('to myself'))
  socket.on('data', (data) => {
    answer += data
  })
  socket.on('error', (error) => t.fail(error.message))
  await lab.run(50)
  t.is(lab.read(2), 'to myself')
  lab.socket(2).end('from myself')
  await lab.run(50)
  t.is(answer, 'from myself')
  t.is(lab.hub('connect', 1).length, 1, 'it went by server 1')
  await lab.run(3000)
  t.true(socket.closed)
  for (const n of [1, 2]) t.is(lab.state(n, 'forwardUsed') + lab.state(n, 'tcbUsed'), 0)
  await lab.close()
})

test('what a row knows: the end of what the client sent, and what it acknowledged', async (t) => {
  const lab = await Lab.elsewhere({ leaseMs: 400, stateIntervalMs: 50 })
  const client = await lab.request()
  lab.socket(2).write('a silent download')
  await lab.run(5)
  client.send({ flags: 'A' })
  await lab.run(5)
  client.drain()
  lab.server(2).board.powerOff()
  await lab.run(2000)
  const [reset, ...more] = client.drain()
  t.is(more.length, 0)
  t.like(reset?.tcp, { flags: 'RA', sequence: client.rcvNxt, acknowledgment: client.sndNxt })
  t.is(reset?.packet.sourceMac, lanMac(1))
  await lab.close()
})

test('what a row knows: a client that has more in the meantime is reset all the same', async (t) => {
  const lab = await Lab.elsewhere({ leaseMs: 400, stateIntervalMs: 50 })
  const client = await lab.request()
  lab.socket(2).write('not acknowledged')
  await lab.run(5)
  client.drain()
  lab.server(2).board.powerOff()
  await lab.run(2000)
  const [reset] = client.drain()
  t.not(reset?.tcp.sequence, client.rcvNxt, 'its answer is a challenge ACK (RFC 5961 §3.2)')
  client.send({ flags: 'A' })
  await lab.run(5)
  t.like(client.last?.tcp, { flags: 'R', sequence: client.rcvNxt })
  await lab.close()
})

test('a stray is reset by the INIC whose address it has, but not before that one has been on for a lease', async (t) => {
  const lab = await Lab.elsewhere({ leaseMs: 400, stateIntervalMs: 50 })
  const client = new Connection(lab.station, 999, {})
  const stray = () => client.send({ flags: 'PA', payload: 'stray', acknowledgment: 77 })
  stray()
  await lab.run(5)
  t.is(client.last, undefined, 'it may be of a connection that was forwarded before')
  await lab.run(400)
  stray()
  await lab.run(5)
  t.like(client.last?.tcp, { flags: 'R', sequence: 77 })
  t.is(client.last?.packet.sourceMac, lanMac(1))
  t.deepEqual(lab.hub('data'), [])
  await lab.close()
})
