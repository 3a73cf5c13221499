import {
  BOOT_PEER_ADDRESSES,
  BOOT_PEER_BYTES,
  BOOT_PEER_COUNT,
  BOOT_PEER_INDEX,
  BOOT_PEER_MAC_HIGH,
  BOOT_PEER_MAC_LOW,
  BOOT_PEERS,
  BOOT_SERVER_INDEX,
  INTERFACE_ENABLED,
  INTERFACE_HUB,
  MAXIMUM_PEERS,
} from '../../abi/boot.ts'
import { STATE_FLAG_DRAINING } from '../../abi/ipos.ts'
import { BOOT_BASE, DIRECTORY_SERVERS } from '../../abi/memory.ts'
import { MAC_PORTS } from '../../abi/registers.ts'
import { PANIC_POOL, panic } from '../hal/panic.ts'
import { carve } from '../mem/carve.ts'
import { directoryAdd } from '../mem/directory.ts'
import { netInterface } from '../net/interface.ts'
import { state } from '../state.ts'

/**
 * Server State table (FIG. 12): one row a server, row SELF is this one, the others are the peers that the boot information
 * names. Nobody else is believed on the synchronization hub.
 */
@unmanaged
export class Server {
  /** Of the server's port on the hub; 48-bit number, first byte highest. */
  mac: u64
  /** Place in the farm (BOOT_SERVER_INDEX). */
  index: u32
  /** The address that names it: the first of those below. */
  address: u32
  /** By MAC port: its address on the network of our port of that number, 0 = none. */
  address0: u32
  address1: u32
  address2: u32

  // What it says of itself (IPOS_STATE).
  /** 0 = never heard of. */
  incarnation: u32
  /** Our sequence number when we met this incarnation: what was sent before it cannot have heard a higher one. */
  metSequence: u32
  /** Of its last message. */
  sequence: u32
  /** When its last message came; row SELF: when ours left. */
  heardMs: u32
  /** STATE_FLAG_* */
  flags: u16
  /** Per mille. */
  cpu: u16
  connections: u32
  connectionsMaximum: u32
  /** KiB */
  memoryAvailable: u32
  memoryTotal: u32
  /** kbit/s */
  bandwidthAvailable: u32
  bandwidthTotal: u32

  /** Row SELF: not used. Until when this server lets us go on with what we hold for it; counts while SERVER_LEASED. */
  leaseMs: u32
  /** SERVER_* */
  status: u32
  /** Placement: load by this board's weights, per mille, and what the server has coming (ipos/placement.ts). */
  load: u32
  share: i32
  /** Ports in its list, and how many of them found no room (ipos/service.ts). */
  services: u16
  servicesMissing: u16
  /** The last of its lives that was not believed because of its lease. */
  otherLease: u32
}

/** `hubPort` of a card without one: no port's number, nor that of the loopback. */
const NO_PORT: u32 = 0xff

/** The row of this server. */
export const SELF: u32 = 0
/** Stride of the table, bytes. */
export const SERVER_BYTES: u32 = 96

/** Heard of within the lease. */
export const SERVER_UP: u32 = 1
/** It has heard of us within the lease: what we hold for it may go on. */
export const SERVER_LEASED: u32 = 2
/** Heard of, and not given up since: what was forwarded to it may be alive (ipos/state.ts). */
export const SERVER_KNOWN: u32 = 4

export function serversInitialize(): void {
  if (offsetof<Server>() > SERVER_BYTES) panic(PANIC_POOL, offsetof<Server>())
  const st = state()
  st.serverCount = 1 + min<u32>(load<u32>(BOOT_BASE + BOOT_PEER_COUNT), MAXIMUM_PEERS)
  st.serverBase = carve(st.serverCount * SERVER_BYTES)
  directoryAdd(DIRECTORY_SERVERS, st.serverBase, SERVER_BYTES, st.serverCount)
  st.hubPort = NO_PORT
  const self = serverAt(SELF)
  self.index = load<u32>(BOOT_BASE + BOOT_SERVER_INDEX)
  // Places of all servers fit; without peers there is nobody to tell apart.
  if (st.serverCount > 1) st.identificationBits = 32 - clz<u32>(MAXIMUM_PEERS)
  else self.index = 0
  self.status = SERVER_UP | SERVER_LEASED | SERVER_KNOWN
  for (let i: u32 = 0; i < <u32>MAC_PORTS; i++) {
    const ni = netInterface(i)
    setAddress(self, i, ni.address)
    if ((ni.flags & (INTERFACE_ENABLED | INTERFACE_HUB)) != (INTERFACE_ENABLED | INTERFACE_HUB)) continue
    st.hubPort = i
    self.mac = ni.mac
  }
  st.farm = st.serverCount > 1 && st.hubPort < <u32>MAC_PORTS ? 1 : 0
  for (let row: u32 = 1; row < st.serverCount; row++) {
    const block = BOOT_BASE + BOOT_PEERS + (row - 1) * BOOT_PEER_BYTES
    const server = serverAt(row)
    server.mac = ((<u64>load<u32>(block + BOOT_PEER_MAC_HIGH)) << 32) | load<u32>(block + BOOT_PEER_MAC_LOW)
    server.index = load<u32>(block + BOOT_PEER_INDEX)
    for (let i: u32 = 0; i < <u32>MAC_PORTS; i++) setAddress(server, i, load<u32>(block + BOOT_PEER_ADDRESSES + i * 4))
  }
}

function setAddress(server: Server, port: u32, address: u32): void {
  store<u32>(changetype<usize>(server) + offsetof<Server>('address0') + port * 4, address)
  if (!server.address) server.address = address
}

/** @param row SELF, or 1..state().serverCount - 1 for a peer */
export function serverAt(row: u32): Server {
  return changetype<Server>(state().serverBase + row * SERVER_BYTES)
}

/** True if there are other servers and a hub to reach them by. */
export function inFarm(): bool {
  return state().farm != 0
}

/** True if server `row` can be given new work: each of us hears the other, and it is not draining. */
export function takesNew(row: u32): bool {
  const server = serverAt(row)
  const both = SERVER_UP | SERVER_LEASED
  return (server.status & both) == both && (server.flags & STATE_FLAG_DRAINING) == 0
}

/** The peer whose port on the hub has this MAC address, or SELF if there is none. */
export function peerOfMac(mac: u64): u32 {
  const st = state()
  for (let row: u32 = 1; row < st.serverCount; row++) if (serverAt(row).mac == mac) return row
  return SELF
}

/** The server that has this address on any of its networks, or -1. */
export function serverOfAddress(address: u32): i32 {
  if (!address) return -1
  const st = state()
  for (let row: u32 = 0; row < st.serverCount; row++) if (portOfServer(row, address) >= 0) return row
  return -1
}

/** The port of ours that is on the network where server `row` has this address, or -1. */
export function portOfServer(row: u32, address: u32): i32 {
  const server = serverAt(row)
  if (server.address0 == address) return 0
  if (server.address1 == address) return 1
  return server.address2 == address ? 2 : -1
}

/** The port of ours by which packets go that carry a peer's address as their source, or -1 if no peer has it. */
export function portOfPeerAddress(address: u32): i32 {
  const row = serverOfAddress(address)
  return row > <i32>SELF ? portOfServer(row, address) : -1
}
