import {
  BOOT_CONGESTION_CONTROL,
  BOOT_FLAGS,
  BOOT_INTERFACE_ADDRESS,
  BOOT_INTERFACE_BYTES,
  BOOT_INTERFACE_FLAGS,
  BOOT_INTERFACE_GATEWAY,
  BOOT_INTERFACE_MTU,
  BOOT_INTERFACE_PREFIX,
  BOOT_INTERFACES,
  BOOT_IPOS_ETHERTYPE,
  BOOT_MAGIC,
  BOOT_MAGIC_VALUE,
  BOOT_MAXIMUM_CONNECTIONS,
  BOOT_MSL_MS,
  BOOT_PLACE_AFTER_MS,
  BOOT_RECEIVE_CREDIT,
  BOOT_RTO_MINIMUM_MS,
  BOOT_SEED,
  BOOT_SEND_CREDIT,
  BOOT_SYN_BACKLOG,
  BOOT_UNATTACHED_TIMEOUT_MS,
  BOOT_USER_TIMEOUT_MS,
  BOOT_VERSION,
  BOOT_VERSION_VALUE,
  INTERFACE_ENABLED,
  INTERFACE_HUB,
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

/** What a boot loader found in flash. */
export interface BootImage {
  wasm: Uint8Array
  /** For people: `1.2.3 (slot 0)`. */
  description?: string
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
  /** One entry a MAC port. */
  interfaces?: readonly InterfaceSettings[]
}

const FIELDS: readonly [number, keyof Omit<BootSettings, 'interfaces'>][] = [
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
]

/**
 * Writes the boot information (abi/boot.ts) into INIC memory. `seed`: 32 bytes.
 * Throws BootError for more interfaces than ports or a value that is no unsigned 32-bit number.
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
  for (const [offset, name] of FIELDS) put(offset, name, settings[name])
  const interfaces = settings.interfaces ?? []
  if (interfaces.length > MAC_PORTS)
    throw new BootError(`${interfaces.length} interfaces are set, and a card has ${MAC_PORTS} ports.`)
  interfaces.forEach((settingsOfOne, port) => {
    const { enabled = true, hub = false, address, prefix, gateway, mtuBytes } = settingsOfOne
    const base = BOOT_INTERFACES + port * BOOT_INTERFACE_BYTES
    const name = `interfaces[${port}]`
    put(base + BOOT_INTERFACE_FLAGS, `${name}.flags`, (enabled ? INTERFACE_ENABLED : 0) | (hub ? INTERFACE_HUB : 0))
    put(base + BOOT_INTERFACE_ADDRESS, `${name}.address`, address)
    put(base + BOOT_INTERFACE_PREFIX, `${name}.prefix`, prefix)
    put(base + BOOT_INTERFACE_GATEWAY, `${name}.gateway`, gateway)
    put(base + BOOT_INTERFACE_MTU, `${name}.mtuBytes`, mtuBytes)
  })
}
