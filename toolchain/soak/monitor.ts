import {
  BLOCK_MOVES,
  IPOS_BLOCK,
  IPOS_CONNECT,
  IPOS_CONNECT_TCP_BYTES,
  IPOS_CONNECTION_BYTES,
  IPOS_DESTINATION_ADDRESS,
  IPOS_ETHERTYPE,
  IPOS_HEADER_BYTES,
  IPOS_PROTOCOL,
  IPOS_SERVER_ADDRESS,
  IPOS_SERVER_PORT,
  IPOS_SOURCE_ADDRESS,
  IPOS_SOURCE_PORT,
  IPOS_TCP,
  IPOS_TYPE,
} from '../../abi/ipos.ts'
import type { Cable } from '../../emulator/link/cable.ts'
import type { VirtualNode } from '../testing/virtual-node.ts'
import {
  addressNumber,
  dotted,
  ETHERNET_BYTES,
  ETHERTYPE_ARP,
  ETHERTYPE_AT,
  ETHERTYPE_IPV4,
  macText,
  PROTOCOL_TCP,
  TCP_ACK,
  TCP_RST,
  TCP_SYN,
} from './frames.ts'

const ARP_SENDER_ADDRESS = 14
const IPV4_SOURCE = 12
const IPV4_DESTINATION = 16
const IPV4_DONT_FRAGMENT = 0x4000
const OPTION_WINDOW_SCALE = 3
const OPTION_TIMESTAMPS = 8
/** For so long, with some to spare, a server that was switched off may have let others speak. */
const LEASE_MS = 2500

/** A connection as the LAN sees it, from its SYN-ACK on. */
interface Track {
  readonly iss: number
  readonly openedMs: number
  /** Owners of an earlier connection of these ports, which the server at that address does not know of any more. */
  readonly before: ReadonlyMap<string, number> | undefined
  readonly scale: number
  /** How often the endpoint had moved when a server was offered it; by MAC address. */
  readonly offered: Map<string, number>
  /** The newest owner that has spoken. */
  moves: number
  speaker: string
  /** Who has reset the client. */
  resetBy: string | null
  acknowledged: number
  rightEdge: number
  timestamp: number
}

/**
 * Watches what servers send on LAN and hub, and says what breaks the rules of docs/protocol.md: of one connection at most one server
 * speaks, the order of owners is the order of moves, and the client cannot tell them apart.
 */
export class Monitor {
  readonly #complain: (what: string) => void
  readonly #nowMs: () => number
  /** Servers by the MAC address of their port on the LAN; by their IPv4 address, that MAC address. */
  readonly #servers = new Map<string, VirtualNode>()
  readonly #macOf = new Map<number, string>()
  readonly #addresses = new Map<string, number>()
  readonly #tracks = new Map<string, Track>()
  readonly #restartedMs = new Map<string, number>()

  constructor(
    servers: readonly VirtualNode[],
    clients: readonly VirtualNode[],
    nowMs: () => number,
    complain: (what: string) => void,
  ) {
    this.#nowMs = nowMs
    this.#complain = complain
    for (const node of [...servers, ...clients]) this.#addresses.set(node.macs[0]!, addressNumber(node.address))
    for (const server of servers) {
      this.#servers.set(server.macs[0]!, server)
      this.#macOf.set(addressNumber(server.address), server.macs[0]!)
    }
    // As they leave the board: on the wires a frame of the hub may overtake one of the LAN.
    const watch = (cable: Cable, look: (frame: Uint8Array) => void) =>
      cable.capture({ frame: (memory, offset, length) => look(memory.subarray(offset, offset + length)) }, 'forward')
    for (const { cables } of [...servers, ...clients]) watch(cables[0]!, (frame) => this.#lan(frame))
    for (const { cables } of servers) watch(cables[1]!, (frame) => this.#hub(frame))
  }

  /** A frame that a board sends on the LAN. */
  #lan(frame: Uint8Array): void {
    const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength)
    const type = view.getUint16(ETHERTYPE_AT)
    const mac = macText(frame)
    if (type === ETHERTYPE_ARP) this.#arp(view, mac)
    else if (type !== ETHERTYPE_IPV4) this.#complain(`a frame of type 0x${type.toString(16)} on the LAN, from ${mac}`)
    else if (this.#servers.has(mac) && view.getUint8(ETHERNET_BYTES + 9) === PROTOCOL_TCP) this.#segment(view, mac)
  }

  /** A frame that a server sends on the synchronization hub. */
  #hub(frame: Uint8Array): void {
    const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength)
    if (view.getUint16(ETHERTYPE_AT) !== IPOS_ETHERTYPE || frame.length < ETHERNET_BYTES + IPOS_HEADER_BYTES) {
      this.#complain(`no ipOS frame on the hub, from ${macText(frame)}`)
      return
    }
    const at = ETHERNET_BYTES
    if (view.getUint8(at + IPOS_TYPE) !== IPOS_CONNECT || view.getUint8(at + IPOS_PROTOCOL) !== IPOS_TCP) return
    if (frame.length < at + IPOS_CONNECT_TCP_BYTES || IPOS_BLOCK !== IPOS_CONNECTION_BYTES) return
    const key = keyOf(
      view.getUint32(at + IPOS_SERVER_ADDRESS),
      view.getUint16(at + IPOS_SERVER_PORT),
      view.getUint32(at + IPOS_SOURCE_ADDRESS),
      view.getUint16(at + IPOS_SOURCE_PORT),
    )
    const to = this.#macOf.get(view.getUint32(at + IPOS_DESTINATION_ADDRESS))
    const moves = view.getUint32(at + IPOS_BLOCK + BLOCK_MOVES)
    const track = this.#tracks.get(key)
    if (track === undefined || to === undefined) this.#complain(`${key} is offered, and nobody opened it`)
    else track.offered.set(to, Math.max(moves, track.offered.get(to) ?? 0))
  }

  /** The server is switched on. */
  restarted(server: VirtualNode): void {
    this.#restartedMs.set(server.macs[0]!, this.#nowMs())
  }

  /** Forgets connections of which nobody speaks any more. */
  forget(): void {
    this.#tracks.clear()
  }

  #arp(view: DataView, mac: string): void {
    const sender = view.getUint32(ETHERNET_BYTES + ARP_SENDER_ADDRESS)
    // 0 asks whether an address is taken (RFC 5227).
    if (sender !== 0 && sender !== this.#addresses.get(mac))
      this.#complain(`ARP of ${mac} says that it is ${dotted(sender)}`)
  }

  #segment(view: DataView, mac: string): void {
    const ip = ETHERNET_BYTES
    const headerBytes = (view.getUint8(ip) & 15) * 4
    const tcp = ip + headerBytes
    const source = view.getUint32(ip + IPV4_SOURCE)
    const key = keyOf(source, view.getUint16(tcp), view.getUint32(ip + IPV4_DESTINATION), view.getUint16(tcp + 2))
    const flags = view.getUint8(tcp + 13)
    const name = this.#servers.get(mac)!.name
    if (view.getUint16(ip + 6) !== IPV4_DONT_FRAGMENT || view.getUint16(ip + 4) !== 0)
      this.#complain(`${name} sends of ${key} a datagram that is not atomic`)
    const isEntry = mac === this.#macOf.get(source)
    if (flags & TCP_SYN) {
      this.#open(view, tcp, mac, key, flags, isEntry)
      return
    }
    const track = this.#tracks.get(key)
    if (track === undefined) {
      // A server's own are also those that it opens as a client.
      if (!isEntry) this.#complain(`${name} speaks of ${key}, which nobody opened`)
      return
    }
    if (track.before?.has(mac) && this.#nowMs() - track.openedMs < LEASE_MS) return
    if (flags & TCP_RST) {
      if (!isEntry && !track.offered.has(mac)) this.#complain(`${name} resets ${key}, which it never had`)
      track.resetBy ??= mac
      return
    }
    this.#speaks(track, mac, `${name} speaks of ${key}`)
    this.#continues(view, tcp, track, `${name} of ${key}:`)
  }

  #open(view: DataView, tcp: number, mac: string, key: string, flags: number, isEntry: boolean): void {
    if ((flags & TCP_ACK) === 0) return
    const iss = view.getUint32(tcp + 4)
    const before = this.#tracks.get(key)
    if (before?.iss === iss) return
    const acknowledged = view.getUint32(tcp + 8)
    // Its address was switched off with what it knew, and the client begins anew: who served has a lease of its own.
    const forgotten = before !== undefined && (this.#restartedMs.get(mac) ?? Number.NEGATIVE_INFINITY) > before.openedMs
    this.#tracks.set(key, {
      iss,
      openedMs: this.#nowMs(),
      before: forgotten ? before.offered : undefined,
      scale: optionOf(view, tcp, OPTION_WINDOW_SCALE, (at) => view.getUint8(at)) ?? 0,
      offered: new Map([[mac, 0]]),
      moves: 0,
      speaker: mac,
      resetBy: null,
      acknowledged,
      rightEdge: (acknowledged + view.getUint16(tcp + 14)) >>> 0,
      timestamp: optionOf(view, tcp, OPTION_TIMESTAMPS, (at) => view.getUint32(at)) ?? 0,
    })
    if (!isEntry) this.#complain(`${this.#servers.get(mac)!.name} opens ${key}, whose address it has not`)
  }

  /** Owners speak in the order in which they got the endpoint. */
  #speaks(track: Track, mac: string, what: string): void {
    const moves = track.offered.get(mac)
    if (moves === undefined) this.#complain(`${what}, and was never offered it`)
    else if (track.resetBy !== null && track.resetBy !== mac)
      this.#complain(`${what}, after ${this.#servers.get(track.resetBy)!.name} has reset it`)
    else if (moves < track.moves || (moves === track.moves && mac !== track.speaker))
      this.#complain(`${what}, after ${this.#servers.get(track.speaker)!.name} has (moves ${moves}, ${track.moves})`)
    else {
      track.moves = moves
      track.speaker = mac
    }
  }

  /** What the client sees goes on: acknowledgements, the window's right edge (but for the rounding of its scale), timestamps. */
  #continues(view: DataView, tcp: number, track: Track, who: string): void {
    const acknowledged = view.getUint32(tcp + 8)
    if (((acknowledged - track.acknowledged) | 0) < 0)
      this.#complain(`${who} acknowledges ${(track.acknowledged - acknowledged) >>> 0} bytes less than before`)
    else track.acknowledged = acknowledged
    const rightEdge = (acknowledged + view.getUint16(tcp + 14) * 2 ** track.scale) >>> 0
    const moved = (rightEdge - track.rightEdge) | 0
    if (moved < -(2 ** track.scale)) this.#complain(`${who} takes ${-moved} bytes of the window back`)
    else if (moved > 0) track.rightEdge = rightEdge
    const timestamp = optionOf(view, tcp, OPTION_TIMESTAMPS, (at) => view.getUint32(at))
    if (timestamp === undefined) return
    if (((timestamp - track.timestamp) | 0) < 0)
      this.#complain(`${who} puts its timestamps back by ${track.timestamp - timestamp} ms`)
    else track.timestamp = timestamp
  }
}

/** Value of a TCP option, or undefined. */
function optionOf(view: DataView, tcp: number, kind: number, read: (at: number) => number): number | undefined {
  const end = tcp + (view.getUint8(tcp + 12) >>> 4) * 4
  for (let at = tcp + 20; at < end; ) {
    const found = view.getUint8(at)
    if (found === 0) return undefined
    if (found === kind) return read(at + 2)
    at += found === 1 ? 1 : view.getUint8(at + 1)
  }
  return undefined
}

function keyOf(server: number, serverPort: number, client: number, clientPort: number): string {
  return `${dotted(server)}:${serverPort}-${dotted(client)}:${clientPort}`
}
