/** inic/testing itself: what it finds, and what it says when it does not. */
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test from 'ava'
import { packageRoot } from '../toolchain/package-root.ts'
import {
  bootCard,
  bootFarm,
  ExpectationError,
  type FarmFirmware,
  frames,
  iposFirmware,
  projectFirmware,
  startFarm,
  VirtualLab,
} from '../toolchain/testing/index.ts'
import { linkedProject } from './support/project.ts'
import { temporaryDirectory } from './support/tiny-firmware.ts'

const execute = promisify(execFile)
const CARD = '192.0.2.1'
const PEER = { mac: '02:00:00:00:00:09', address: '192.0.2.9' }

/** A host with ipOS, the test's end of its cable, and an ARP request for it. */
async function host() {
  const lab = new VirtualLab()
  const node = lab.addHost('host', { firmware: await iposFirmware(), address: `${CARD}/24` })
  const request = frames.arpFrame({ operation: 'request', senderMac: PEER.mac, sender: PEER.address, target: CARD })
  return { lab, node, port: node.port(0), request }
}

test('expectFrame finds the next frame that fits, and passes over those before it', async (t) => {
  const { lab, port, request } = await host()
  port.inject(request)
  const reply = await port.expectFrame({ arp: { operation: 'reply', sender: CARD, target: PEER.address } })
  t.is(reply.destinationMac, PEER.mac)
  t.true(reply.timeNs > 0)
  t.deepEqual(reply.problems, [])
  // ipOS announces itself at power-on (RFC 5227), before it answers: that frame is gone.
  t.deepEqual(
    port.take().filter(({ arp }) => arp?.operation === 'reply'),
    [],
  )
  await lab.close()
})

test('expectFrame takes a function too', async (t) => {
  const { lab, port, request } = await host()
  port.inject(request)
  const reply = await port.expectFrame((packet) => packet.arp?.operation === 'reply')
  t.is(reply.arp!.sender, CARD)
  await lab.close()
})

test('a frame that does not come: the error shows what came, and how it differs', async (t) => {
  const { lab, port, request } = await host()
  port.inject(request)
  const error = await t.throwsAsync(port.expectFrame({ arp: { operation: 'reply', sender: '192.0.2.77' } }, 50), {
    instanceOf: ExpectationError,
  })
  t.regex(error!.message, /host\.0: no such frame within 50 ms/)
  t.regex(error!.message, /ARP reply 192\.0\.2\.1/)
  t.regex(error!.message, /arp\.sender: "192\.0\.2\.1", not "192\.0\.2\.77"/)
  t.is(lab.now(), 50e6)
  await lab.close()
})

test('expectSilence shows what broke it', async (t) => {
  const { lab, port, request } = await host()
  await lab.run(3000) // its announcements are out
  await port.expectSilence(100)
  port.inject(request)
  const error = await t.throwsAsync(port.expectSilence(100), { instanceOf: ExpectationError })
  t.regex(error!.message, /silence was expected[\s\S]*ARP reply/)
  await lab.close()
})

test('several waits at once share the time', async (t) => {
  const { lab, port, request } = await host()
  const [reply, short, condition] = await Promise.all([
    port.expectFrame({ arp: { operation: 'reply' } }, 500),
    lab.until(() => false, 20),
    lab.until(() => lab.now() >= 30e6, 100),
    (async () => {
      await lab.until(() => lab.now() >= 10e6)
      port.inject(request)
    })(),
  ])
  t.true(reply.timeNs >= 10e6)
  t.false(short)
  t.true(condition)
  await lab.close()
})

test('run waits for a wait that is under way', async (t) => {
  const { lab } = await host()
  const waiting = lab.until(() => lab.now() >= 5e6)
  await lab.run(10)
  t.true(await waiting)
  t.true(lab.now() >= 10e6)
  await lab.close()
})

test('settled: gives what a promise gives, and does not wait for ever', async (t) => {
  const { lab } = await host()
  t.is(await lab.settled(Promise.resolve(7)), 7)
  await t.throwsAsync(lab.settled(Promise.reject(new Error('no'))), { message: 'no' })
  await t.throwsAsync(lab.settled(new Promise(() => {}), 30), { message: /Not settled within 30 ms/ })
  t.is(lab.now(), 30e6)
  await lab.close()
})

test('two hosts talk over a cable that can be cut', async (t) => {
  const firmware = await iposFirmware()
  const lab = new VirtualLab()
  const a = lab.addHost('a', { firmware, address: '192.0.2.1/24' })
  const b = lab.addHost('b', { firmware, address: '192.0.2.2/24' })
  const cable = lab.connect([a, 0], [b, 0], { delayNs: 1e6 })
  a.net.createServer((socket) => socket.pipe(socket)).listen(7)
  const socket = b.net.connect(7, '192.0.2.1').setEncoding('utf8')
  socket.write('one')
  t.deepEqual(await lab.settled(once(socket, 'data')), ['one'])
  cable.cut()
  socket.write('two')
  t.false(await lab.until(() => socket.readableLength > 0, 2000))
  cable.mend()
  t.deepEqual(await lab.settled(once(socket, 'data')), ['two'])
  socket.destroy()
  await lab.close()
})

test('the same test gives the same frames at the same times', async (t) => {
  const record = async () => {
    const farm = await bootFarm({ servers: 2, seed: 'again', lan: { delayNs: 1000, jitterNs: 50_000, loss: 0.05 } })
    const station = farm.station(farm.lan)
    farm
      .server(1)
      .net.createServer((socket) => socket.pipe(socket))
      .listen(7)
    const socket = farm.client().net.connect(7, 'server1')
    socket.end(frames.bytes(20_000))
    socket.resume()
    await farm.settled(once(socket, 'end'), 60_000)
    const heard = station.take().map(({ frame, timeNs }) => `${timeNs} ${Buffer.from(frame).toString('hex')}`)
    const nowNs = farm.now()
    await farm.close()
    return { heard, nowNs }
  }
  const first = await record()
  t.true(first.heard.length > 0)
  t.deepEqual(await record(), first)
})

const EMPTY: FarmFirmware['layouts'] = { format: 2, classes: [], constants: {} }

test('a table that there is not', async (t) => {
  const { lab, node } = await host()
  t.throws(() => node.table('Cats'), {
    instanceOf: RangeError,
    message: /host keeps no table of Cats; it has: State, /,
  })
  t.is(node.table('State').length, 1)
  const { wasm } = await iposFirmware()
  const stranger = lab.addCard('stranger', { firmware: { wasm, layouts: EMPTY } })
  t.deepEqual(stranger.table('State'), [])
  await lab.close()
})

test('a port that there is not, an address that is none', async (t) => {
  const { lab, node } = await host()
  const firmware = await iposFirmware()
  t.throws(() => node.port(3), { instanceOf: RangeError, message: /no MAC port 3/ })
  t.throws(() => lab.connect([node, 3], [node, 0]), { instanceOf: RangeError, message: /no MAC port 3/ })
  t.throws(() => lab.addHost('b', { firmware, address: '192.0.2.300/24' }), {
    message: /192\.0\.2\.300\/24 is no IPv4/,
  })
  t.throws(() => lab.addHost('b', { firmware, address: '192.0.2.3/24', gateway: 'x' }), { message: /x is no IPv4/ })
  await lab.close()
})

test('firmware that stops fails what waits, with its source line; expectCrash is content', async (t) => {
  const directory = await linkedProject('hello')
  const file = join(directory, 'firmware/index.ts')
  const source = await readFile(file, 'utf8')
  await writeFile(
    file,
    source
      .replace('    st.blinks++\n', '    st.blinks++\n    if (st.blinks == 3) panic(77, st.blinks)\n')
      .replace('import { halInit', "import { panic } from 'inic/firmware/hal/panic.ts'\nimport { halInit"),
  )
  // Not release, where small functions become part of their callers.
  const firmware = await projectFirmware({ directory, target: 'debug' })
  const line = (await readFile(file, 'utf8')).split('\n').findIndex((text) => text.includes('panic(77')) + 1

  const card = bootCard({ firmware })
  const error = await t.throwsAsync(card.expectConsole('never', 10_000), { instanceOf: ExpectationError })
  t.regex(error!.message, /The firmware stopped\.\ncard stopped at 2\.00\d+ s: panic: .*reason 77, detail 3/)
  t.regex(error!.message, new RegExp(`firmware/index\\.ts:${line}:`))
  t.regex(error!.message, /node_modules\/inic\/firmware\/hal\/panic\.ts:\d+:/)
  await card.close()

  const other = bootCard({ firmware })
  t.is((await other.expectCrash(5000)).panic!.reason, 77)
  // What was expected is no failure afterwards.
  await other.expectConsole('hello')
  await other.close()
})

test('expectTrace goes from event to event, and shows what came instead', async (t) => {
  const card = bootCard({ firmware: await projectFirmware({ directory: await linkedProject('hello') }) })
  t.is((await card.expectTrace({ a: 1 })).b, 1)
  t.is((await card.expectTrace(({ a }) => a === 1, 5000)).b, 3)
  t.true(card.board.hostClock.now() >= 2e9 && card.board.hostClock.now() < 2.1e9)
  const error = await t.throwsAsync(card.expectTrace({ event: 1 }, 2500), { instanceOf: ExpectationError })
  t.regex(error!.message, /card: no such trace entry within 2500 ms[\s\S]*3000\.000 ms event 32768 \(0, 4, 0\)/)
  t.is((await card.expectTrace({})).b, 6)
  await card.close()
})

test("a project that does not compile says so in the compiler's words", async (t) => {
  const directory = await linkedProject('hello')
  await writeFile(join(directory, 'firmware/index.ts'), 'export function reset(): void { nothing() }')
  const error = await t.throwsAsync(projectFirmware({ directory }))
  t.regex(error!.message, /does not compile[\s\S]*Cannot find name 'nothing'[\s\S]*firmware\/index\.ts\(1,/)
})

test('startFarm: a farm file in real time, asked from outside', async (t) => {
  const directory = await temporaryDirectory()
  const file = join(directory, 'farm.json')
  await writeFile(join(directory, 'server.mjs'), SERVER)
  await writeFile(file, FARM)
  const farm = await startFarm(file)
  t.teardown(() => farm.stop())
  t.is(await (await fetch(farm.url('s1', 80))).text(), 'from s1')
  t.true(farm.table('s1', 'Listener').some(({ port }) => port === 80))
  t.deepEqual(farm.crashes, [])
  t.true(farm.console.some(({ source, line }) => source === 's1' && line.startsWith('ipOS')))
  t.throws(() => farm.url('s1', 81), { message: /publishes no port 81 of s1/ })
  t.throws(() => farm.table('s2', 'Tcb'), { message: /no server s2/ })
})

const SERVER = `import { createServer } from 'node:http'
createServer((_request, response) => response.end('from ' + process.env.INIC_SERVER)).listen(80)`
const FARM = `{ "networks": [{ "name": "n" }], "publish": ["8080:s1:80"], "servers": [{ "name": "s1",
  "interfaces": [{ "network": "n", "address": "192.0.2.1/24" }], "applications": [{ "name": "web", "program": "server.mjs" }] }] }`

test('the example of docs/testing.md runs', async (t) => {
  t.timeout(300_000)
  const text = await readFile(join(packageRoot, 'docs/testing.md'), 'utf8')
  const [, example] = /```js\n([\s\S]*?)```/.exec(text)!
  const directory = await linkedProject('echo')
  await rm(join(directory, 'test/firmware.test.js'))
  await writeFile(join(directory, 'test/example.test.js'), example)
  const { stdout } = await execute(process.execPath, ['--test', '--test-reporter=tap'], {
    cwd: directory,
    env: { ...process.env, NODE_OPTIONS: '' },
  })
  t.regex(stdout, /# pass 3\n# fail 0/)
})
