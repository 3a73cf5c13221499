import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import fc from 'fast-check'
import { hasAddon } from '../emulator/cpu/addon.ts'
import { Farm } from '../emulator/farm.ts'
import { formatLinkAddress, parseLinkAddress } from '../emulator/link/address.ts'
import { DgramLink } from '../emulator/link/dgram.ts'
import { FrameParser, MAXIMUM_STREAM_FRAME } from '../emulator/link/frame-stream.ts'
import { StreamLink } from '../emulator/link/stream.ts'
import { TapLink } from '../emulator/link/tap.ts'
import { TestPort, testFrame } from './emulator-kit.ts'

const A = Uint8Array.of(2, 0, 0, 0, 0, 0xa)
const B = Uint8Array.of(2, 0, 0, 0, 0, 0xb)
const LOCAL = { host: '127.0.0.1', port: 0 }
const folder = mkdtempSync(join(tmpdir(), 'inic-stream-'))
test.after.always(() => rmSync(folder, { recursive: true }))

async function until(condition: () => boolean, what: string): Promise<void> {
  for (let n = 0; n < 500; n++) {
    if (condition()) return
    await sleep(10)
  }
  throw new Error(`did not happen within 5 s: ${what}`)
}

const framed = (frame: Uint8Array): Buffer => {
  const bytes = Buffer.alloc(4 + frame.length)
  bytes.writeUInt32BE(frame.length)
  bytes.set(frame, 4)
  return bytes
}

test('framing: frames come out whole however the stream is cut', (t) => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ minLength: 1, maxLength: 300 }), { maxLength: 20 }),
      fc.array(fc.integer({ min: 1, max: 50 })),
      (frames, cuts) => {
        const seen: Uint8Array[] = []
        const parser = new FrameParser((memory, offset, length) =>
          seen.push(Uint8Array.from(memory.subarray(offset, offset + length))),
        )
        const stream = Buffer.concat(frames.map(framed))
        let at = 0
        for (const cut of cuts) {
          t.is(parser.push(stream.subarray(at, at + cut)), -1)
          at = Math.min(stream.length, at + cut)
        }
        parser.push(stream.subarray(at))
        t.deepEqual(seen, frames)
      },
    ),
  )
})

test('framing: the longest frame passes, a longer one and an empty one are no frames', (t) => {
  let length = 0
  const parser = new FrameParser((_memory, _offset, bytes) => {
    length = bytes
  })
  t.is(parser.push(framed(new Uint8Array(MAXIMUM_STREAM_FRAME))), -1)
  t.is(length, MAXIMUM_STREAM_FRAME)
  t.is(parser.push(framed(new Uint8Array(MAXIMUM_STREAM_FRAME + 1))), MAXIMUM_STREAM_FRAME + 1)
  t.is(new FrameParser(() => {}).push(Buffer.alloc(4)), 0)
  const byBytes = new FrameParser(() => {})
  for (const byte of [0xff, 0xff, 0xff]) t.is(byBytes.push(Buffer.of(byte)), -1)
  t.is(byBytes.push(Buffer.of(0xff)), 0xffffffff)
})

test('two farms joined by a stream: TCP, Unix socket, reconnection', async (t) => {
  for (const listen of [LOCAL, { path: join(folder, 'link.sock') }]) {
    const reports: string[] = []
    const onReport = (message: string) => reports.push(message)
    const one = new Farm()
    const two = new Farm()
    const server = one.own(new StreamLink('server', one, { listen, onReport }))
    await server.ready
    const client = two.own(new StreamLink('client', two, { connect: server.address!, onReport }))
    const [a, b] = [new TestPort('a'), new TestPort('b')]
    one.connect(a, server)
    two.connect(b, client)
    await until(() => server.connected && client.connected, 'connection')
    for (let n = 0; n < 100; n++) a.send(testFrame(B, A, 100 + n), 0)
    b.send(testFrame(A, B, 2032), 0)
    await until(() => b.frames.length === 100 && a.frames.length === 1, 'frames')
    t.deepEqual(b.frames[99].bytes, testFrame(B, A, 199))
    t.deepEqual(a.frames[0].bytes, testFrame(A, B, 2032))
    const address = server.address!
    const second = 'path' in address ? connect(address.path) : connect(address.port)
    await once(second, 'close')
    t.true(reports.some((report) => report.includes('turned')))
    await one.stop()
    await until(() => !client.connected, 'end')
    a.send(testFrame(B, A), 0)
    b.send(testFrame(A, B), 0)
    t.is(client.statistics().lost, 1)
    const again = new StreamLink('server', one, { listen: address })
    await again.ready
    await until(() => client.connected, 'reconnection')
    await two.stop()
    await again.close()
  }
})

test('a peer that does not speak the framing is named and disconnected; the next one is served', async (t) => {
  const reports: string[] = []
  const farm = new Farm()
  const link = farm.own(new StreamLink('lan-a', farm, { listen: LOCAL, onReport: (message) => reports.push(message) }))
  await link.ready
  const port = new TestPort('p')
  farm.connect(port, link)
  const { port: number } = link.address as { port: number }
  const stranger = connect(number)
  stranger.write('GET / HTTP/1.1\r\n\r\n')
  await once(stranger, 'close')
  await until(() => !link.connected, 'end')
  t.regex(
    reports.join('\n'),
    /lan-a lost 127\.0\.0\.1:\d+: a frame of 1195725856 bytes was announced; the other side does not speak QEMU's stream framing/,
  )
  const peer = connect(number)
  await until(() => link.connected, 'the next')
  peer.write(Buffer.concat([framed(new Uint8Array(10)), framed(new Uint8Array(3000)), framed(testFrame(B, A))]))
  await until(() => port.frames.length === 1, 'frame')
  t.like(link.statistics(), { received: 1, refused: 2 })
  peer.destroy()
  await farm.stop()
})

test('a peer that does not read costs a bounded amount of memory', async (t) => {
  const sockets: Socket[] = []
  const server = createServer((socket) => sockets.push(socket.pause()))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const farm = new Farm()
  const link = farm.own(
    new StreamLink('out', farm, { connect: { host: '127.0.0.1', port: (server.address() as { port: number }).port } }),
  )
  const port = new TestPort('p')
  farm.connect(port, link)
  await until(() => link.connected, 'connection')
  const frame = testFrame(B, A, 1514)
  for (let n = 0; n < 20_000; n++) {
    port.send(frame, 0)
    if (n % 100 === 0) await sleep(0)
  }
  const { sent, lost } = link.statistics()
  t.is(sent + lost, 20_000)
  t.true(lost > 5000, `${lost} lost`)
  for (const socket of sockets) socket.destroy()
  await farm.stop()
  server.close()
})

test('a stream waits for its peer to come', async (t) => {
  const farm = new Farm()
  const path = join(folder, 'later.sock')
  const reports: string[] = []
  const link = farm.own(
    new StreamLink('out', farm, { connect: { path }, onReport: (message) => reports.push(message) }),
  )
  await sleep(250)
  t.is(reports.length, 1, reports.join())
  t.regex(reports[0], /ENOENT.*trying again/)
  const server = createServer()
  server.listen(path)
  await until(() => link.connected, 'connection')
  await farm.stop()
  server.close()
})

test('dgram: one frame a datagram, both ways; strangers are not heard', async (t) => {
  const farm = new Farm()
  const peer = createSocket('udp4')
  peer.bind(0, '127.0.0.1')
  await once(peer, 'listening')
  const link = farm.own(
    new DgramLink('d', farm, { local: LOCAL, remote: { host: '127.0.0.1', port: peer.address().port } }),
  )
  await link.ready
  const port = new TestPort('p')
  farm.connect(port, link)
  const got = once(peer, 'message')
  port.send(testFrame(B, A, 99), 0)
  const [message] = (await got) as [Buffer]
  t.deepEqual(Uint8Array.from(message), testFrame(B, A, 99))
  const to = Number(link.address.split(':')[1])
  const stranger = createSocket('udp4')
  stranger.send(testFrame(A, B), to, '127.0.0.1')
  peer.send(Buffer.alloc(5), to, '127.0.0.1')
  peer.send(testFrame(A, B, 77), to, '127.0.0.1')
  await until(() => port.frames.length === 1, 'frame')
  t.is(port.frames[0].bytes.length, 77)
  t.like(link.statistics(), { received: 1, refused: 1 })
  stranger.close()
  peer.close()
  await farm.stop()
})

test('datagrams: a remote address that cannot be is an error', async (t) => {
  const farm = new Farm()
  // A socket of IPv4 goes nowhere in IPv6.
  const link = farm.own(new DgramLink('d', farm, { local: LOCAL, remote: { host: '::1', port: 9 } }))
  await t.throwsAsync(link.ready)
  await farm.stop()
})

test('links to the outside are refused in virtual time', (t) => {
  const farm = new Farm({ clock: 'virtual' })
  for (const make of [
    () => new StreamLink('s', farm, { listen: LOCAL }),
    () => new DgramLink('d', farm, { local: LOCAL, remote: LOCAL }),
    () => new TapLink('t', 'inic0', farm),
  ]) {
    t.throws(make, { instanceOf: RangeError, message: /virtual time/ })
  }
  t.throws(() => new StreamLink('s', new Farm(), {}), { instanceOf: RangeError, message: /either listen or connect/ })
})

test('addresses', (t) => {
  const cases: [string, object | RegExp][] = [
    ['192.0.2.1:80', { host: '192.0.2.1', port: 80 }],
    ['host.example:5555', { host: 'host.example', port: 5555 }],
    [':5555', { host: '127.0.0.1', port: 5555 }],
    ['5555', { host: '127.0.0.1', port: 5555 }],
    ['[::1]:1', { host: '::1', port: 1 }],
    ['unix:/run/x', { path: '/run/x' }],
    ['./x.sock', { path: './x.sock' }],
    ['', /is no address/],
    ['host', /is no address/],
    ['a:b:1', /is no address/],
    ['h:65536', /65535/],
    [`unix:${'x'.repeat(200)}`, /1 to 107 bytes/],
    ['unix:', /1 to 107 bytes/],
  ]
  for (const [text, expected] of cases) {
    if (expected instanceof RegExp)
      t.throws(() => parseLinkAddress(text), { instanceOf: RangeError, message: expected })
    else t.deepEqual(parseLinkAddress(text), expected as never)
  }
  for (const text of ['192.0.2.1:80', '[::1]:1', 'unix:/run/x']) t.is(formatLinkAddress(parseLinkAddress(text)), text)
})

test('TAP: frames of the kernel come in, and ours go out', async (t) => {
  const farm = new Farm()
  let link: TapLink
  try {
    if (!hasAddon()) throw new Error('the CPU addon is not built')
    link = farm.own(new TapLink('tap', `inic${process.pid % 10000}`, farm, { address: '198.51.100.1/24', up: true }))
  } catch (error) {
    t.log(`skipped: ${(error as Error).message}`)
    t.pass()
    return
  }
  const port = new TestPort('p')
  farm.connect(port, link)
  const socket = createSocket('udp4')
  const arp = () => port.frames.find(({ bytes }) => bytes[12] === 8 && bytes[13] === 6 && bytes[41] === 99)
  for (let n = 0; n < 20 && arp() === undefined; n++) {
    socket.send('x', 9, '198.51.100.99')
    await sleep(50)
  }
  socket.close()
  t.truthy(arp(), 'the kernel asks who has 198.51.100.99')
  port.send(testFrame(new Uint8Array(6).fill(255), A), 0)
  t.is(link.statistics().sent, 1)
  await farm.stop()
})
