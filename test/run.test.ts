import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { CaptureReader } from '../emulator/link/capture-reader.ts'
import { buildFirmware } from '../toolchain/firmware/build.ts'
import { packageRoot } from '../toolchain/package-root.ts'
import { type CliResult, inic, type RunningCommand, startInic } from './support/cli.ts'
import { TINY_SOURCE, temporaryDirectory, tinyFirmware } from './support/tiny-firmware.ts'

const ECHO_FARM = join(packageRoot, 'examples/echo.json')
const SHOP = join(packageRoot, 'examples/shop/server.mjs')

interface FarmFixture {
  readonly directory: string
  readonly file: string
  /** Options that name the farm. */
  readonly selection: string[]
}

/** A farm file in a folder of its own; `server` and `more` are settings in JSON. */
async function farmFile({ server = '', more = '' } = {}): Promise<FarmFixture> {
  const directory = await temporaryDirectory()
  const file = join(directory, 'farm.json')
  await writeFile(
    file,
    `{ "networks": [{ "name": "lan-a" }],
       "servers": [{ "name": "server1", "interfaces": [{ "network": "lan-a", "address": "10.0.0.1/24" }]${server} }]${more} }`,
  )
  return { directory, file, selection: ['--farm', file] }
}

function shopFarm(): Promise<FarmFixture> {
  const server = `, "applications": [{ "name": "shop", "program": ${JSON.stringify(SHOP)}, "env": { "PORT": "80" } }]`
  return farmFile({ server, more: ', "publish": ["0:server1:80"]' })
}

/** Starts the shop and waits until it listens. */
async function startShop(
  t: ExecutionContext,
  args: string[] = [],
): Promise<FarmFixture & { farm: RunningCommand; url: string }> {
  const fixture = await shopFarm()
  const farm = startInic(t, ['run', fixture.file, ...args])
  await farm.until(/shop: listening on port 80/)
  const [, url] = await farm.until(/(http:\/\/127\.0\.0\.1:\d+) → server1:80/)
  return { ...fixture, farm, url }
}

test.serial('--once serves one page by real HTTP and exits with 0', async (t) => {
  const { file } = await shopFarm()
  const result = await inic(['run', file, '--once'])
  t.is(result.code, 0, result.stderr)
  t.regex(result.stdout, /GET http:\/\/127\.0\.0\.1:\d+\/ → server1:80: 200, \d+ bytes of text\/html/)
  t.regex(result.stdout, /server1: \d+ frames received, \d+ sent/)
})

test.serial('--once --json says it for machines, on the V8 processor too', async (t) => {
  const { file } = await shopFarm()
  const result = await inic(['run', file, '--once', '--json', '--cpu', 'v8'])
  t.is(result.code, 0, result.stderr)
  t.like(JSON.parse(result.stdout), { ok: true, status: 200 })
})

test.serial('--once fails if nobody serves', async (t) => {
  const { file } = await farmFile({ more: ', "publish": ["0:server1:80"]' })
  const result = await inic(['run', file, '--once', '--json'])
  t.is(result.code, 1)
  t.like(JSON.parse(result.stdout), { ok: false })
  t.regex(result.stderr, /was not served/)
})

test.serial('a farm runs, answers, is inspected, and stops at Ctrl-C within a second', async (t) => {
  const { farm, url, selection, directory } = await startShop(t)
  const page = await fetch(url)
  t.is(page.status, 200)
  t.regex(await page.text(), /The INIC shop/)

  const tables = JSON.parse((await inic(['inspect', 'tables', '--json', ...selection])).stdout)
  t.is(tables[0].server, 'server1')
  const listening = tables[0].tables.find((table: { title: string }) => table.title === 'Listening Sockets')
  t.like(listening.rows[0], { 'TCP port': 80 })
  const cookies = tables[0].tables.find((table: { title: string }) => table.title === 'Cookie Map')
  t.like(cookies, { columns: ['cookie ID', 'server IP'], rows: [], remark: 'not yet kept by this firmware' })

  const status = JSON.parse((await inic(['inspect', 'farm', '--json', ...selection])).stdout)
  t.like(status.servers[0], { name: 'server1', state: 'running', addresses: ['10.0.0.1'], applications: ['shop'] })
  for (const what of ['tables', 'connections', 'queues', 'memory', 'farm']) {
    const shown = await inic(['inspect', what, ...selection])
    t.is(shown.code, 0, shown.stderr)
    t.regex(shown.stdout, /server1/)
  }
  const shown = await inic(['inspect', 'tables', ...selection])
  t.regex(shown.stdout, /server1: Cookie Map \(not yet kept by this firmware\)\n {2}cookie ID {2}server IP\n/)

  const socket = join(directory, '.inic/farm/control.sock')
  t.is((await stat(socket)).mode & 0o777, 0o600)
  const stopped = await farm.interrupt()
  t.is(stopped.code, 0, stopped.stderr)
  t.true(stopped.milliseconds < 1000, `${stopped.milliseconds} ms`)
  t.false(existsSync(socket))
  await t.throwsAsync(fetch(url))
})

test.serial(
  'an unattached connection is in the Temporary table, and in the Local table after its request',
  async (t) => {
    const { url, selection } = await startShop(t)
    const client = connect(Number(new URL(url).port), '127.0.0.1')
    t.teardown(() => client.destroy())
    await once(client, 'connect')
    const endpoints = async () => {
      const [{ tables }] = JSON.parse((await inic(['inspect', 'tables', '--json', ...selection])).stdout)
      const total = (title: string) => tables.find((table: { title: string }) => table.title === title).total
      return { temporary: total('Temporary'), local: total('Local') }
    }
    // Silent for longer than `placeAfter` it would be placed by its port: the first look has to be quick.
    const first = await endpoints()
    client.write('GET / HTTP/1.1\r\nHost: shop\r\n\r\n')
    await once(client, 'data')
    t.deepEqual(await endpoints(), { temporary: 0, local: 1 })
    t.is(first.temporary + first.local, 1)
  },
)

test.serial('memory is read by address, and guards are refused', async (t) => {
  const { selection } = await startShop(t)
  const registers = await inic(['inspect', 'memory', '--at', '0x1000', '--length', '16', ...selection])
  t.regex(registers.stdout, /^00001000 {2}49 4e 49 43 .*\|INIC/)
  for (const at of ['0', '0x2000', '0xffff', '0x3ffffff']) {
    const refused = await inic(['inspect', 'memory', '--at', at, ...selection])
    t.is(refused.code, 2)
    t.regex(refused.stderr, /nothing can be read at/)
  }
})

test.serial('captures of a network, of a link, and from the start', async (t) => {
  const directory = await temporaryDirectory()
  const [all, network, link] = ['all.pcapng', 'network.pcapng', 'link.pcapng'].map((name) => join(directory, name))
  const { farm, url, selection } = await startShop(t, ['--pcap', all])
  const captures = [
    startInic(t, ['capture', 'lan-a', '-o', network, ...selection]),
    startInic(t, ['capture', 'server1.0', '-o', link, ...selection]),
  ]
  await Promise.all(captures.map((capture) => capture.until(/capturing/)))
  const unknown = await inic(['capture', 'lan-x', '-o', join(directory, 'none.pcapng'), ...selection])
  t.is(unknown.code, 2)
  t.regex(unknown.stderr, /no network or link 'lan-x'\s+did you mean 'lan-a'\?/)
  for (let page = 0; page < 5; page++) await (await fetch(url)).text()
  for (const capture of captures) t.is((await capture.interrupt()).code, 0)
  const short = await inic([
    'capture',
    'lan-a',
    '-o',
    join(directory, 'short.pcapng'),
    '--seconds',
    '0.2',
    ...selection,
  ])
  t.is(short.code, 0, short.stderr)
  await farm.interrupt()
  for (const path of [all, network, link]) t.true(countFrames(path) > 10, path)

  t.is((await inic(['capture', 'lan-a', '-o', network, ...selection])).code, 3, 'the farm has stopped')
})

test.serial('a capture ends in order when its farm stops', async (t) => {
  const path = join(await temporaryDirectory(), 'last.pcapng')
  const { farm, url, selection } = await startShop(t)
  const capture = startInic(t, ['capture', 'lan-a', '-o', path, ...selection])
  await capture.until(/capturing/)
  await (await fetch(url)).text()
  t.is((await farm.interrupt()).code, 0)
  const { code, stderr } = await capture.ended
  t.is(code, 0, stderr)
  t.true(countFrames(path) > 5)
})

test.serial('a second farm with the same state, and flashing the file of one that runs, are refused', async (t) => {
  const { file, directory, selection } = await startShop(t)
  const second = await inic(['run', file])
  t.is(second.code, 3)
  t.regex(second.stderr, /this farm is running already/)
  const flash = await inic([
    'flash',
    join(packageRoot, 'build/release/firmware.img'),
    '--flash',
    join(directory, '.inic/farm/server1.flash'),
  ])
  t.is(flash.code, 3)
  t.regex(flash.stderr, /its farm is running/)
  const unknown = await inic(['inspect', 'tables', '--server', 'server7', ...selection])
  t.is(unknown.code, 2)
  t.regex(unknown.stderr, /no server 'server7'\s+did you mean 'server1'\?/)
})

test.serial('nonsense at the control socket is answered or ends the connection, and the farm goes on', async (t) => {
  const { url, directory } = await startShop(t)
  const path = join(directory, '.inic/farm/control.sock')
  const ask = async (text: string): Promise<string> => {
    const socket = connect(path)
    socket.on('error', () => {})
    socket.end(text)
    let answer = ''
    socket.setEncoding('utf8').on('data', (chunk) => {
      answer += chunk
    })
    await new Promise((resolve) => socket.once('close', resolve))
    return answer
  }
  t.regex(await ask('nonsense\n'), /no request/)
  t.regex(await ask('{}\n[]\n'), /no request.*\n.*no request/)
  t.regex(await ask('{"id":1,"method":"format"}\n'), /there is no method 'format'/)
  t.regex(await ask('{"id":1,"method":"inspect","params":{"what":"x"}}\n'), /'x' cannot be inspected/)
  t.regex(await ask('{"id":1,"method":"read","params":{"address":-1,"length":1e9}}\n'), /no address and length/)
  t.regex(await ask('{"id":1,"method":"capture","params":{"target":null}}\n'), /no network or link/)
  t.is(await ask('x'.repeat(200_000)), '')
  t.is((await fetch(url)).status, 200)
})

test.serial('a port that is taken is told, with another to try', async (t) => {
  const { url } = await startShop(t)
  const { port } = new URL(url)
  const { file } = await farmFile()
  const result = await inic(['run', file, '--publish', `${port}:server1:80`])
  t.is(result.code, 1)
  t.regex(result.stderr, new RegExp(`port 127\\.0\\.0\\.1:${port} cannot be published: another program listens there`))
})

test.serial('what does not boot says why, and what to do', async (t) => {
  const cases: Record<string, { edit: (flash: Buffer) => void; says: RegExp }> = {
    'a wrong byte': { edit: (flash) => flash.writeUInt8(flash[100] ^ 1, 100), says: /wrong SHA-256/ },
    'no image': { edit: (flash) => flash.fill(0, 0, 64), says: /not an image/ },
    'a truncated image': { edit: (flash) => flash.writeUInt32LE(0x7fffffff, 12), says: /truncated at byte \d+ of \d+/ },
  }
  const { file, directory } = await shopFarm()
  t.is((await inic(['run', file, '--once'])).code, 0)
  const path = join(directory, '.inic/farm/server1.flash')
  const good = await readFile(path)
  for (const [name, { edit, says }] of Object.entries(cases)) {
    const flash = Buffer.from(good)
    edit(flash)
    await writeFile(path, flash)
    const result = await inic(['run', file, '--once'])
    t.is(result.code, 4, name)
    t.regex(result.stderr, says, name)
    t.regex(result.stderr, /inic flash IMAGE --server NAME/, name)
  }
})

test.serial('the farm that runs is found from its own folder, and from the one above', async (t) => {
  const { directory: above, file } = await farmFile()
  const directory = join(above, 'farms')
  await mkdir(directory)
  await rename(file, join(directory, 'farm.json'))
  const farm = startInic(t, ['run', 'farms/farm.json'], { cwd: above })
  await farm.until(/Ctrl-C/)
  for (const cwd of [directory, above]) {
    const { code, stdout, stderr } = await inic(['inspect', 'farm'], { cwd })
    t.is(code, 0, stderr)
    t.regex(stdout, /server1/)
  }
  t.is((await farm.interrupt()).code, 0)
  for (const cwd of [directory, above]) t.is((await inic(['inspect', 'farm'], { cwd })).code, 3)
})

test.serial('what was flashed by hand stays, and what an earlier run flashed is replaced', async (t) => {
  const { file, selection } = await farmFile()
  const project = await tinyFirmware()
  const { artifacts } = await buildFirmware({ directory: project, target: 'release' })
  const firstRun = startInic(t, ['run', file])
  await firstRun.until(/Ctrl-C/)
  t.regex((await firstRun.interrupt()).stderr, /server1: flashed firmware/)

  t.is((await inic(['flash', artifacts.image, '--server', 'server1', ...selection])).code, 0)
  const trial = startInic(t, ['run', file])
  await trial.until(/Ctrl-C/)
  t.regex((await trial.interrupt()).stderr, /server1: firmware 1\.2\.3 \(primary slot\) serves, and is confirmed/)
  const secondRun = startInic(t, ['run', file])
  await secondRun.until(/Ctrl-C/)
  const { stderr } = await secondRun.interrupt()
  t.regex(stderr, /server1: boots 1\.2\.3, which was flashed by hand/)
  t.regex(stderr, /server1 .*firmware 1\.2\.3/)
})

test.serial('virtual time: two runs and both processors give the same capture', async (t) => {
  const directory = await temporaryDirectory()
  const captures: Buffer[] = []
  for (const [index, cpu] of ['auto', 'auto', 'v8'].entries()) {
    const capture = join(directory, `${index}.pcapng`)
    const args = ['run', ECHO_FARM, '--cpu', cpu, '--state', join(directory, String(index)), '--pcap', capture]
    const result = await inic(args)
    t.is(result.code, 0, result.stderr)
    t.regex(result.stderr, /server2\/client \| 1000 round trips with server1, [\d.]+ us each/)
    captures.push(await readFile(capture))
  }
  t.true(captures[0].length > 100_000)
  t.deepEqual(captures[1], captures[0])
  t.deepEqual(captures[2], captures[0])
})

test.serial('--for ends a run, in either time', async (t) => {
  const state = ['--state', await temporaryDirectory()]
  const virtual = await inic(['run', ECHO_FARM, '--for', '1ms', ...state])
  t.is(virtual.code, 0, virtual.stderr)
  t.regex(virtual.stdout, /virtual time: 0\.001\d+ s/)
  const { file } = await farmFile()
  const real = await inic(['run', file, '--for', '100ms'])
  t.is(real.code, 0, real.stderr)
  t.is((await inic(['run', file, '--for', '1'])).code, 2)
})

test.serial('a board program that is none is told', async (t) => {
  const directory = await temporaryDirectory()
  const cases: Record<string, { text: string; code: number; says: RegExp }> = {
    'no main': { text: 'export const x = 1', code: 2, says: /is no board program\s+it has to export a function/ },
    'a syntax error': {
      text: 'export function main( {',
      code: 1,
      says: /server1\/program cannot be loaded: .*SyntaxError/s,
    },
    'an exception': {
      text: 'export function main() { throw new Error("oh") }',
      code: 1,
      says: /server1\/program ended with code 1: Error: oh/,
    },
  }
  for (const [name, { text, code, says }] of Object.entries(cases)) {
    const program = join(directory, `${name.replaceAll(' ', '-')}.mjs`)
    await writeFile(program, text)
    const application = `{ "name": "program", "kind": "board", "program": ${JSON.stringify(program)} }`
    const { file } = await farmFile({ server: `, "applications": [${application}]`, more: ', "clock": "virtual"' })
    const result = await inic(['run', file])
    t.is(result.code, code, `${name}: ${result.stderr}`)
    t.regex(result.stderr, says, name)
  }
})

/** Starts a farm whose only program asks the shop at 10.0.0.1, with `stream` on its LAN, and waits for the answer. */
async function askShop(t: ExecutionContext, stream: string): Promise<void> {
  const directory = await temporaryDirectory()
  await writeFile(
    join(directory, 'get.mjs'),
    `export function main(board) {
       const socket = board.net.connect({ host: '10.0.0.1', port: 80 })
       socket.end('GET /api/cart HTTP/1.0\\r\\n\\r\\n')
       socket.on('data', data => board.console.log(String(data).split('\\r\\n')[0]))
     }`,
  )
  const file = join(directory, 'farm.json')
  await writeFile(
    file,
    `{ "networks": [{ "name": "lan-a", "streams": ["${stream}"] }],
       "servers": [{ "name": "server1", "interfaces": [{ "network": "lan-a", "address": "10.0.0.2/24" }],
                     "applications": [{ "name": "get", "kind": "board", "program": "get.mjs" }] }] }`,
  )
  const client = startInic(t, ['run', file])
  await client.until(/server1\/get \| HTTP\/1\.1 200 OK/)
  t.is((await client.interrupt()).code, 0)
}

test.serial('two farms on one LAN, by a stream: a client of the one is served by the other', async (t) => {
  const { farm } = await startShop(t, ['--link', 'lan-a=listen:127.0.0.1:0'])
  const [, port] = await farm.until(/listens on 127\.0\.0\.1:(\d+)/)
  await askShop(t, `connect:127.0.0.1:${port}`)
})

test.serial('two farms on one LAN, by datagrams: a client of the one is served by the other', async (t) => {
  const [here, there] = await freeUdpPorts(2)
  await startShop(t, ['--link', `lan-a=dgram:${here},${there}`])
  await askShop(t, `dgram:${there},${here}`)
})

async function freeUdpPorts(count: number): Promise<number[]> {
  const sockets = Array.from({ length: count }, () => createSocket('udp4').bind(0, '127.0.0.1'))
  await Promise.all(sockets.map((socket) => once(socket, 'listening')))
  const ports = sockets.map((socket) => socket.address().port)
  await Promise.all(sockets.map((socket) => new Promise<void>((resolve) => socket.close(resolve))))
  return ports
}

test.serial('a capture is played into a network at the times it bears, and answered', async (t) => {
  const { file, directory } = await farmFile()
  const [clients, seen] = [join(directory, 'clients.pcap'), join(directory, 'seen.pcapng')]
  await writeFile(clients, pcapOf([1_000_000, 1_002_500], arpRequest([10, 0, 0, 9], [10, 0, 0, 1])))
  const args = ['--virtual', '--for', '10ms', '--play', `${clients}:lan-a`, '--pcap', `${seen}:lan-a`]
  const result = await inic(['run', file, ...args])
  t.is(result.code, 0, result.stderr)
  t.regex(result.stderr, /clients\.pcap: 2 frames played into lan-a\n/)
  const frames = framesOf(seen).filter(({ bytes }) => bytes.readUInt16BE(12) === 0x0806)
  const [asked, answered] = [1, 2].map((operation) =>
    frames.filter(({ bytes }) => bytes.readUInt16BE(20) === operation),
  )
  const requests = asked.filter(({ bytes }) => bytes.readUInt32BE(28) === 0x0a000009)
  t.is(requests[1].timestampNs - requests[0].timestampNs, 2_500_000n)
  t.is(answered.filter(({ bytes }) => bytes.readUInt32BE(38) === 0x0a000009).length, 2)
})

test.serial('a capture that is none, or not there, is told', async (t) => {
  const { file, directory } = await farmFile()
  const none = join(directory, 'none.pcap')
  await writeFile(none, 'not a capture at all, but longer than a header')
  for (const [path, says] of [
    [none, /none\.pcap cannot be played: /],
    [join(directory, 'absent.pcap'), /absent\.pcap cannot be played: ENOENT/],
  ] as const) {
    const result = await inic(['run', file, '--play', `${path}:lan-a`])
    t.is(result.code, 1)
    t.regex(result.stderr, says)
  }
})

/** A capture of `frame`, at each of these times in microseconds (the format of libpcap). */
function pcapOf(timesUs: readonly number[], frame: Buffer): Buffer {
  const words = (...values: number[]) => Buffer.from(Uint32Array.from(values).buffer)
  const header = words(0xa1b2c3d4, 0x00040002, 0, 0, 65535, 1)
  const records = timesUs.flatMap((us) => [words(Math.floor(us / 1e6), us % 1e6, frame.length, frame.length), frame])
  return Buffer.concat([header, ...records])
}

/** Who has `target`? Tell `sender` (RFC 826). */
function arpRequest(sender: readonly number[], target: readonly number[]): Buffer {
  const mac = [2, 0, 0, 0, 0, 9]
  const arp = [0, 1, 8, 0, 6, 4, 0, 1, ...mac, ...sender, 0, 0, 0, 0, 0, 0, ...target]
  return Buffer.from([...new Array(6).fill(0xff), ...mac, 8, 6, ...arp, ...new Array(18).fill(0)])
}

const CRASHES: Record<string, { poll: string; says: RegExp[] }> = {
  'a trap': { poll: 'if (c.polls == 3) unreachable()', says: [/trap/, /firmware\/index\.ts:\d+:\d+/] },
  'an endless loop': {
    poll: 'while (c.polls > 2) store<u32>(0x20000, c.polls)',
    says: [/watchdog/, /firmware\/index\.ts:\d+/],
  },
  'a store to an unmapped address': {
    poll: 'if (c.polls == 3) store<u32>(0x3000, 1)',
    says: [/bus-fault/, /0x0*3000/],
  },
}

for (const [name, { poll, says }] of Object.entries(CRASHES)) {
  test.serial(`firmware that stops is reported, with exit code 4: ${name}`, async (t) => {
    const source = TINY_SOURCE.replace('c.lastIrqs = irqs', poll).replace('return 1000000', 'return 1000')
    const project = await tinyFirmware({ source })
    const { artifacts } = await buildFirmware({ directory: project, target: 'debug' })
    const { file } = await farmFile()
    // From the project's folder its symbols are found.
    const result: CliResult = await inic(['run', file, '--image', artifacts.image], { cwd: project })
    t.is(result.code, 4, result.stderr)
    for (const pattern of [/server1 stopped at/, /every server has stopped/, ...says]) t.regex(result.stderr, pattern)
  })
}

function countFrames(path: string): number {
  return framesOf(path).length
}

function framesOf(path: string): { timestampNs: bigint; bytes: Buffer }[] {
  const reader = new CaptureReader(path)
  const frames = []
  try {
    while (reader.next()) {
      const { timestampNs, memory, offset, length } = reader
      frames.push({ timestampNs, bytes: Buffer.from(memory.subarray(offset, offset + length)) })
    }
  } finally {
    reader.close()
  }
  return frames
}
