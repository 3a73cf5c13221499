import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { CaptureReader } from '../emulator/link/capture-reader.ts'
import { packageRoot } from '../toolchain/package-root.ts'
import { inic, startInic } from './support/cli.ts'
import { type Packet, parse } from './support/packets.ts'
import { temporaryDirectory } from './support/tiny-firmware.ts'

const FARM = join(packageRoot, 'examples/farm.json')

interface Seen {
  /** Cable and direction: `router-a.lan-a out` is into the network. */
  readonly at: string
  readonly packet: Packet
}

function readCapture(path: string): Seen[] {
  const reader = new CaptureReader(path)
  const seen: Seen[] = []
  while (reader.next()) {
    const frame = Uint8Array.from(reader.memory.subarray(reader.offset, reader.offset + reader.length))
    seen.push({ at: reader.interfaces[reader.interface].name, packet: parse(frame) })
  }
  reader.close()
  return seen
}

/** Where TCP segments between a client and `address` were seen, each place once. */
function placesOf(seen: readonly Seen[], way: 'source' | 'destination', address: string): string[] {
  const places = seen.filter(({ packet }) => packet.tcp !== undefined && packet.ipv4?.[way] === address)
  return [...new Set(places.map(({ at }) => at))].sort()
}

test.serial('FIG. 3: a page is fetched through router A, and its bytes come back through router B', async (t) => {
  const directory = await temporaryDirectory()
  const capture = join(directory, 'farm.pcapng')
  const options = ['--state', directory, '--pcap', capture, '--publish', '0:server1:80']
  const result = await inic(['run', FARM, '--once', ...options])
  t.is(result.code, 0, result.stderr)
  t.regex(result.stdout, /→ server1:80: 200, \d+ bytes of text\/html/)
  const seen = readCapture(capture)
  t.deepEqual(placesOf(seen, 'destination', '123.123.123.1'), ['gateway-internet.0 out', 'router-a.lan-a out'])
  const back = placesOf(seen, 'source', '123.123.123.1')
  t.true(back.includes('router-b.internet out'), back.join())
  // Whichever server serves, it answers by its port on LAN B.
  t.deepEqual(
    back.filter((place) => !/^server\d\.1 out$/.test(place)),
    ['router-b.internet out'],
  )
  const crossed = seen.filter(({ at, packet }) => at === 'router-a.lan-a out' && packet.tcp !== undefined)
  t.true(crossed.every(({ packet }) => packet.ipv4?.ttl === 63 && packet.problems.length === 0))
})

test.serial("every server's addresses behind both routers are reached", async (t) => {
  const directory = await temporaryDirectory()
  const targets = ['123.123.123.1', '222.222.222.1', 'server2', '222.222.222.5']
  const publish = targets.flatMap((target) => ['--publish', `0:${target}:80`])
  const farm = startInic(t, ['run', FARM, '--state', directory, ...publish])
  for (const server of ['server1', 'server2', 'server3'])
    await farm.until(new RegExp(`${server}/shop \\| shop: listening`))
  const addresses = ['123.123.123.1', '222.222.222.1', '123.123.123.3', '222.222.222.5']
  for (const [index, target] of targets.entries()) {
    const [, url] = await farm.until(new RegExp(`(http://127\\.0\\.0\\.1:\\d+) → ${target}:80`))
    const { servedBy } = (await (await fetch(`${url}/api/products`)).json()) as { servedBy: { local: string } }
    t.is(servedBy.local, `${addresses[index]}:80`)
  }
  const selection = ['--farm', FARM, '--state', directory]
  const routers = JSON.parse((await inic(['inspect', 'routers', '--json', ...selection])).stdout)
  t.deepEqual(
    routers.map(({ server }: { server: string }) => server),
    ['router-a', 'router-b'],
  )
  const [{ tables }] = routers
  const neighbors = tables.find(({ title }: { title: string }) => title === 'ARP').rows
  t.true(neighbors.some((row: Record<string, unknown>) => row.address === '123.123.123.1' && row.state === 'reachable'))
  const one = await inic(['inspect', 'routers', '--server', 'router-b', ...selection])
  t.regex(one.stdout, /222\.222\.222\.254\/24/)
  t.notRegex(one.stdout, /router-a:/)
  const none = await inic(['inspect', 'routers', '--server', 'router-x', ...selection])
  t.is(none.code, 2)
  t.regex(none.stderr, /no router 'router-x'\s+did you mean 'router-a'\?/)
  t.is((await farm.interrupt()).code, 0)
})

test.serial('through two routers in virtual time: every run gives the same frames at the same times', async (t) => {
  const directory = await temporaryDirectory()
  const file = join(directory, 'virtual.json')
  const program = (name: string) => join(packageRoot, 'examples/echo', name)
  await writeFile(
    file,
    JSON.stringify({
      clock: 'virtual',
      networks: [
        { name: 'internet', kind: 'wan', link: { delay: '5ms', loss: '1%' } },
        { name: 'lan-a' },
        { name: 'lan-b', mtu: 1000 },
      ],
      routers: ['a', 'b'].map((letter, n) => ({
        name: `router-${letter}`,
        delay: '10us',
        interfaces: [
          { network: 'internet', address: `198.51.100.${n + 1}/24` },
          { network: `lan-${letter}`, address: `10.0.${n}.254/24` },
        ],
      })),
      servers: [
        {
          name: 'server1',
          interfaces: [
            { network: 'lan-a', address: '10.0.0.1/24', reply: 'lan-b' },
            { network: 'lan-b', address: '10.0.1.1/24' },
          ],
          applications: [{ name: 'echo', kind: 'board', program: program('server.mjs') }],
        },
        {
          name: 'client',
          interfaces: [{ network: 'internet', address: '198.51.100.9/24', gateway: 'router-a' }],
          applications: [{ name: 'client', kind: 'board', program: program('client.mjs'), args: ['server1', '50'] }],
        },
      ],
    }),
  )
  const runs = await Promise.all(
    ['one', 'two'].map(async (name) => {
      const capture = join(directory, `${name}.pcapng`)
      const state = join(directory, name)
      const result = await inic(['run', file, '--pcap', capture, '--state', state])
      t.is(result.code, 0, result.stderr)
      return { stdout: result.stdout, bytes: await readFile(capture), seen: readCapture(capture) }
    }),
  )
  t.is(runs[0].stdout, runs[1].stdout)
  t.true(runs[0].bytes.equals(runs[1].bytes))
  const [{ seen }] = runs
  t.deepEqual(placesOf(seen, 'source', '10.0.0.1'), ['router-b.internet out', 'server1.1 out'])
  t.deepEqual(placesOf(seen, 'destination', '10.0.0.1'), ['client.0 out', 'router-a.lan-a out'])
})
