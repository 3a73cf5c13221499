import type { Farm } from '../emulator/farm.ts'
import { type Alarm, type FrameSink, NOWHERE, type Port } from '../emulator/link/link.ts'
import type { Switch } from '../emulator/link/switch.ts'

/**
 * Clients made of frames: a port on a network behind which any number of TCP connections live, at a few bytes each. They open, send, and
 * acknowledge nothing; no stack runs for them.
 */

const ETHERTYPE_IPV4 = 0x0800
const ETHERTYPE_ARP = 0x0806
// Offsets in a frame. IPv4 headers have no options here.
const SOURCE_MAC = 6
const TYPE = 12
const IP = 14
const IP_TOTAL = 16
const IP_PROTOCOL = 23
const IP_CHECKSUM = 24
const IP_SOURCE = 26
const IP_DESTINATION = 30
const TCP = 34
const TCP_DESTINATION = 36
const TCP_SEQUENCE = 38
const TCP_ACKNOWLEDGEMENT = 42
const TCP_FLAGS = 47
const TCP_CHECKSUM = 50
const PAYLOAD = 54
const ARP_OPERATION = 20
const ARP_SENDER = 22
const ARP_SENDER_IP = 28
const ARP_TARGET = 32
const ARP_TARGET_IP = 38
const ARP_END = 42

const TCP_SYN = 2
const TCP_PSH = 8
const TCP_ACK = 16
const PROTOCOL_TCP = 6
/** IP and TCP headers without options. */
export const HEADER_BYTES = 40

const FIRST_PORT = 1024
/** Connections of one client address. */
const PORTS = 10_000
const WINDOW = 0xffff
const MAXIMUM_FRAME = 1514

export interface ScriptedClientsOptions {
  readonly mac: Uint8Array
  /** Addresses from here on, as many as it takes; the network must have room for them. */
  readonly address: number
  readonly server: number
  readonly port: number
}

export class ScriptedClients implements Port, Alarm {
  slot = -1
  dueNs = Number.POSITIVE_INFINITY
  sequence = 0
  readonly precise = true

  readonly name = 'clients'
  /** Connections that are established. */
  established = 0
  readonly #options: ScriptedClientsOptions
  readonly #request: Uint8Array
  readonly #frame = new Uint8Array(MAXIMUM_FRAME)
  readonly #view = new DataView(this.#frame.buffer)
  readonly #farm: Farm
  #outlet: FrameSink = NOWHERE
  /** Answers, which leave after the frame that they answer is through. */
  #answers: (() => void)[] = []
  #serverMac: Uint8Array | null = null
  /** By connection: the next sequence number of each side. */
  readonly #sequence: Uint32Array
  readonly #acknowledgement: Uint32Array

  /** Plugs itself into the network. `request` is what each connection sends as soon as it is open. */
  constructor(farm: Farm, network: Switch, count: number, request: Uint8Array, options: ScriptedClientsOptions) {
    this.#farm = farm
    this.#request = request
    this.#options = options
    this.#sequence = new Uint32Array(count)
    this.#acknowledgement = new Uint32Array(count)
    farm.connect(this, network.addPort())
  }

  plug(outlet: FrameSink | null): void {
    this.#outlet = outlet ?? NOWHERE
  }

  setCarrier(): void {}

  /** Asks for the server's MAC address; `ready` once it has come. */
  start(): void {
    const { mac, address, server } = this.#options
    this.#arp(1, new Uint8Array(6).fill(0xff), mac, address, new Uint8Array(6), server)
  }

  get ready(): boolean {
    return this.#serverMac !== null
  }

  /** Sends connection `n`'s SYN; the rest of the handshake and the request follow by themselves. */
  open(n: number): void {
    this.#segment(n, TCP_SYN, new Uint8Array(0))
    this.#sequence[n]++
  }

  /** Sends data on connection `n`. */
  send(n: number, data: Uint8Array): void {
    this.#segment(n, TCP_ACK | TCP_PSH, data)
    this.#sequence[n] += data.length
  }

  frame(memory: Uint8Array, offset: number, length: number): void {
    const frame = memory.subarray(offset, offset + length)
    const view = new DataView(frame.buffer, frame.byteOffset, length)
    const type = view.getUint16(TYPE)
    if (type === ETHERTYPE_ARP) this.#arpInput(frame, view)
    else if (type === ETHERTYPE_IPV4 && view.getUint8(IP_PROTOCOL) === PROTOCOL_TCP) this.#tcpInput(view)
  }

  #arpInput(frame: Uint8Array, view: DataView): void {
    const { mac, address, server } = this.#options
    const sender = frame.slice(ARP_SENDER, ARP_SENDER + 6)
    if (view.getUint32(ARP_SENDER_IP) === server) this.#serverMac = sender
    const target = view.getUint32(ARP_TARGET_IP)
    const mine = target >= address && target < address + Math.ceil(this.#sequence.length / PORTS)
    const senderIp = view.getUint32(ARP_SENDER_IP)
    if (view.getUint16(ARP_OPERATION) === 1 && mine)
      this.#answer(() => this.#arp(2, sender, mac, target, sender, senderIp))
  }

  #tcpInput(view: DataView): void {
    if ((view.getUint8(TCP_FLAGS) & TCP_SYN) === 0) return
    const client = view.getUint32(IP_DESTINATION) - this.#options.address
    const n = client * PORTS + view.getUint16(TCP_DESTINATION) - FIRST_PORT
    this.#acknowledgement[n] = view.getUint32(TCP_SEQUENCE) + 1
    this.established++
    this.#answer(() => this.send(n, this.#request))
  }

  #answer(send: () => void): void {
    this.#answers.push(send)
    this.#farm.setAlarm(this, this.#farm.now())
  }

  fire(): void {
    const answers = this.#answers
    this.#answers = []
    for (const send of answers) send()
  }

  #segment(n: number, flags: number, data: Uint8Array): void {
    const { mac, address, server, port } = this.#options
    const view = this.#view
    const total = HEADER_BYTES + data.length
    this.#frame.fill(0, 0, PAYLOAD)
    this.#frame.set(this.#serverMac!, 0)
    this.#frame.set(mac, SOURCE_MAC)
    view.setUint16(TYPE, ETHERTYPE_IPV4)
    view.setUint8(IP, 0x45)
    view.setUint16(IP_TOTAL, total)
    view.setUint16(IP + 6, 0x4000)
    view.setUint8(IP + 8, 64)
    view.setUint8(IP_PROTOCOL, PROTOCOL_TCP)
    view.setUint32(IP_SOURCE, address + Math.floor(n / PORTS))
    view.setUint32(IP_DESTINATION, server)
    view.setUint16(IP_CHECKSUM, checksum(view, IP, TCP, 0))
    view.setUint16(TCP, FIRST_PORT + (n % PORTS))
    view.setUint16(TCP_DESTINATION, port)
    view.setUint32(TCP_SEQUENCE, this.#sequence[n])
    view.setUint32(TCP_ACKNOWLEDGEMENT, this.#acknowledgement[n])
    view.setUint8(TCP_FLAGS - 1, 0x50)
    view.setUint8(TCP_FLAGS, flags)
    view.setUint16(TCP_FLAGS + 1, WINDOW)
    this.#frame.set(data, PAYLOAD)
    // The pseudo-header: both addresses, which stand in front of the segment, protocol and length.
    view.setUint16(TCP_CHECKSUM, checksum(view, IP_SOURCE, IP + total, PROTOCOL_TCP + total - 20))
    this.#send(IP + total)
  }

  #arp(
    operation: number,
    to: Uint8Array,
    mac: Uint8Array,
    sender: number,
    targetMac: Uint8Array,
    target: number,
  ): void {
    const view = this.#view
    this.#frame.fill(0, 0, ARP_END)
    this.#frame.set(to, 0)
    this.#frame.set(mac, SOURCE_MAC)
    view.setUint16(TYPE, ETHERTYPE_ARP)
    view.setUint32(IP, 0x00010800)
    view.setUint16(IP + 4, 0x0604)
    view.setUint16(ARP_OPERATION, operation)
    this.#frame.set(mac, ARP_SENDER)
    view.setUint32(ARP_SENDER_IP, sender)
    this.#frame.set(targetMac, ARP_TARGET)
    view.setUint32(ARP_TARGET_IP, target)
    this.#send(ARP_END)
  }

  #send(bytes: number): void {
    this.#outlet.frame(this.#frame, 0, bytes, this.#farm.now())
  }
}

/** Internet checksum (RFC 1071) of the bytes from `start` to `end`, and of `more`. */
function checksum(view: DataView, start: number, end: number, more: number): number {
  let sum = more
  for (let at = start; at + 1 < end; at += 2) sum += view.getUint16(at)
  if ((end - start) % 2 === 1) sum += view.getUint8(end - 1) << 8
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return ~sum & 0xffff
}
