/** Boot information and MAC addresses of a card without an emulator (abi/boot.ts), as tests set them. */
import {
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
  BOOT_UNATTACHED_TIMEOUT_MS,
  BOOT_USER_TIMEOUT_MS,
  BOOT_VERSION,
  BOOT_VERSION_VALUE,
  BOOT_WEIGHT_BANDWIDTH,
  BOOT_WEIGHT_CONNECTIONS,
  BOOT_WEIGHT_CPU,
  BOOT_WEIGHT_MEMORY,
  INTERFACE_ENABLED,
  INTERFACE_HUB,
} from '../../abi/boot.ts'
import { BOOT_BASE, REGISTER_BASE } from '../../abi/memory.ts'
import * as R from '../../abi/registers.ts'
import { ipNumber, macBytes } from './packets.ts'

export interface InterfaceSettings {
  address?: string
  prefix?: number
  gateway?: string
  mtu?: number
  hub?: boolean
  mac?: string
  link?: boolean
  /** Port by which packets leave that carry this interface's address as their source. */
  reply?: number
}

/** Another server on the hub. */
export interface PeerSettings {
  mac: string
  index: number
  /** By port; '' = none. */
  addresses: string[]
}

const SETTINGS = {
  maximumConnections: BOOT_MAXIMUM_CONNECTIONS,
  synBacklog: BOOT_SYN_BACKLOG,
  placeAfterMs: BOOT_PLACE_AFTER_MS,
  mslMs: BOOT_MSL_MS,
  rtoMinimumMs: BOOT_RTO_MINIMUM_MS,
  receiveCredit: BOOT_RECEIVE_CREDIT,
  sendCredit: BOOT_SEND_CREDIT,
  congestionControl: BOOT_CONGESTION_CONTROL,
  iposEtherType: BOOT_IPOS_ETHERTYPE,
  flags: BOOT_FLAGS,
  userTimeoutMs: BOOT_USER_TIMEOUT_MS,
  unattachedTimeoutMs: BOOT_UNATTACHED_TIMEOUT_MS,
  serverIndex: BOOT_SERVER_INDEX,
  placement: BOOT_PLACEMENT,
  stateIntervalMs: BOOT_STATE_INTERVAL_MS,
  leaseMs: BOOT_LEASE_MS,
  forwardEntries: BOOT_FORWARD_ENTRIES,
} as const

/** Settings where 0 is a value: the field holds one more. */
const SETTINGS_FROM_0 = {
  weightCpu: BOOT_WEIGHT_CPU,
  weightMemory: BOOT_WEIGHT_MEMORY,
  weightBandwidth: BOOT_WEIGHT_BANDWIDTH,
  weightConnections: BOOT_WEIGHT_CONNECTIONS,
  localLimit: BOOT_LOCAL_LIMIT,
  loadLimit: BOOT_LOAD_LIMIT,
} as const

type SettingName = keyof typeof SETTINGS | keyof typeof SETTINGS_FROM_0

export interface BootSettings extends Partial<Record<SettingName, number>> {
  interfaces?: InterfaceSettings[]
  peers?: PeerSettings[]
  seed?: number
}

/** Two LANs of 192.0.2.0/24 and 198.51.100.0/24 with a gateway each, and the hub. */
export const DEFAULT_INTERFACES: InterfaceSettings[] = [
  { address: '192.0.2.1', prefix: 24, gateway: '192.0.2.254', mac: '02:00:00:00:00:01' },
  { address: '198.51.100.1', prefix: 24, gateway: '198.51.100.254', mac: '02:00:00:00:00:02' },
  { hub: true, mac: '02:00:00:00:00:03' },
]

/** Stores them where the firmware looks for them. */
export function writeBoot(view: DataView, settings: BootSettings): void {
  const register = (offset: number, value: number) => view.setUint32(REGISTER_BASE + offset, value, true)
  const boot = (offset: number, value: number) => view.setUint32(BOOT_BASE + offset, value, true)
  boot(BOOT_MAGIC, BOOT_MAGIC_VALUE)
  boot(BOOT_VERSION, BOOT_VERSION_VALUE)
  let seed = settings.seed ?? 1
  for (let i = 0; i < 32; i += 4) {
    seed = (Math.imul(seed, 0x915f77f5) + 0x1234567) >>> 0
    boot(BOOT_SEED + i, seed)
  }
  for (const [name, offset] of Object.entries(SETTINGS)) boot(offset, settings[name as SettingName] ?? 0)
  for (const [name, offset] of Object.entries(SETTINGS_FROM_0)) boot(offset, (settings[name as SettingName] ?? -1) + 1)
  boot(BOOT_PEER_COUNT, settings.peers?.length ?? 0)
  for (const [n, { mac, index, addresses }] of (settings.peers ?? []).entries()) {
    const block = BOOT_PEERS + n * BOOT_PEER_BYTES
    const octets = Buffer.from(macBytes(mac))
    boot(block + BOOT_PEER_MAC_HIGH, octets.readUInt16BE(0))
    boot(block + BOOT_PEER_MAC_LOW, octets.readUInt32BE(2))
    boot(block + BOOT_PEER_INDEX, index)
    for (const [port, address] of addresses.entries())
      boot(block + BOOT_PEER_ADDRESSES + port * 4, address ? ipNumber(address) : 0)
  }
  const interfaces = settings.interfaces ?? DEFAULT_INTERFACES
  for (const [port, wanted] of interfaces.entries()) {
    const block = BOOT_INTERFACES + port * BOOT_INTERFACE_BYTES
    boot(block + BOOT_INTERFACE_FLAGS, INTERFACE_ENABLED | (wanted.hub ? INTERFACE_HUB : 0))
    boot(block + BOOT_INTERFACE_ADDRESS, wanted.address ? ipNumber(wanted.address) : 0)
    boot(block + BOOT_INTERFACE_PREFIX, wanted.prefix ?? 24)
    boot(block + BOOT_INTERFACE_GATEWAY, wanted.gateway ? ipNumber(wanted.gateway) : 0)
    boot(block + BOOT_INTERFACE_MTU, wanted.mtu ?? 0)
    boot(block + BOOT_INTERFACE_REPLY, (wanted.reply ?? -1) + 1)
    const mac = Buffer.from(macBytes(wanted.mac ?? `02:00:00:00:00:0${port + 1}`))
    const registers = R.MAC_BLOCK + port * R.MAC_STRIDE
    register(registers + R.MAC_ADDRESS_HIGH, mac.readUInt16BE(0))
    register(registers + R.MAC_ADDRESS_LOW, mac.readUInt32BE(2))
    register(registers + R.MAC_LINK, wanted.link === false ? 0 : 1)
  }
}
