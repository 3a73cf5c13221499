import { readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import test from 'ava'
import fc from 'fast-check'
import { formatIpv4, isHostAddress, parseIpv4, parseIpv4Prefix, parseMac } from '../toolchain/config/addresses.ts'
import { parsePublish, parseStream } from '../toolchain/config/endpoints.ts'
import { farmFileSchema } from '../toolchain/config/farm-file.ts'
import { suggest } from '../toolchain/config/issues.ts'
import { defaultFarm, loadFarm, parseFarm } from '../toolchain/config/load-farm.ts'
import { formatSize, parseDuration, parsePercentage, parseRate, parseSize } from '../toolchain/config/units.ts'
import { CommandError, EXIT_USAGE } from '../toolchain/errors.ts'
import { packageRoot } from '../toolchain/package-root.ts'

const LAN = '{ "name": "lan-a" }'
const SERVER = '{ "name": "server1", "interfaces": [{ "network": "lan-a", "address": "10.0.0.1/24" }] }'

function farm({
  networks = LAN,
  servers = SERVER,
  more = '',
}: {
  networks?: string
  servers?: string
  more?: string
} = {}): string {
  return `{\n  "networks": [${networks}],\n  "servers": [${servers}]${more && `,\n  ${more}`}\n}`
}

function server(settings: string): string {
  return farm({ servers: SERVER.replace(/ }$/, `, ${settings} }`) })
}

function interfaces(list: string): string {
  return farm({
    networks: `${LAN}, { "name": "hub", "kind": "hub" }`,
    servers: `{ "name": "server1", "interfaces": [${list}] }`,
  })
}

test('the least that is a farm, with every default', (t) => {
  const config = parseFarm(farm(), '/farms/Big Shop.json')
  t.deepEqual(config, {
    name: 'big-shop',
    file: '/farms/Big Shop.json',
    seed: undefined,
    clock: 'real',
    networks: [{ name: 'lan-a', kind: 'lan', mtuBytes: 1500, wire: {}, taps: [], publishFrom: undefined, streams: [] }],
    routers: [],
    servers: [
      {
        name: 'server1',
        firmware: undefined,
        memoryBytes: 64 * 2 ** 20,
        flashBytes: 4 * 2 ** 20,
        cpu: undefined,
        interfaces: [
          {
            port: 0,
            network: 'lan-a',
            address: { address: 0x0a000001, prefix: 24 },
            gateway: undefined,
            reply: undefined,
            mac: undefined,
          },
        ],
        applications: [],
        settings: {},
      },
    ],
    publish: [],
  })
})

test('every setting arrives in its base unit', (t) => {
  const program = join(packageRoot, 'examples/shop/server.mjs')
  const config = parseFarm(
    `{
      "name": "all", "seed": "s", "clock": "virtual", // comments and a last comma are let through
      "networks": [{
        "name": "lan-a", "mtu": 1400, "taps": ["inic0", "inic1,10.0.0.9/24"], "streams": ["listen:9001", "connect:10.1.1.1:7"],
        "link": { "delay": "1.5ms", "jitter": "10us", "rate": "100Mbit/s", "loss": "2%", "duplication": "1%", "reordering": "0.5%",
                  "reorderBy": "2ms", "corruption": "0%", "queue": 10 }
      }, { "name": "sync", "kind": "hub" }],
      "servers": [{
        "name": "server1", "memory": "32 MiB", "flash": "1MiB", "cpu": "v8",
        "interfaces": [
          { "network": "lan-a", "address": "10.0.0.1/24", "gateway": "10.0.0.254", "mac": "02:00:00:00:00:0a" },
          { "network": "sync" }
        ],
        "applications": [{ "name": "shop", "program": ${JSON.stringify(program)}, "kind": "board", "args": ["-v"], "env": { "PORT": "80" },
                           "heap": "128MiB", "firstSpeaker": { "25": "server" } }],
        "settings": { "maximumConnections": 10, "placeAfter": "100ms", "receiveCredit": "64KiB", "congestionControl": "newreno",
                      "timestamps": false, "selectiveAcknowledgement": false, "windowScale": true, "alwaysCookies": true }
      }],
      "publish": ["0.0.0.0:8080:server1:80", "0:server1:443"],
    }`,
    'all.json',
  )
  t.deepEqual(config.networks[0].wire, {
    delayNs: 1.5e6,
    jitterNs: 10e3,
    rateBps: 1e8,
    loss: 0.02,
    duplication: 0.01,
    reordering: 0.005,
    reorderNs: 2e6,
    corruption: 0,
    queueFrames: 10,
  })
  t.deepEqual(config.networks[0].streams, [
    { role: 'listen', address: { host: '127.0.0.1', port: 9001 } },
    { role: 'connect', address: { host: '10.1.1.1', port: 7 } },
  ])
  t.deepEqual(config.networks[0].taps, [
    { interfaceName: 'inic0', address: undefined },
    { interfaceName: 'inic1', address: '10.0.0.9/24' },
  ])
  const [only] = config.servers
  t.like(only, { memoryBytes: 2 ** 25, flashBytes: 2 ** 20, cpu: 'v8' })
  t.is(only.interfaces[0].gateway, 0x0a0000fe)
  t.deepEqual(only.interfaces[0].mac, Uint8Array.of(2, 0, 0, 0, 0, 10))
  t.is(only.interfaces[1].port, 2, 'the hub is on the last port')
  t.deepEqual(only.applications, [
    {
      name: 'shop',
      kind: 'board',
      program,
      args: ['-v'],
      env: { PORT: '80' },
      heapBytes: 2 ** 27,
      firstSpeakers: [[25, 'server']],
    },
  ])
  t.deepEqual(only.settings, {
    maximumConnections: 10,
    placeAfterMs: 100,
    receiveCreditBytes: 65536,
    congestionControl: 1,
    flags: 1 | 2 | 8,
  })
  t.deepEqual(config.publish, [
    { host: '0.0.0.0', port: 8080, server: 'server1', serverPort: 80 },
    { host: '127.0.0.1', port: 0, server: 'server1', serverPort: 443 },
  ])
})

test("the default farm has FIG. 3's addresses for server 1, and the shop", async (t) => {
  const config = await defaultFarm()
  const [server1] = config.servers
  t.deepEqual(
    server1.interfaces.map(({ network, address }) => [network, formatIpv4(address?.address ?? 0)]),
    [
      ['lan-a', '123.123.123.1'],
      ['lan-b', '222.222.222.1'],
    ],
  )
  t.is(server1.applications[0].program, resolve(packageRoot, 'examples/shop/server.mjs'))
  t.deepEqual(config.publish, [{ host: '127.0.0.1', port: 8080, server: 'server1', serverPort: 80 }])
})

const REFUSED: Record<string, { text: string; says: (string | RegExp)[] }> = {
  'an empty file': { text: '', says: ['bad.json:1:1', 'the file is empty'] },
  'no JSON at all': { text: 'name: farm', says: ['bad.json:1:1', 'not JSON'] },
  'a missing comma': {
    text: '{\n  "name": "x"\n  "seed": "y"\n}',
    says: ['bad.json:3:3', 'not JSON: comma expected', '3 |   "seed": "y"', '  |   ^^^^^^'],
  },
  'a list in place of the farm': { text: '[]', says: ['bad.json:1:1: found a list', 'write an object'] },
  'no networks and no servers': { text: '{}', says: ["'networks' is missing", "'servers' is missing"] },
  'a misspelt setting': {
    text: server('"memroy": "64MiB"'),
    says: ['servers[0].memroy: there is no such setting', "did you mean 'memory'?", 'bad.json:3:'],
  },
  'an unknown setting': {
    text: server('"colour": 1'),
    says: ['servers[0].colour: there is no such setting', 'known are: name, firmware, memory'],
  },
  'a key twice': { text: server('"cpu": "v8", "cpu": "auto"'), says: ["'cpu' stands here twice"] },
  'a size without a unit': {
    text: server('"memory": "64"'),
    says: ['servers[0].memory: "64" is no size', 'write it as in "64MiB"'],
  },
  'a size as a number': { text: server('"memory": 64'), says: ['found a number', 'write a string'] },
  'too little memory': {
    text: server('"memory": "1MiB"'),
    says: ['1 MiB of INIC memory', 'choose 16 MiB to under 4 GiB'],
  },
  'too much memory': { text: server('"memory": "4GiB"'), says: ['4 GiB of INIC memory'] },
  'a flash that cannot be laid out': {
    text: server('"flash": "100KiB"'),
    says: ['100 KiB of flash', 'in steps of 64 KiB'],
  },
  'a processor that is not there': {
    text: server('"cpu": "v9"'),
    says: ['"v9" is not known here', "did you mean 'v8'?"],
  },
  'a loss over 100 %': {
    text: farm({ networks: '{ "name": "lan-a", "link": { "loss": "101%" } }' }),
    says: ['"101%" is no share'],
  },
  'a duration without a unit': {
    text: farm({ networks: '{ "name": "lan-a", "link": { "delay": "1" } }' }),
    says: ['"1" is no duration', '"200us"'],
  },
  'an MTU out of range': {
    text: farm({ networks: '{ "name": "lan-a", "mtu": 9000 }' }),
    says: ['9000 is no whole number from 576 to 2018'],
  },
  'a name with a space': {
    text: farm({ networks: '{ "name": "LAN A" }' }),
    says: ['"LAN A" does not fit', 'small letters'],
  },
  'two networks of one name': {
    text: farm({ networks: `${LAN}, ${LAN}` }),
    says: ["networks[1].name: a second 'lan-a'"],
  },
  'a network that is not there': {
    text: interfaces('{ "network": "lan-b", "address": "10.0.0.1/24" }'),
    says: ["there is no network 'lan-b'", "did you mean 'lan-a'?"],
  },
  'an address without a prefix': {
    text: interfaces('{ "network": "lan-a", "address": "10.0.0.1" }'),
    says: ['"10.0.0.1" is no IPv4 address with prefix length', '192.0.2.1/24'],
  },
  'a LAN without an address': { text: interfaces('{ "network": "lan-a" }'), says: ["'address' is missing"] },
  'the address of a network': {
    text: interfaces('{ "network": "lan-a", "address": "10.0.0.0/24" }'),
    says: ['no address that a host may have', '10.0.0.1 to 10.0.0.254'],
  },
  'a gateway elsewhere': {
    text: interfaces('{ "network": "lan-a", "address": "10.0.0.1/24", "gateway": "10.0.1.1" }'),
    says: ['10.0.1.1 is not on the network of 10.0.0.1/24'],
  },
  'an interface as its own gateway': {
    text: interfaces('{ "network": "lan-a", "address": "10.0.0.1/24", "gateway": "10.0.0.1" }'),
    says: ["the interface's own address"],
  },
  'an address twice': {
    text: farm({ servers: `${SERVER}, ${SERVER.replace('server1', 'server2')}` }),
    says: ["servers[1].interfaces[0].address: 'server1' on the same network has this address too"],
  },
  'a port twice': {
    text: interfaces('{ "network": "lan-a", "address": "10.0.0.1/24" }, { "network": "hub", "port": 0 }'),
    says: ['MAC port 0 is taken'],
  },
  'a group MAC address': {
    text: interfaces('{ "network": "lan-a", "address": "10.0.0.1/24", "mac": "01:00:00:00:00:01" }'),
    says: ['group address'],
  },
  'four interfaces': { text: interfaces('{}, {}, {}, {}'), says: ['4 entries; at most 3 fit'] },
  'a program that is not there': {
    text: server('"applications": [{ "name": "a", "program": "missing.mjs" }]'),
    says: ['servers[0].applications[0].program: there is no file /farms/missing.mjs'],
  },
  'a first speaker of no port': {
    text: server(
      `"applications": [{ "name": "a", "program": ${JSON.stringify(join(packageRoot, 'package.json'))}, "firstSpeaker": { "smtp": "server" } }]`,
    ),
    says: ['servers[0].applications[0].firstSpeaker: a key is no port'],
  },
  'a published port of no form': {
    text: farm({ more: '"publish": ["80"]' }),
    says: ['"80" is no published port', '8080:server1:80'],
  },
  'a published server that is not there': {
    text: farm({ more: '"publish": ["80:server2:80"]' }),
    says: ["there is no server 'server2'", "did you mean 'server1'?"],
  },
  'a gateway with the address of a server': {
    text: farm({ networks: '{ "name": "lan-a", "publishFrom": "10.0.0.1" }' }),
    says: ['networks[0].publishFrom: 10.0.0.1 is the address of a server or router'],
  },
  'a gateway elsewhere than its network': {
    text: farm({ networks: '{ "name": "lan-a", "publishFrom": "10.0.1.1" }' }),
    says: ["10.0.1.1 is no host's address on 'lan-a'", '10.0.0.1 to 10.0.0.254'],
  },
  'a port published twice': {
    text: farm({ more: '"publish": ["80:server1:80", "80:server1:81"]' }),
    says: ['port 127.0.0.1:80 is published twice'],
  },
  null: { text: server('"memory": null'), says: ['found null'] },
}

for (const [name, { text, says }] of Object.entries(REFUSED)) {
  test(`refused: ${name}`, (t) => {
    const error = t.throws(() => parseFarm(text, '/farms/bad.json'), { instanceOf: CommandError })
    t.is(error.exitCode, EXIT_USAGE)
    for (const wanted of says) {
      const found = typeof wanted === 'string' ? error.message.includes(wanted) : wanted.test(error.message)
      t.true(found, `${wanted} in:\n${error.message}`)
    }
  })
}

test('many faults are shown together, and not without end', (t) => {
  const text = farm({ networks: Array.from({ length: 30 }, () => '{ "name": "A" }').join(',\n') })
  const error = t.throws(() => parseFarm(text, 'bad.json'), { instanceOf: CommandError })
  t.is(error.message.match(/does not fit/g)?.length, 10)
  t.regex(error.message, /and \d+ more/)
})

test('whatever a farm file holds, it is a farm or a CommandError', (t) => {
  const text = farm({ more: '"publish": ["80:server1:80"]' })
  fc.assert(
    fc.property(fc.nat(text.length), fc.nat(20), fc.string({ maxLength: 10, unit: 'binary' }), (at, removed, added) => {
      try {
        parseFarm(text.slice(0, at) + added + text.slice(at + removed), '/farms/x.json')
      } catch (error) {
        if (!(error instanceof CommandError)) throw error
      }
    }),
    { numRuns: 3000 },
  )
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      t.throws(() => parseFarm(JSON.stringify(value), 'x.json'), { instanceOf: CommandError })
    }),
  )
})

test('a file that cannot be read', async (t) => {
  await t.throwsAsync(loadFarm('/nonexistent.json'), { instanceOf: CommandError, message: /there is no such file/ })
  await t.throwsAsync(loadFarm('/tmp'), { instanceOf: CommandError, message: /it is a folder/ })
})

test('farm.schema.json is what the reader reads', async (t) => {
  const file = await readFile(join(packageRoot, 'toolchain/config/farm.schema.json'), 'utf8')
  t.deepEqual(JSON.parse(file), JSON.parse(JSON.stringify(farmFileSchema)), 'run: npm run schema')
})

test('docs/farm-file.md names every setting', async (t) => {
  const text = await readFile(join(packageRoot, 'docs/farm-file.md'), 'utf8')
  for (const setting of settingsOf(farmFileSchema)) t.true(text.includes(`\`${setting}\``), setting)
})

/** Names of all settings in a schema, at any depth. */
function settingsOf(schema: unknown): string[] {
  if (typeof schema !== 'object' || schema === null) return []
  const own = 'properties' in schema && schema.properties ? Object.keys(schema.properties) : []
  return [...own, ...Object.values(schema).flatMap((value) => settingsOf(value))]
}

test('units', (t) => {
  t.is(parseSize('64MiB'), 2 ** 26)
  t.is(parseSize('1.5 KiB'), 1536)
  t.is(parseSize('2kB'), 2000)
  t.is(parseDuration('200us'), 200_000)
  t.is(parseDuration('1.5s'), 1.5e9)
  t.is(parseRate('10Gbit/s'), 1e10)
  t.is(parseRate('5 Mbit'), 5e6)
  t.is(parsePercentage('2%'), 0.02)
  for (const text of ['', '1', 'MiB', '-1MiB', '1 XiB', '1e3B', '1MiB2', ' 1MiB'])
    t.is(parseSize(text), undefined, text)
  t.is(formatSize(2 ** 26), '64 MiB')
  t.is(formatSize(1536), '1.5 KiB')
  t.is(formatSize(12), '12 B')
})

test('addresses', (t) => {
  t.is(parseIpv4('192.0.2.1'), 0xc0000201)
  for (const text of ['', '1.2.3', '1.2.3.256', '01.2.3.4', '1.2.3.4.5', 'a.b.c.d', '1.2.3.-4'])
    t.is(parseIpv4(text), undefined, text)
  for (const text of ['1.2.3.4', '1.2.3.4/33', '1.2.3.4/', '1.2.3.4/8/8', '/8'])
    t.is(parseIpv4Prefix(text), undefined, text)
  fc.assert(fc.property(fc.nat(0xffffffff), (address) => parseIpv4(formatIpv4(address)) === address))
  for (const [text, host] of [
    ['10.0.0.1/24', true],
    ['10.0.0.255/24', false],
    ['10.0.0.0/31', true],
    ['224.0.0.1/4', false],
    ['127.0.0.1/8', false],
    ['0.0.0.1/8', false],
  ] as const) {
    const prefix = parseIpv4Prefix(text)
    t.is(prefix && isHostAddress(prefix), host, text)
  }
  t.is(parseMac('02:00:00:00:00'), undefined)
})

test('published ports and streams', (t) => {
  t.deepEqual(parsePublish('8080:server1:80'), { host: '127.0.0.1', port: 8080, server: 'server1', serverPort: 80 })
  const byAddress = { host: '127.0.0.1', port: 81, server: '10.0.0.1', serverPort: 80 }
  t.deepEqual(parsePublish('81:10.0.0.1:80'), byAddress)
  t.deepEqual(parsePublish('0.0.0.0:81:10.0.0.1:80'), { ...byAddress, host: '0.0.0.0' })
  t.deepEqual(parsePublish('[::1]:8080:server1:80/tcp'), { host: '::1', port: 8080, server: 'server1', serverPort: 80 })
  for (const text of [
    '80',
    '80:80',
    '80:server1',
    'x:server1:80',
    '65536:server1:80',
    '80:server1:0',
    '80:server1:80/udp',
    '80:10.0.0.256:80',
    '80:10.0.0:80',
    '::1:80:server1:80',
  ]) {
    t.is(parsePublish(text), undefined, text)
  }
  t.deepEqual(parseStream('connect:[::1]:9'), { role: 'connect', address: { host: '::1', port: 9 } })
  t.deepEqual(parseStream('listen:unix:/tmp/x'), { role: 'listen', address: { path: '/tmp/x' } })
  t.deepEqual(parseStream('dgram:127.0.0.1:9001,[::1]:9002'), {
    role: 'dgram',
    local: { host: '127.0.0.1', port: 9001 },
    remote: { host: '::1', port: 9002 },
  })
  for (const text of ['dgram:1', 'dgram:1,0', 'dgram:1,2,3', 'dgram:unix:/x,unix:/y', 'dgram:,'])
    t.is(parseStream(text), undefined, text)
  for (const text of ['9001', 'listen:', 'listen:host', 'listen:unix:', 'connect:0', 'both:1', 'listen:99999'])
    t.is(parseStream(text), undefined, text)
})

test('suggestions are near, or there is none', (t) => {
  t.is(suggest('memroy', ['memory', 'flash']), "did you mean 'memory'?")
  t.is(suggest('zzz', ['memory', 'flash']), undefined)
})
