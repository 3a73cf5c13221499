import { join } from 'node:path'
import test from 'ava'
import { formatIpv4 } from '../toolchain/config/addresses.ts'
import type { FarmConfig, PublishConfig } from '../toolchain/config/farm-config.ts'
import { loadFarm, parseFarm } from '../toolchain/config/load-farm.ts'
import { findPublishTarget, trace } from '../toolchain/config/routing.ts'
import { CommandError, EXIT_USAGE } from '../toolchain/errors.ts'
import { FarmAssembly } from '../toolchain/farm/assembly.ts'
import { packageRoot } from '../toolchain/package-root.ts'

type Json = Record<string, unknown>

/** FIG. 3 with two servers, as an object that a test changes. */
function fig3() {
  return {
    networks: [
      { name: 'internet', kind: 'wan' },
      { name: 'lan-a' },
      { name: 'lan-b' },
      { name: 'sync', kind: 'hub' },
    ] as Json[],
    routers: [
      {
        name: 'router-a',
        interfaces: [
          { network: 'internet', address: '198.51.100.1/24' },
          { network: 'lan-a', address: '123.123.123.254/24' },
        ] as Json[],
        routes: [{ to: '222.222.222.0/24', via: 'router-b' }] as Json[],
      },
      {
        name: 'router-b',
        interfaces: [
          { network: 'internet', address: '198.51.100.2/24' },
          { network: 'lan-b', address: '222.222.222.254/24' },
        ] as Json[],
        routes: [] as Json[],
      },
    ] as ({ name: string; interfaces: Json[]; routes: Json[] } & Json)[],
    servers: [1, 3].map((host) => ({
      name: `server${host}`,
      interfaces: [
        { network: 'lan-a', address: `123.123.123.${host}/24` },
        { network: 'lan-b', address: `222.222.222.${host}/24` },
        { network: 'sync' },
      ] as Json[],
    })) as ({ name: string; interfaces: Json[] } & Json)[],
    publish: ['8080:server1:80'],
    placement: {} as Json,
  }
}

type Fig3 = ReturnType<typeof fig3>

/** The farm of FIG. 3 with some changes. */
function farm(change: (farm: Fig3) => void = () => {}): FarmConfig {
  const file = fig3()
  change(file)
  return parseFarm(JSON.stringify(file, undefined, 2), '/farms/fig3.json')
}

// ── what it means ──

test('FIG. 3: gateways are the routers of their networks', (t) => {
  const { servers, routers } = farm()
  t.deepEqual(
    servers[0].interfaces.map(({ gateway }) => gateway && formatIpv4(gateway)),
    ['123.123.123.254', '222.222.222.254', undefined],
  )
  t.deepEqual(routers[0].routes, [{ to: { address: 0xdedede00, prefix: 24 }, via: 0xc6336402 }])
  t.is(routers[0].delayNs, 0)
})

test('a gateway and the next router may be named, or given by address', (t) => {
  const byName = farm((file) => {
    file.servers[0].interfaces[0].gateway = 'router-a'
    file.routers[0].routes[0].via = '198.51.100.2'
  })
  t.deepEqual(byName.servers, farm().servers)
  t.deepEqual(byName.routers, farm().routers)
})

test('replies leave by the interface on the network that is named', (t) => {
  const { servers } = farm((file) => {
    file.servers[0].interfaces[0].reply = 'lan-b'
    file.servers[1].interfaces[0].reply = 'lan-a'
  })
  t.deepEqual(
    servers.map(({ interfaces }) => interfaces.map(({ reply }) => reply)),
    [
      [1, undefined, undefined],
      [undefined, undefined, undefined],
    ],
  )
})

test('the hub carries a whole packet of the largest LAN behind an ipOS header', (t) => {
  const mtuOf = (config: FarmConfig) => config.networks.find(({ name }) => name === 'sync')?.mtuBytes
  t.is(mtuOf(farm()), 1516)
  t.is(
    mtuOf(
      farm((file) => {
        file.networks[1].mtu = 2000
      }),
    ),
    2016,
  )
  t.is(
    mtuOf(
      farm((file) => {
        file.networks[3].mtu = 1600
      }),
    ),
    1600,
  )
})

test("placement: the farm's, and over it the server's", (t) => {
  const { servers } = farm((file) => {
    file.placement = { policy: 'round-robin', weights: { cpu: '50%', memory: '0%' }, loadLimit: '90%' }
    file.servers[1].placement = { policy: 'local-first', weights: { memory: '1000%' }, localLimit: '0%' }
    file.servers[1].settings = { stateInterval: '100ms', lease: '2s', forwardEntries: 1000, synBacklog: 5 }
  })
  t.deepEqual(servers[0].settings, { placement: 3, weights: { cpu: 50, memory: 0 }, loadLimit: 900 })
  t.deepEqual(servers[1].settings, {
    synBacklog: 5,
    stateIntervalMs: 100,
    leaseMs: 2000,
    forwardEntries: 1000,
    placement: 2,
    weights: { cpu: 50, memory: 1000 },
    localLimit: 0,
    loadLimit: 900,
  })
})

test('a pinned state in its base units', (t) => {
  const { servers } = farm((file) => {
    file.servers[0].state = {
      cpu: '40%',
      memoryAvailable: '8GiB',
      memoryTotal: '16GiB',
      bandwidthAvailable: '10Gbit/s',
      bandwidthTotal: '20Gbit/s',
      connections: 0,
    }
    file.servers[1].state = { cpu: '0.5%' }
  })
  t.deepEqual(servers[0].pinnedState, {
    cpuPermille: 400,
    memoryAvailableKib: 8 * 2 ** 20,
    memoryTotalKib: 16 * 2 ** 20,
    bandwidthAvailableKbit: 1e7,
    bandwidthTotalKbit: 2e7,
    connections: 0,
  })
  t.deepEqual(servers[1].pinnedState, { cpuPermille: 5 })
  t.is(farm().servers[0].pinnedState, undefined)
})

// ── ways ──

function publish(server: string): PublishConfig {
  return { host: '127.0.0.1', port: 8080, server, serverPort: 80 }
}

for (const [title, server, change, expected] of [
  ['by the first router outside', 'server1', undefined, ['internet', 'router-a', '123.123.123.1']],
  ['to an address that is named', '222.222.222.3', undefined, ['internet', 'router-a', '222.222.222.3']],
  [
    'to the address that is behind that router, whatever its place',
    'server1',
    (file: Fig3) => file.servers[0].interfaces.reverse(),
    ['internet', 'router-a', '123.123.123.1'],
  ],
  [
    "from the server's own network in a farm without an outside",
    'server3',
    (file: Fig3) => {
      file.networks[0].kind = 'lan'
    },
    ['lan-a', undefined, '123.123.123.3'],
  ],
  [
    'directly where the server is outside itself',
    'server1',
    (file: Fig3) => {
      file.servers[0].interfaces[1] = { network: 'internet', address: '198.51.100.7/24', gateway: 'router-b' }
    },
    ['internet', undefined, '198.51.100.7'],
  ],
] as [string, string, ((file: Fig3) => void) | undefined, unknown[]][]) {
  test(`a published port leads ${title}`, (t) => {
    const target = findPublishTarget(farm(change), publish(server))
    if ('message' in target) return t.fail(target.message)
    t.deepEqual([target.network, target.router?.name, formatIpv4(target.address)], expected)
  })
}

test('a way ends where its routers lead, and nowhere in a circle', (t) => {
  const config = farm((file) => {
    file.routers[1].routes = [{ to: '10.0.0.0/8', via: 'router-a' }]
    file.routers[0].routes.push({ to: '10.0.0.0/8', via: 'router-b' })
  })
  const [a] = config.routers
  t.deepEqual(trace(config, a, 0x7b7b7b09), { network: 'lan-a', hops: 1 })
  t.deepEqual(trace(config, a, 0xdedede09), { network: 'lan-b', hops: 2 })
  t.is(trace(config, a, 0x0a000001), undefined)
  t.is(trace(config, a, 0x08080808), undefined)
})

// ── what is refused ──

const REFUSED: Record<string, { change: (file: Fig3) => void; says: string[] }> = {
  'a router on a network that is not there': {
    change: (file) => {
      file.routers[0].interfaces[1].network = 'lan-x'
    },
    says: ["routers[0].interfaces[1].network: there is no network 'lan-x'", "did you mean 'lan-a'?"],
  },
  'a router on the hub': {
    change: (file) => {
      file.routers[0].interfaces.push({ network: 'sync', address: '10.0.0.1/24' })
    },
    says: ["'sync' is a synchronization hub", 'choose a LAN'],
  },
  'a router on no network': {
    change: (file) => {
      file.routers.push({ name: 'router-c', interfaces: [], routes: [] })
    },
    says: ["'router-c' is on no network"],
  },
  'a router called like a server': {
    change: (file) => {
      file.routers.push({
        name: 'server1',
        interfaces: [{ network: 'lan-a', address: '123.123.123.9/24' }],
        routes: [],
      })
      file.servers[0].interfaces[0].gateway = 'router-a'
      file.servers[1].interfaces[0].gateway = 'router-a'
    },
    says: ["routers[2].name: a server is called 'server1' too"],
  },
  'two routers of one name': {
    change: (file) => {
      file.routers[1].name = 'router-a'
    },
    says: ["routers[1].name: a second 'router-a'"],
  },
  "a router with the network's own address": {
    change: (file) => {
      file.routers[0].interfaces[1].address = '123.123.123.0/24'
    },
    says: ['123.123.123.0/24 is no address that a router may have', '123.123.123.1 to 123.123.123.254'],
  },
  'a router with one network behind two ports': {
    change: (file) => {
      file.routers[1].interfaces[1].address = '198.51.100.9/25'
    },
    says: ['198.51.100.0/25 is also behind the port on', 'a network of its own'],
  },
  'two routers that see different networks on one': {
    change: (file) => {
      file.routers[1].interfaces[0].address = '198.51.101.2/24'
      file.routers[0].routes = []
    },
    says: [
      "routers[1].interfaces[0].address: 198.51.101.2/24 is not on the network that 'router-a' has on 'internet', 198.51.100.0/24",
      '198.51.100.1 to 198.51.100.254',
    ],
  },
  'an address that a server has too': {
    change: (file) => {
      file.routers[0].interfaces[1].address = '123.123.123.3/24'
    },
    says: ["'server3' on the same network has this address too"],
  },
  'a group MAC address': {
    change: (file) => {
      file.routers[0].interfaces[0].mac = '01:00:5e:00:00:01'
    },
    says: ['routers[0].interfaces[0].mac: 01:00:5e:00:00:01 is a group address'],
  },
  "a server outside the router's network": {
    change: (file) => {
      file.servers[0].interfaces[0].address = '123.123.124.1/24'
    },
    says: ["123.123.124.1/24 is not on the network that 'router-a' has on 'lan-a', 123.123.123.0/24"],
  },
  "a server with another prefix than the router's": {
    change: (file) => {
      file.servers[0].interfaces[0].address = '123.123.123.1/16'
    },
    says: ["123.123.123.1/16 is not on the network that 'router-a' has"],
  },
  'a gateway that is no router there': {
    change: (file) => {
      file.servers[0].interfaces[0].gateway = 'router-b'
    },
    says: ["servers[0].interfaces[0].gateway: there is no router 'router-b' on 'lan-a'", 'there are: router-a'],
  },
  'a gateway on the hub': {
    change: (file) => {
      file.servers[0].interfaces[2].gateway = 'router-b'
    },
    says: ['servers[0].interfaces[2].gateway: a gateway without an address'],
  },
  'several routers and no gateway': {
    change: (file) => {
      file.routers[1].interfaces.push({ network: 'lan-a', address: '123.123.123.253/24' })
    },
    says: ["servers[0].interfaces[0]: 'lan-a' has several routers", '"gateway": "router-a", or "router-b"'],
  },
  'replies by an interface that is not there': {
    change: (file) => {
      file.servers[0].interfaces[0].reply = 'internet'
    },
    says: ["servers[0].interfaces[0].reply: 'server1' has no interface on 'internet'", 'there are: lan-a, lan-b, sync'],
  },
  'replies by the hub': {
    change: (file) => {
      file.servers[0].interfaces[0].reply = 'sync'
    },
    says: ["'sync' is a synchronization hub"],
  },
  'replies by an interface without a gateway': {
    change: (file) => {
      file.routers.pop()
      file.routers[0].routes = []
      file.servers[0].interfaces[0].reply = 'lan-b'
    },
    says: ["the interface on 'lan-b' has no gateway", "put a router on 'lan-b'"],
  },
  'replies of an interface without an address': {
    change: (file) => {
      file.servers[0].interfaces[2].reply = 'lan-a'
    },
    says: ['replies of an interface without an address'],
  },
  'a route to a host': {
    change: (file) => {
      file.routers[0].routes[0].to = '222.222.222.9/24'
    },
    says: ['routers[0].routes[0].to: 222.222.222.9/24 names a host, not a network', 'write "222.222.222.0/24"'],
  },
  'two routes to one network': {
    change: (file) => {
      file.routers[0].routes.push({ to: '222.222.222.0/24', via: '198.51.100.9' })
    },
    says: ['a second route to this network'],
  },
  'a route by a stranger': {
    change: (file) => {
      file.routers[0].routes[0].via = '10.0.0.1'
    },
    says: ['10.0.0.1 is on no network of this router', '198.51.100.0/24, 123.123.123.0/24'],
  },
  'a route by the router itself': {
    change: (file) => {
      file.routers[0].routes[0].via = '198.51.100.1'
    },
    says: ['198.51.100.1 is this router itself'],
  },
  'a route by everybody': {
    change: (file) => {
      file.routers[0].routes[0].via = '198.51.100.255'
    },
    says: ["198.51.100.255 is no host's address"],
  },
  'a route by a router that is not there': {
    change: (file) => {
      file.routers[0].routes[0].via = 'router-c'
    },
    says: ["routers[0].routes[0].via: there is no other router 'router-c'", "did you mean 'router-b'?"],
  },
  'a route by a router that is elsewhere': {
    change: (file) => {
      file.routers.push({ name: 'far', interfaces: [{ network: 'lan-b', address: '222.222.222.253/24' }], routes: [] })
      for (const server of file.servers) server.interfaces[1].gateway = 'router-b'
      file.routers[0].routes[0].via = 'far'
    },
    says: ["'router-a' and 'far' share no network"],
  },
  'a hub that is too narrow': {
    change: (file) => {
      file.networks[3].mtu = 1515
    },
    says: [
      "networks[3].mtu: 1515 bytes do not hold a packet of 'lan-a' (1500) behind an ipOS header (16)",
      'write at least 1516, or leave it out',
    ],
  },
  'a LAN that no hub can hold': {
    change: (file) => {
      file.networks[2].mtu = 2010
    },
    says: ["2018 bytes do not hold a packet of 'lan-b' (2010)", 'give \'lan-b\' an "mtu" of 2002 at most'],
  },
  'two hubs for one server': {
    change: (file) => {
      file.networks.push({ name: 'sync2', kind: 'hub' })
      file.servers[0].interfaces[1] = { network: 'sync2', port: 1 }
    },
    says: ["'server1' is on the hub 'sync2' too", 'one interface on a hub'],
  },
  'servers that know no address of each other': {
    change: (file) => {
      file.servers[0].interfaces.splice(1, 1)
      file.servers[1].interfaces.splice(0, 1)
    },
    says: ["servers[1].interfaces: 'server3' and 'server1' are on 'sync' and share no LAN"],
  },
  'more servers than know each other': {
    change: (file) => {
      for (let n = 10; n < 41; n++)
        file.servers.push({
          name: `more${n}`,
          interfaces: [{ network: 'lan-a', address: `123.123.123.${n}/24` }, { network: 'sync' }],
        })
    },
    says: ["33 servers are on 'sync', and 32 can know each other"],
  },
  'more free memory than there is': {
    change: (file) => {
      file.servers[0].state = { memoryAvailable: '9GiB', memoryTotal: '8GiB' }
    },
    says: ['servers[0].state.memoryAvailable: more memory is free than there is'],
  },
  'more free bandwidth than there is': {
    change: (file) => {
      file.servers[0].state = { bandwidthAvailable: '11Gbit/s', bandwidthTotal: '10Gbit/s' }
    },
    says: ['servers[0].state.bandwidthAvailable: more bandwidth is free than there is'],
  },
  'a lease that ends at once': {
    change: (file) => {
      file.servers[0].settings = { stateInterval: '1s', lease: '500ms' }
    },
    says: ['servers[0].settings.lease: the lease ends before the next state message comes'],
  },
  'leases that differ': {
    change: (file) => {
      file.servers[1].settings = { lease: '3s' }
    },
    says: ["servers[1].settings.lease: a lease of 3000 ms, and 2000 ms at 'server1'", '"lease": "2000ms"'],
  },
  'a lease that the others do not have': {
    change: (file) => {
      file.servers[0].settings = { lease: '3s' }
    },
    says: ["servers[1]: a lease of 2000 ms, and 3000 ms at 'server1'"],
  },
  'a weight without a sign': {
    change: (file) => {
      file.placement = { weights: { cpu: '50' } }
    },
    says: ['placement.weights.cpu: "50" is no weight', 'write it as in "100%"'],
  },
  'a policy that is not there': {
    change: (file) => {
      file.placement = { policy: 'round-robbin' }
    },
    says: ["did you mean 'round-robin'?"],
  },
  'a load over 100 %': {
    change: (file) => {
      file.placement = { loadLimit: '101%' }
    },
    says: ['"101%" is no share'],
  },
  'a published address that nobody has': {
    change: (file) => {
      file.publish = ['8080:222.222.222.9:80']
    },
    says: ["publish[0]: there is no server '222.222.222.9'"],
  },
  'a published address that the first router has no way to': {
    change: (file) => {
      file.publish = ['8080:222.222.222.1:80']
      file.routers[0].routes = []
    },
    says: [
      "publish[0]: 'router-a' has no way to 'lan-b'",
      `give 'router-a' a route: { "to": "222.222.222.0/24", "via": "router-b" }`,
    ],
  },
  'a published server that nobody outside reaches': {
    change: (file) => {
      file.routers = []
    },
    says: ["no router leads from 'internet' to 'server1'", `with an interface there and one on 'lan-a'`],
  },
  'a published server whose answers do not get back': {
    change: (file) => {
      file.servers[0].interfaces[0].gateway = '123.123.123.77'
    },
    says: [
      "what 'server1' answers does not get back to 'internet': its interface on 'lan-a' has no router",
      'a "gateway" that leads to \'internet\'',
    ],
  },
  'a router that does not know the way back': {
    change: (file) => {
      file.networks.push({ name: 'elsewhere', kind: 'wan' })
      file.routers[1].interfaces[0] = { network: 'elsewhere', address: '10.0.0.1/8' }
      file.routers[0].routes = []
      file.servers[0].interfaces[0].reply = 'lan-b'
    },
    says: ["does not get back to 'internet': 'router-b' has no way there", '"198.51.100.0/24"'],
  },
}

for (const [name, { change, says }] of Object.entries(REFUSED)) {
  test(`refused: ${name}`, (t) => {
    const error = t.throws(() => farm(change), { instanceOf: CommandError })
    t.is(error.exitCode, EXIT_USAGE)
    for (const wanted of says) t.true(error.message.includes(wanted), `${wanted} in:\n${error.message}`)
    t.regex(error.message, /^\/farms\/fig3\.json:\d+:\d+: /)
  })
}

test('one fault is told once', (t) => {
  for (const name of [
    "a server outside the router's network",
    'a gateway that is no router there',
    'a hub that is too narrow',
  ]) {
    const error = t.throws(() => farm(REFUSED[name].change), { instanceOf: CommandError })
    t.is(error.message.match(/fig3\.json:/g)?.length, 1, error.message)
  }
})

// ── what is built of it ──

test('every cable of the farm, by name', (t) => {
  const assembly = new FarmAssembly(farm())
  t.deepEqual(
    [...assembly.farm.cables.keys()],
    ['router-a.internet', 'router-a.lan-a', 'router-b.internet', 'router-b.lan-b'],
  )
  const router = assembly.farm.routers.get('router-a')
  t.deepEqual(
    router?.routes.map(({ prefix, via }) => [prefix, formatIpv4(via)]),
    [
      [24, '0.0.0.0'],
      [24, '0.0.0.0'],
      [24, '198.51.100.2'],
    ],
  )
  t.deepEqual(
    router?.ports.map(({ mtuBytes, carrier }) => [mtuBytes, carrier]),
    [
      [1500, true],
      [1500, true],
    ],
  )
})

test('MAC addresses of routers are their own, and the same every time', (t) => {
  const macs = () => {
    const { routers } = new FarmAssembly(farm()).farm
    return [...routers.values()].flatMap(({ ports }) => ports.map(({ mac }) => Buffer.from(mac).toString('hex')))
  }
  t.is(new Set(macs()).size, 4)
  t.deepEqual(macs(), macs())
})

test('the gateway board is outside, with the first router as its own, and an address that nobody has', (t) => {
  const config = farm((file) => {
    file.networks[0].taps = ['inic0,198.51.100.254/24']
  })
  t.is(formatIpv4(new FarmAssembly(config).gateway('internet').address), '198.51.100.253')
})

test('examples/farm.json is FIG. 3: requests by LAN A, replies by LAN B, everybody a peer', async (t) => {
  const config = await loadFarm(join(packageRoot, 'examples/farm.json'))
  t.deepEqual(
    config.servers.map(({ interfaces }) =>
      interfaces.map(({ address, reply }) => [formatIpv4(address?.address ?? 0), reply]),
    ),
    [1, 3, 5].map((host) => [
      [`123.123.123.${host}`, 1],
      [`222.222.222.${host}`, undefined],
      ['0.0.0.0', undefined],
    ]),
  )
  t.deepEqual(
    config.routers.map(({ name, isp }) => [name, isp]),
    [
      ['router-a', 'ISP1'],
      ['router-b', 'ISP2'],
    ],
  )
})
