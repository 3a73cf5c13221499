import {
  BOOT_INTERFACE_ADDRESS,
  BOOT_INTERFACE_BYTES,
  BOOT_INTERFACE_FLAGS,
  BOOT_INTERFACE_GATEWAY,
  BOOT_INTERFACE_MTU,
  BOOT_INTERFACE_PREFIX,
  BOOT_INTERFACE_REPLY,
  BOOT_INTERFACES,
  INTERFACE_ENABLED,
  INTERFACE_HUB,
} from '../../abi/boot.ts'
import { BOOT_BASE, DIRECTORY_INTERFACES } from '../../abi/memory.ts'
import { MAC_BLOCK, MAC_LINK, MAC_PORTS, MAC_STRIDE } from '../../abi/registers.ts'
import { MAC_MAXIMUM_FRAME } from '../../abi/rings.ts'
import { macAddress } from '../hal/mac.ts'
import { PANIC_POOL, panic } from '../hal/panic.ts'
import { readRegister } from '../hal/registers.ts'
import { LOOPBACK_PORT } from '../hal/state.ts'
import { carve } from '../mem/carve.ts'
import { directoryAdd } from '../mem/directory.ts'
import { state } from '../state.ts'
import { ETHERNET_HEADER_BYTES } from '../wire/ethernet.ts'
import { IPV4_MINIMUM_MTU, ipv4IsLoopback, ipv4IsUnicast } from '../wire/ipv4.ts'

/** Interfaces: MAC_PORTS, and the loopback inside the card as the last. */
const INTERFACE_COUNT: u32 = MAC_PORTS + 1
/** Stride of the table, bytes. */
const INTERFACE_BYTES: u32 = 64

const DEFAULT_MTU: u32 = 1500
const MAXIMUM_MTU: u32 = MAC_MAXIMUM_FRAME - ETHERNET_HEADER_BYTES
const LOOPBACK_MTU: u32 = 2000
const LOOPBACK_ADDRESS: u32 = 0x7f000001

@unmanaged
export class Interface {
  /** 48-bit number, first byte highest. */
  mac: u64
  /** INTERFACE_*, 0 = switched off. */
  flags: u32
  /** Own IPv4 address, 0 = none. */
  address: u32
  prefixBits: u32
  /** The prefix as a mask. */
  mask: u32
  /** Default gateway, 0 = none. */
  gateway: u32
  /** Broadcast address of the subnet, 0 = none (RFC 3021: a /31 has none). */
  broadcast: u32
  /** Largest IP packet, bytes. */
  mtu: u32
  /** ARP announcements still to be sent (net/arp.ts). */
  announcements: u32
  announceMs: u32
  /** Last defence of our address (RFC 5227 §2.4); valid if `defended`. */
  defendedMs: u32
  defended: u32
  /** The link was up when it was last looked at. */
  linkUp: u32
  /** Port by which packets leave that carry `address` as their source; the interface's own unless the boot information says otherwise. */
  reply: u32
}

/** @param index port number, or LOOPBACK_PORT */
export function netInterface(index: u32): Interface {
  return changetype<Interface>(state().interfaces + index * INTERFACE_BYTES)
}

/**
 * Fills the table from the boot information. A setting that cannot be meant (a multicast address, a prefix of 33 bits) leaves
 * the interface without an address.
 */
export function interfacesInitialize(): void {
  if (offsetof<Interface>() > INTERFACE_BYTES) panic(PANIC_POOL, offsetof<Interface>())
  state().interfaces = carve(INTERFACE_COUNT * INTERFACE_BYTES)
  directoryAdd(DIRECTORY_INTERFACES, state().interfaces, INTERFACE_BYTES, INTERFACE_COUNT)
  for (let i: u32 = 0; i < <u32>MAC_PORTS; i++) {
    const block = BOOT_BASE + BOOT_INTERFACES + i * BOOT_INTERFACE_BYTES
    const ni = netInterface(i)
    ni.mac = macAddress(i)
    ni.flags = load<u32>(block + BOOT_INTERFACE_FLAGS)
    ni.mtu = load<u32>(block + BOOT_INTERFACE_MTU)
    if (!ni.mtu) ni.mtu = DEFAULT_MTU
    ni.mtu = max<u32>(min<u32>(ni.mtu, MAXIMUM_MTU), IPV4_MINIMUM_MTU)
    const reply = load<u32>(block + BOOT_INTERFACE_REPLY)
    ni.reply = reply - 1 < <u32>MAC_PORTS ? reply - 1 : i
    const prefix = load<u32>(block + BOOT_INTERFACE_PREFIX)
    const address = load<u32>(block + BOOT_INTERFACE_ADDRESS)
    if ((ni.flags & INTERFACE_ENABLED) == 0 || (ni.flags & INTERFACE_HUB) != 0) continue
    if (prefix > 32 || !ipv4IsUnicast(address) || ipv4IsLoopback(address)) continue
    ni.address = address
    ni.prefixBits = prefix
    ni.mask = prefix ? (<u32>0xffffffff) << (32 - prefix) : 0
    if (prefix < 31) ni.broadcast = address | ~ni.mask
    ni.gateway = load<u32>(block + BOOT_INTERFACE_GATEWAY)
  }
  const loopback = netInterface(LOOPBACK_PORT)
  loopback.flags = INTERFACE_ENABLED
  loopback.address = LOOPBACK_ADDRESS
  loopback.prefixBits = 8
  loopback.mask = 0xff000000
  loopback.mtu = LOOPBACK_MTU
}

/** True for addresses of this card: those of its interfaces and 127/8. */
export function isLocalAddress(address: u32): bool {
  return ipv4IsLoopback(address) || interfaceOf(address) >= 0
}

/** The port whose own address this is, or -1. */
export function interfaceOf(address: u32): i32 {
  if (!address) return -1
  for (let i: u32 = 0; i < <u32>MAC_PORTS; i++) {
    if (netInterface(i).address == address) return i
  }
  return -1
}

/** True if `address` lies in the interface's subnet. */
export function isOnLink(ni: Interface, address: u32): bool {
  return ni.address != 0 && ((ni.address ^ address) & ni.mask) == 0
}

/** The MAC's link as the port says it now. */
export function linkIsUp(index: u32): bool {
  return readRegister(MAC_BLOCK + index * MAC_STRIDE + MAC_LINK) != 0
}
