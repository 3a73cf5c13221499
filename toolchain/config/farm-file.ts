/** What a farm file may say: its settings one by one, as they stand in it. farm.schema.json is made from this. */
import { MINIMUM_MEMORY_BYTES } from '../../abi/memory.ts'
import { MAC_MAXIMUM_FRAME, MAC_MINIMUM_FRAME } from '../../abi/rings.ts'
import { type Ipv4Prefix, parseIpv4, parseIpv4Prefix, parseMac } from './addresses.ts'
import {
  PUBLISH_EXAMPLE,
  PUBLISH_FORM,
  parsePublish,
  parseStream,
  parseTap,
  STREAM_EXAMPLE,
  TAP_EXAMPLE,
} from './endpoints.ts'
import {
  boolean,
  dictionary,
  integer,
  list,
  object,
  oneOf,
  optional,
  parsed,
  type Reader,
  required,
  string,
  type Value,
} from './reader.ts'
import { formatSize, parseDuration, parsePercentage, parseRate, parseSize } from './units.ts'

/** Names become parts of file names, options and table columns. */
const NAME = /^[a-z][a-z0-9-]{0,30}$/
const name = () => string(NAME, 'small letters, digits and hyphens, beginning with a letter, at most 31: "server1"')

const size = (example: string) => parsed(parseSize, 'size', example)
const duration = (example: string) => parsed(parseDuration, 'duration', example)
const milliseconds = (example: string) =>
  parsed(
    (text) => {
      const ns = parseDuration(text)
      return ns === undefined ? undefined : Math.ceil(ns / 1e6)
    },
    'duration',
    example,
  )

const probability = (): Reader<number> =>
  parsed(
    (text) => {
      const share = parsePercentage(text)
      return share !== undefined && share <= 1 ? share : undefined
    },
    'share',
    '2%',
  )

/** A router, by its name or by its address. */
const router = () =>
  parsed<string | number>(
    (text) => parseIpv4(text) ?? (NAME.test(text) ? text : undefined),
    'name of a router, nor an address of one',
    'router-a',
  )

const address = (): Reader<Ipv4Prefix> => parsed(parseIpv4Prefix, 'IPv4 address with prefix length', '192.0.2.1/24')

/** A share, per mille. */
const perMille = (example: string) =>
  parsed(
    (text) => {
      const share = parsePercentage(text)
      return share !== undefined && share <= 1 ? Math.round(share * 1000) : undefined
    },
    'share',
    example,
  )

const weight = () =>
  parsed(
    (text) => {
      const share = parsePercentage(text)
      return share !== undefined && share <= 10 ? Math.round(share * 100) : undefined
    },
    'weight (0% to 1000%)',
    '100%',
  )

const count = (maximum: number) => integer(1, maximum)

const wire = object({
  delay: optional(duration('200us'), 'the time that a frame takes, one way'),
  jitter: optional(duration('50us'), 'extra time, drawn evenly from 0 to this for each frame; frames keep their order'),
  rate: optional(parsed(parseRate, 'rate', '1Gbit/s'), 'bits a second; unlimited if left out'),
  loss: optional(probability(), 'the share of frames that are lost'),
  duplication: optional(probability(), 'the share of frames that arrive twice'),
  reordering: optional(probability(), 'the share of frames that are held back, so that later ones overtake them'),
  reorderBy: optional(duration('1ms'), 'how long such a frame is held back'),
  corruption: optional(probability(), 'the share of frames in which one bit is turned over'),
  queue: optional(count(1 << 20), 'the number of frames in the wire at once; more are dropped'),
})

const network = object({
  name: required(name(), 'what interfaces, captures and options call the network'),
  kind: optional(
    oneOf(['lan', 'wan', 'hub']),
    'lan: a switch (default). wan: the same, outside, where clients are. hub: the synchronization hub, INIC to INIC',
  ),
  mtu: optional(
    integer(576, MAC_MAXIMUM_FRAME - MAC_MINIMUM_FRAME),
    "bytes of the largest IP packet; 1500 if left out, and on the hub 16 more than the largest of its servers' LANs",
  ),
  link: optional(wire, 'what the cable of each server to this network does to frames, and outside that of each router'),
  taps: optional(
    list(parsed(parseTap, 'TAP interface', TAP_EXAMPLE), 8),
    'Linux TAP interfaces on the network: IFNAME, or IFNAME,ADDRESS/PREFIX',
  ),
  publishFrom: optional(
    parsed(parseIpv4, 'IPv4 address', '192.0.2.250'),
    'the address that connections of published ports come from; the highest free one if left out',
  ),
  streams: optional(
    list(parsed(parseStream, 'stream', STREAM_EXAMPLE), 8),
    "other processes on the network, in the framing of QEMU's -netdev stream: listen: or connect:, and HOST:PORT or unix:PATH; or of -netdev dgram: dgram:HOST:PORT,HOST:PORT",
  ),
})

const networkInterface = object({
  network: required(name(), 'the network that the MAC port is plugged into'),
  address: optional(address(), 'the address on it'),
  gateway: optional(
    router(),
    'the router for other networks, by its name or address; the only one on the network if left out',
  ),
  reply: optional(
    name(),
    "the network by which packets leave that carry this address as their source, through that interface's gateway; this one if left out",
  ),
  port: optional(
    integer(0, 2),
    'the MAC port; the place in this list, the hub not counted, if left out, and 2 for the hub',
  ),
  mac: optional(
    parsed(parseMac, 'MAC address', '02:00:00:00:00:01'),
    'the MAC address; derived from the server if left out',
  ),
})

const routerInterface = object({
  network: required(name(), 'the network that the port is plugged into'),
  address: required(address(), 'the address on it'),
  mac: optional(
    parsed(parseMac, 'MAC address', '02:00:00:00:00:01'),
    'the MAC address; derived from the router if left out',
  ),
})

const route = object({
  to: required(
    parsed(parseIpv4Prefix, 'prefix', '222.222.222.0/24'),
    'the network that it leads to; 0.0.0.0/0 is everywhere',
  ),
  via: required(router(), 'the next router, by its name or address'),
})

const routerDevice = object({
  name: required(name(), 'what gateways, routes, tables and captures call the router'),
  isp: optional(string(/./, 'any text'), 'the provider whose clients it brings; for people'),
  interfaces: required(list(routerInterface, 8), 'the list of its ports'),
  routes: optional(list(route, 64), 'ways to networks that it is not on itself'),
  delay: optional(duration('10us'), "the time from a packet's arrival to its departure; none if left out"),
})

const placement = object({
  policy: optional(
    oneOf(['least-loaded', 'local-first', 'round-robin', 'local-only']),
    'who serves a new connection; least-loaded if left out',
  ),
  weights: optional(
    object({
      cpu: optional(weight(), 'the weight of CPU utilization'),
      memory: optional(weight(), 'the weight of used memory'),
      bandwidth: optional(weight(), 'the weight of used bandwidth'),
      connections: optional(weight(), 'the weight of connections'),
    }),
    "how much each resource counts, 100% if left out; a server's load is the largest weighted one",
  ),
  localLimit: optional(perMille('50%'), 'local-first: the load up to which a server serves itself'),
  loadLimit: optional(perMille('90%'), 'the load from which on a server gets nothing new while another is below'),
})

const pinnedState = object({
  cpu: optional(perMille('40%'), 'CPU utilization'),
  memoryAvailable: optional(size('8GiB'), 'free memory'),
  memoryTotal: optional(size('16GiB'), 'memory in all'),
  bandwidthAvailable: optional(parsed(parseRate, 'rate', '10Gbit/s'), 'free bandwidth'),
  bandwidthTotal: optional(parsed(parseRate, 'rate', '20Gbit/s'), 'bandwidth in all'),
  connections: optional(integer(0, 1 << 22), 'the number of established connections'),
})

const application = object({
  name: required(name(), 'what the console and tables call the application'),
  program: required(
    string(/./, 'the path of a JavaScript module, from the farm file'),
    'the path of the module to run, from the farm file',
  ),
  kind: optional(
    oneOf(['node', 'board']),
    'node: an unmodified Node program in a worker (default). board: a module with main(board)',
  ),
  args: optional(list(string()), 'arguments, as after the program on a command line'),
  env: optional(dictionary(string()), 'environment variables'),
  heap: optional(size('256MiB'), 'the heap that a Node program may use'),
  firstSpeaker: optional(
    dictionary(oneOf(['auto', 'client', 'server'])),
    'who speaks first, by port: { "25": "server" }. auto (default): a connection is placed at its request, or after a silence',
  ),
})

const settings = object({
  maximumConnections: optional(count(1 << 22), 'the number of TCP connections (control blocks)'),
  synBacklog: optional(count(1 << 20), 'half-open connections before SYN cookies are sent'),
  placeAfter: optional(
    milliseconds('200ms'),
    'how long a client may stay silent before its connection goes to the application',
  ),
  maximumSegmentLifetime: optional(milliseconds('30s'), 'half of TIME-WAIT (RFC 9293)'),
  minimumRetransmission: optional(milliseconds('200ms'), 'the least retransmission timeout'),
  receiveCredit: optional(size('256KiB'), 'bytes that a socket may hold unread'),
  sendCredit: optional(size('256KiB'), 'bytes that a socket may hold unacknowledged or unsent'),
  congestionControl: optional(oneOf(['newreno', 'cubic']), 'the congestion control'),
  iposEthertype: optional(integer(1, 0xffff), 'the EtherType of ipOS frames; 7 if left out (FIG. 11)'),
  userTimeout: optional(milliseconds('100s'), 'unacknowledged data for so long ends a connection'),
  unattachedTimeout: optional(milliseconds('60s'), 'a connection that sends no request for so long is reset'),
  timestamps: optional(boolean(), 'TCP timestamps (RFC 7323); true if left out'),
  selectiveAcknowledgement: optional(boolean(), 'SACK (RFC 2018); true if left out'),
  windowScale: optional(boolean(), 'window scaling (RFC 7323); true if left out'),
  alwaysCookies: optional(boolean(), 'answer every SYN with a cookie; for tests'),
  stateInterval: optional(milliseconds('100ms'), 'the time between two state messages on the hub'),
  lease: optional(
    milliseconds('3s'),
    'a forwarded connection ends after so long without word from the server it came in by',
  ),
  forwardEntries: optional(count(1 << 22), 'the number of rows of the Forward table'),
})

const server = object({
  name: required(name(), 'what options, tables and the console call the server'),
  firmware: optional(
    string(/./, 'the path of a firmware project or of an image, from the farm file'),
    'what its card boots: the folder of a firmware project (inic new), or an image file, from the farm file; ipOS if left out',
  ),
  memory: optional(size('64MiB'), `INIC memory, at least ${formatSize(MINIMUM_MEMORY_BYTES)}; 64 MiB if left out`),
  flash: optional(size('4MiB'), 'flash memory, in steps of 64 KiB; 4 MiB if left out'),
  key: optional(
    string(/./, 'the path of a public key in PEM, from the farm file'),
    'the Ed25519 key that images must be signed by, as a path from the farm file; SHA-256 is enough if left out',
  ),
  cpu: optional(oneOf(['auto', 'wasmtime', 'v8']), 'what runs the firmware; auto: Wasmtime if it is there, else V8'),
  interfaces: required(list(networkInterface, 3), 'the list of MAC ports in use'),
  applications: optional(list(application, 15), 'programs on the main board'),
  settings: optional(settings, 'settings of the firmware'),
  placement: optional(placement, "who serves what comes in here; what it leaves out is as the farm's"),
  state: optional(pinnedState, 'what the main board says of itself, in place of what it measures'),
})

/** Reads a farm file. Names are not resolved and nothing is compared yet; farm-checks.ts does that. */
export const farmFileReader = object({
  name: optional(name(), 'the name of the farm and of its state folder; the file name if left out'),
  seed: optional(
    string(/./, 'any text'),
    'everything random follows from it; one that nobody can guess if left out, in real time',
  ),
  clock: optional(
    oneOf(['real', 'virtual']),
    'real: paced by the wall clock (default). virtual: as fast as it goes, repeatable',
  ),
  networks: required(list(network, 64), 'the list of networks'),
  routers: optional(list(routerDevice, 32), 'the list of routers'),
  servers: required(list(server, 250), 'the list of servers'),
  publish: optional(
    list(parsed(parsePublish, `published port (${PUBLISH_FORM})`, PUBLISH_EXAMPLE), 64),
    'ports of this machine that lead to a server: [ADDRESS:]PORT:SERVER:PORT, with its name or one of its addresses',
  ),
  placement: optional(placement, 'who serves what comes in, at every server'),
})

export type FarmFile = Value<typeof farmFileReader>

export const farmFileSchema = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  title: 'INIC farm',
  ...farmFileReader.schema,
}
