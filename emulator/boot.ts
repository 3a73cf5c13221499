import {
  BOOT_CONFIRM_OFFSET,
  BOOT_CONGESTION_CONTROL,
  BOOT_FLAGS,
  BOOT_FORWARD_ENTRIES,
  BOOT_INTERFACE_ADDRESS,
  BOOT_INTERFACE_BYTES,
  BOOT_INTERFACE_FLAGS,
  BOOT_INTERFACE_GATEWAY,
  BOOT_INTERFACE_MTU,
  BOOT_INTERFACE_PREFIX,
  BOOT_INTERFACE_REPLY,
  BOOT_INTERFACES,
  BOOT_IPOS_ETHERTYPE,
  BOOT_LEASE_MS,
  BOOT_LOAD_LIMIT,
  BOOT_LOCAL_LIMIT,
  BOOT_MAGIC,
  BOOT_MAGIC_VALUE,
  BOOT_MAXIMUM_CONNECTIONS,
  BOOT_MSL_MS,
  BOOT_PEER_ADDRESSES,
  BOOT_PEER_BYTES,
  BOOT_PEER_COUNT,
  BOOT_PEER_INDEX,
  BOOT_PEER_MAC_HIGH,
  BOOT_PEER_MAC_LOW,
  BOOT_PEERS,
  BOOT_PLACE_AFTER_MS,
  BOOT_PLACEMENT,
  BOOT_RECEIVE_CREDIT,
  BOOT_RTO_MINIMUM_MS,
  BOOT_SEED,
  BOOT_SEND_CREDIT,
  BOOT_SERVER_INDEX,
  BOOT_STATE_INTERVAL_MS,
  BOOT_SYN_BACKLOG,
  BOOT_TRIAL,
  BOOT_UNATTACHED_TIMEOUT_MS,
  BOOT_UPDATE_BYTES,
  BOOT_UPDATE_OFFSET,
  BOOT_USER_TIMEOUT_MS,
  BOOT_VERSION,
  BOOT_VERSION_VALUE,
  BOOT_WEIGHT_BANDWIDTH,
  BOOT_WEIGHT_CONNECTIONS,
  BOOT_WEIGHT_CPU,
  BOOT_WEIGHT_MEMORY,
  INTERFACE_ENABLED,
  INTERFACE_HUB,
  MAXIMUM_PEERS,
  PLACEMENT_LOCAL_ONLY,
} from '../abi/boot.ts'
import { BOOT_BASE, BOOT_BYTES } from '../abi/memory.ts'
import { MAC_PORTS } from '../abi/registers.ts'
import type { Flash } from './devices/flash.ts'

/** Where a place in the firmware came from. */
export interface SourceLocation {
  file: string
  line: number
  column: number
  /** As in the source, if known. */
  name?: string
}

/** Finds the source of a code offset in the firmware's wasm file; null if unknown. */
export type SourceResolver = (pc: number) => SourceLocation | null

/** Where firmware writes an update, and where it confirms itself; offsets in flash, bytes. */
export interface UpdatePlaces {
  slotOffset: number
  slotBytes: number
  confirmOffset: number
}

/** What a boot loader found in flash. */
export interface BootImage {
  wasm: Uint8Array
  /** For people: `1.2.3 (primary slot)`. */
  description?: string
  /** It was not confirmed yet: unless it is, the next boot goes back to the image before it. */
  trial?: boolean
  /** What of the flash is the firmware's; absent: it cannot take updates. */
  update?: UpdatePlaces
  /** What a person may want to know of this boot. */
  remark?: string
  /** Names what the firmware's memory means: an update in service takes over memory of the same layout. Absent: it is not known. */
  stateLayout?: string
  resolveSource?: SourceResolver
}

/** Reads the firmware out of flash; the image format is the toolchain's matter. */
export interface BootLoader {
  /** The error says what is wrong with which slot, and what to do. */
  load(flash: Flash): BootImage | { error: string }
}

/** A board could not be booted. */
export class BootError extends Error {
  override name = 'BootError'
  readonly code = 'ERR_INIC_BOOT'
}

/** A firmware cannot take over from the one that runs. */
export class TakeoverError extends Error {
  override name = 'TakeoverError'
  readonly code = 'ERR_INIC_TAKEOVER'
}

/** Where a board finds its firmware. */
interface ImageSources {
  flash?: Flash
  bootLoader?: BootLoader
  resolveSource?: SourceResolver
}

/**
 * What board `name` boots: the firmware handed to it, else what the boot loader finds in flash.
 *
 * @throws BootError if there is neither
 */
export function imageToBoot(
  name: string,
  { flash, bootLoader, resolveSource }: ImageSources,
  { wasm, stateLayout }: { wasm?: Uint8Array; stateLayout?: string },
): BootImage {
  if (wasm !== undefined) {
    return { wasm, ...(stateLayout !== undefined && { stateLayout }), ...(resolveSource && { resolveSource }) }
  }
  if (bootLoader === undefined || flash === undefined)
    throw new BootError(`Board ${name} has no flash to boot from, and was given no firmware.`)
  const found = bootLoader.load(flash)
  if ('error' in found) throw new BootError(`Board ${name} does not boot: ${found.error}`)
  return found
}

/** Undefined where the memory of a firmware means the same to another one. */
export function whyOtherLayout({ stateLayout: has }: BootImage, { stateLayout: wants }: BootImage): string | undefined {
  if (has === undefined) return 'the firmware that runs does not say what its state layout is'
  if (wants === undefined) return 'the new firmware does not say what its state layout is'
  if (has === wants) return undefined
  return `its state layout is ${has.slice(0, 12)}…, and that of the new firmware ${wants.slice(0, 12)}…`
}

/** One interface's settings as the boot loader passes them on (abi/boot.ts). */
export interface InterfaceSettings {
  /** Default true for an interface that is listed. */
  enabled?: boolean
  /** The synchronization hub: ipOS frames only. */
  hub?: boolean
  /** IPv4 as a number, 192.0.2.1 = 0xc0000201; 0 = none. */
  address?: number
  /** Bits. */
  prefix?: number
  gateway?: number
  /** Of the IP packet; 0 = 1500. */
  mtuBytes?: number
  /** Port by which packets leave that carry this interface's address as their source, and by its gateway; absent = this one. */
  reply?: number
}

/** Another server on the synchronization hub: ipOS frames from anybody else are dropped. */
export interface PeerSettings {
  /** Of its port on the hub, 6 bytes. */
  mac: Uint8Array
  /** Its `serverIndex`. */
  index: number
  /** One entry a MAC port of ours: its IPv4 address on the network there, 0 = none. The first that is not 0 names the server. */
  addresses: readonly number[]
}

/** How much the load of each resource counts, per cent; absent = 100, 0 = not at all. */
export interface PlacementWeights {
  cpu?: number
  memory?: number
  bandwidth?: number
  connections?: number
}

/** Settings that the firmware finds at BOOT_BASE; 0 or absent = the firmware's default. */
export interface BootSettings {
  maximumConnections?: number
  synBacklog?: number
  placeAfterMs?: number
  mslMs?: number
  rtoMinimumMs?: number
  receiveCreditBytes?: number
  sendCreditBytes?: number
  /** CONGESTION_*. */
  congestionControl?: number
  iposEthertype?: number
  /** BOOT_FLAG_*. */
  flags?: number
  userTimeoutMs?: number
  unattachedTimeoutMs?: number
  /** Place of this server in the farm, 0..MAXIMUM_PEERS. */
  serverIndex?: number
  /** PLACEMENT_*. */
  placement?: number
  weights?: PlacementWeights
  /** local-first: load up to which this server serves itself, per mille; absent = the firmware's default, 0 is a value. */
  localLimit?: number
  /** Load from which on a server gets nothing new while another is below, per mille; absent = the firmware's default, 0 is a value. */
  loadLimit?: number
  /** Between two state messages on the hub; a quarter of `leaseMs` at most. */
  stateIntervalMs?: number
  /** A forwarded endpoint stops after so long without word from its entry INIC. The same in all servers of a farm. */
  leaseMs?: number
  /** Rows of the Forward table. */
  forwardEntries?: number
  /** One entry a MAC port. */
  interfaces?: readonly InterfaceSettings[]
  /** The other servers of the farm, at most MAXIMUM_PEERS. */
  peers?: readonly PeerSettings[]
}

type NumberField = {
  [K in keyof BootSettings]-?: BootSettings[K] extends number | undefined ? K : never
}[keyof BootSettings]

const FIELDS: readonly [number, Exclude<NumberField, 'localLimit' | 'loadLimit'>][] = [
  [BOOT_MAXIMUM_CONNECTIONS, 'maximumConnections'],
  [BOOT_SYN_BACKLOG, 'synBacklog'],
  [BOOT_PLACE_AFTER_MS, 'placeAfterMs'],
  [BOOT_MSL_MS, 'mslMs'],
  [BOOT_RTO_MINIMUM_MS, 'rtoMinimumMs'],
  [BOOT_RECEIVE_CREDIT, 'receiveCreditBytes'],
  [BOOT_SEND_CREDIT, 'sendCreditBytes'],
  [BOOT_CONGESTION_CONTROL, 'congestionControl'],
  [BOOT_IPOS_ETHERTYPE, 'iposEthertype'],
  [BOOT_FLAGS, 'flags'],
  [BOOT_USER_TIMEOUT_MS, 'userTimeoutMs'],
  [BOOT_UNATTACHED_TIMEOUT_MS, 'unattachedTimeoutMs'],
  [BOOT_SERVER_INDEX, 'serverIndex'],
  [BOOT_PLACEMENT, 'placement'],
  [BOOT_STATE_INTERVAL_MS, 'stateIntervalMs'],
  [BOOT_LEASE_MS, 'leaseMs'],
  [BOOT_FORWARD_ENTRIES, 'forwardEntries'],
]

/** Fields where 0 is a value of its own: they hold one more than the setting, and 0 is the default. */
const LIMITS: readonly [number, 'localLimit' | 'loadLimit'][] = [
  [BOOT_LOCAL_LIMIT, 'localLimit'],
  [BOOT_LOAD_LIMIT, 'loadLimit'],
]
const WEIGHTS: readonly [number, keyof PlacementWeights][] = [
  [BOOT_WEIGHT_CPU, 'cpu'],
  [BOOT_WEIGHT_MEMORY, 'memory'],
  [BOOT_WEIGHT_BANDWIDTH, 'bandwidth'],
  [BOOT_WEIGHT_CONNECTIONS, 'connections'],
]
/** Largest weight, per cent, and largest load limit, per mille: 1001 is never reached. */
const MAXIMUM_WEIGHT = 1000
const MAXIMUM_LIMIT = 1001

/** Throws BootError for settings that no farm can mean. */
function checkServers(settings: BootSettings): void {
  const { serverIndex = 0, placement = 0, peers = [], weights = {} } = settings
  const check = (holds: boolean, problem: string) => {
    if (!holds) throw new BootError(problem)
  }
  const within = (name: string, value: number | undefined, maximum: number) =>
    check(
      value === undefined || (Number.isInteger(value) && value >= 0 && value <= maximum),
      `Boot setting ${name} is ${value}: it goes from 0 to ${maximum}.`,
    )
  within('serverIndex', serverIndex, MAXIMUM_PEERS)
  within('placement', placement, PLACEMENT_LOCAL_ONLY)
  for (const [, name] of WEIGHTS) within(`weights.${name}`, weights[name], MAXIMUM_WEIGHT)
  for (const [, name] of LIMITS) within(name, settings[name], MAXIMUM_LIMIT)
  check(peers.length <= MAXIMUM_PEERS, `${peers.length} peers are set, and a card knows ${MAXIMUM_PEERS} at most.`)
  const indices = new Map([[serverIndex, 'this server']])
  const macs = new Map<string, string>()
  peers.forEach(({ mac, index, addresses }, n) => {
    const name = `peers[${n}]`
    const hex = Buffer.from(mac).toString('hex')
    check(
      mac.length === 6 && (mac[0] & 1) === 0 && /[^0]/.test(hex),
      `Boot setting ${name}.mac is ${hex || 'empty'}: a port's own address has 6 bytes and is no group's.`,
    )
    check(!macs.has(hex), `Boot settings ${macs.get(hex)} and ${name} have the same mac.`)
    within(`${name}.index`, index, MAXIMUM_PEERS)
    check(!indices.has(index), `Boot setting ${name}.index is ${index}, and so is that of ${indices.get(index)}.`)
    check(
      addresses.length <= MAC_PORTS,
      `${addresses.length} addresses are set for ${name}, and a card has ${MAC_PORTS} ports.`,
    )
    check(
      addresses.some((address) => address !== 0),
      `Boot setting ${name}.addresses has no address: nothing would name that server.`,
    )
    macs.set(hex, name)
    indices.set(index, name)
  })
}

/** Adds to the boot information what the firmware needs to take updates. */
export function writeUpdateInformation(memory: Uint8Array, { trial, update }: BootImage): void {
  const view = new DataView(memory.buffer, memory.byteOffset + BOOT_BASE, BOOT_BYTES)
  view.setUint32(BOOT_TRIAL, trial === true ? 1 : 0, true)
  if (update === undefined) return
  view.setUint32(BOOT_UPDATE_OFFSET, update.slotOffset, true)
  view.setUint32(BOOT_UPDATE_BYTES, update.slotBytes, true)
  view.setUint32(BOOT_CONFIRM_OFFSET, update.confirmOffset, true)
}

/**
 * Writes the boot information (abi/boot.ts) into INIC memory. `seed`: 32 bytes.
 * Throws BootError for more interfaces than ports, for peers that cannot be told apart, for a setting out of its range or a value that is
 * no unsigned 32-bit number.
 */
export function writeBootInformation(memory: Uint8Array, settings: BootSettings, seed: Uint8Array): void {
  const view = new DataView(memory.buffer, memory.byteOffset + BOOT_BASE, BOOT_BYTES)
  const put = (offset: number, name: string, value = 0) => {
    if (!Number.isInteger(value) || value < 0 || value > 0xffffffff)
      throw new BootError(`Boot setting ${name} is ${value}: not an unsigned 32-bit number.`)
    view.setUint32(offset, value, true)
  }
  put(BOOT_MAGIC, 'magic', BOOT_MAGIC_VALUE)
  put(BOOT_VERSION, 'version', BOOT_VERSION_VALUE)
  for (let n = 0; n < 32; n++) view.setUint8(BOOT_SEED + n, seed[n])
  checkServers(settings)
  for (const [offset, name] of FIELDS) put(offset, name, settings[name])
  const putOneMore = (offset: number, name: string, value: number | undefined) =>
    put(offset, name, value === undefined ? 0 : value + 1)
  for (const [offset, name] of LIMITS) putOneMore(offset, name, settings[name])
  for (const [offset, name] of WEIGHTS) putOneMore(offset, `weights.${name}`, settings.weights?.[name])
  const interfaces = settings.interfaces ?? []
  if (interfaces.length > MAC_PORTS)
    throw new BootError(`${interfaces.length} interfaces are set, and a card has ${MAC_PORTS} ports.`)
  interfaces.forEach((settingsOfOne, port) => {
    const { enabled = true, hub = false, address, prefix, gateway, mtuBytes, reply } = settingsOfOne
    const base = BOOT_INTERFACES + port * BOOT_INTERFACE_BYTES
    const name = `interfaces[${port}]`
    put(base + BOOT_INTERFACE_FLAGS, `${name}.flags`, (enabled ? INTERFACE_ENABLED : 0) | (hub ? INTERFACE_HUB : 0))
    put(base + BOOT_INTERFACE_ADDRESS, `${name}.address`, address)
    put(base + BOOT_INTERFACE_PREFIX, `${name}.prefix`, prefix)
    put(base + BOOT_INTERFACE_GATEWAY, `${name}.gateway`, gateway)
    put(base + BOOT_INTERFACE_MTU, `${name}.mtuBytes`, mtuBytes)
    if (reply !== undefined && !(Number.isInteger(reply) && reply >= 0 && reply < MAC_PORTS))
      throw new BootError(`Boot setting ${name}.reply is ${reply}: a card has ports 0 to ${MAC_PORTS - 1}.`)
    putOneMore(base + BOOT_INTERFACE_REPLY, `${name}.reply`, reply)
  })
  const peers = settings.peers ?? []
  put(BOOT_PEER_COUNT, 'peers.length', peers.length)
  peers.forEach(({ mac, index, addresses }, n) => {
    const base = BOOT_PEERS + n * BOOT_PEER_BYTES
    const octets = new DataView(mac.buffer, mac.byteOffset, mac.byteLength)
    put(base + BOOT_PEER_MAC_HIGH, `peers[${n}].mac`, octets.getUint16(0))
    put(base + BOOT_PEER_MAC_LOW, `peers[${n}].mac`, octets.getUint32(2))
    put(base + BOOT_PEER_INDEX, `peers[${n}].index`, index)
    addresses.forEach((address, port) => {
      put(base + BOOT_PEER_ADDRESSES + port * 4, `peers[${n}].addresses[${port}]`, address)
    })
  })
}
