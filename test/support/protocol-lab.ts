/**
 * A farm in virtual time whose client the test plays frame by frame: for the rules of docs/protocol.md. Every frame that a server sends to LAN
 * and hub is noted, and may be lost or delayed on its way.
 */
import type net from 'node:net'
import { PLACEMENT_LOCAL_ONLY, PLACEMENT_ROUND_ROBIN } from '../../abi/boot.ts'
import { DIRECTORY_COUNTERS, DIRECTORY_STATE } from '../../abi/memory.ts'
import type { BootSettings } from '../../emulator/board.ts'
import type { Farm } from '../../emulator/farm.ts'
import type { Copy, Inspector, Interposer } from '../../emulator/link/interposer.ts'
import { type Alarm, type FrameSink, NOWHERE, type Port } from '../../emulator/link/link.ts'
import { FarmKit, type FarmKitOptions, type Node } from './farm-kit.ts'
import {
  arpFrame,
  bytes,
  formatAll,
  type IposFields,
  type IposKind,
  type IposPacket,
  type Ipv4Fields,
  icmp,
  iposFrame,
  ipv4Frame,
  type Packet,
  parse,
  parseIpv4,
  type TcpFields,
  tcp,
} from './packets.ts'

export const PORT = 80
export const CLIENT_IP = '192.0.2.200'
export const CLIENT_MAC = '02:00:00:00:c8:00'
/** The address of server 1, the entry INIC of every connection here. */
export const ENTRY_IP = '192.0.2.1'

/** A frame that a server sent. */
export interface Sent {
  readonly on: 'lan' | 'hub'
  readonly from: string
  readonly ms: number
  readonly frame: Uint8Array
  readonly packet: Packet
}
/** An ipOS packet of one kind, and who sent it when. */
export type SentIpos<K extends IposKind> = { from: string; ms: number } & Extract<IposPacket, { kind: K }>

export interface LabOptions extends FarmKitOptions {
  /** Servers that listen, by number; default all. */
  readonly listening?: readonly number[]
}

export class Lab implements Inspector {
  readonly kit: FarmKit
  readonly station: Station
  readonly sent: Sent[] = []
  /** What becomes of a frame; null lets it pass. */
  fate: (sent: Sent) => readonly Copy[] | null = () => null
  /** The last connection that each server was given, and what was read from it. */
  readonly sockets = new Map<Node, net.Socket>()
  readonly reads = new Map<Node, string>()
  readonly errors: string[] = []
  readonly ended: Node[] = []
  readonly #interposers = new Map<string, Interposer>()
  #nextPort = 40_000

  /** Booted; servers know each other and their ports. By default connections stay where they come in. */
  static async open({ listening, boot, ...options }: LabOptions = {}): Promise<Lab> {
    const lab = new Lab({ servers: 2, ...options, boot: { placement: PLACEMENT_LOCAL_ONLY, ...boot } })
    for (const n of listening ?? lab.kit.servers.map((_, i) => i + 1)) lab.listen(n)
    await lab.kit.settle()
    return lab
  }

  /** Connections to server 1 are placed on the servers that listen, in turn. */
  static inTurn(boot: BootSettings = {}, listening: readonly number[] = [1, 2]): Promise<Lab> {
    return Lab.open({ listening, boot: { placement: PLACEMENT_ROUND_ROBIN, ...boot } })
  }

  /** Connections to server 1 are served by server 2 alone. */
  static elsewhere(boot: BootSettings = {}): Promise<Lab> {
    return Lab.inTurn(boot, [2])
  }

  constructor(options: FarmKitOptions) {
    this.kit = new FarmKit({ clients: 0, ...options, inspector: this })
    this.station = new Station(this.kit.farm)
  }

  get nowMs(): number {
    return this.kit.farm.now() / 1e6
  }

  run(ms: number): Promise<unknown> {
    return this.kit.run(ms)
  }

  server(n: number): Node {
    return this.kit.server(n)
  }

  listen(n: number): net.Server {
    const node = this.server(n)
    const server = node.net.createServer({ allowHalfOpen: true, noDelay: true })
    const take = (socket: net.Socket) => {
      this.sockets.set(node, socket)
      this.reads.set(node, '')
      socket.on('data', (data) => this.reads.set(node, `${this.reads.get(node)}${data}`))
      socket.on('end', () => this.ended.push(node))
      socket.on('error', (error: NodeJS.ErrnoException) => this.errors.push(`${node.name} ${error.code}`))
    }
    server.on('connection', take)
    server.on('migrate', take)
    // A test may switch the card off.
    server.on('error', () => {})
    return server.listen(PORT)
  }

  /** The socket that server `n` was given last. */
  socket(n: number): net.Socket {
    const socket = this.sockets.get(this.server(n))
    if (!socket) throw new Error(`server ${n} has no connection`)
    return socket
  }

  /** What server `n` has read from that. */
  read(n: number): string {
    return this.reads.get(this.server(n)) ?? ''
  }

  /** A new connection to server 1, established; the handshake runs for a millisecond. */
  async connect(options: ConnectionOptions = {}): Promise<Connection> {
    const connection = new Connection(this.station, options.port ?? this.#nextPort++, options)
    await connection.open(() => this.run(1))
    return connection
  }

  /** As `connect`, with a request that has reached its server. */
  async request(text = 'request', options: ConnectionOptions = {}): Promise<Connection> {
    const connection = await this.connect(options)
    connection.send({ flags: 'PA', payload: text })
    await this.run(10)
    return connection
  }

  /** Moves the connection of server `from` to server `to`, and waits until it is there. */
  async migrate(from: number, to: number): Promise<void> {
    this.sockets.delete(this.server(to))
    let error: unknown
    this.socket(from)
      .migrate(this.server(to).name, {})
      .catch((cause: unknown) => {
        error = cause
      })
    const there = await this.kit.until(() => this.sockets.has(this.server(to)) || error !== undefined, 20_000)
    if (!there || error) throw new Error(`${from} to ${to}: ${error ?? 'it did not arrive'}\n${formatAll(this.sent)}`)
    await this.run(2)
  }

  /** Frames on the hub of one kind, oldest first. */
  hub<K extends IposKind>(kind: K, from?: number): SentIpos<K>[] {
    return this.sent.flatMap(({ on, from: name, ms, packet: { ipos } }) => {
      if (on !== 'hub' || ipos?.kind !== kind || (from !== undefined && name !== `server${from}`)) return []
      return [{ ...ipos, from: name, ms } as unknown as SentIpos<K>]
    })
  }

  /** Packets to the client that server `n` sent. */
  toClient(n: number): Sent[] {
    const { name } = this.server(n)
    return this.sent.filter(
      ({ on, from, packet }) => on === 'lan' && from === name && packet.ipv4?.destination === CLIENT_IP,
    )
  }

  /** Puts a frame on the hub as if server `n` had sent it. */
  fromHub<K extends IposKind>(n: number, to: number, kind: K, fields: IposFields<K>): void {
    const link = { sourceMac: hubMac(n), destinationMac: hubMac(to) }
    const frame = iposFrame<K>(kind, { ...link, destination: this.server(to).address, ...fields } as never)
    this.#interposers.get(`${this.server(n).name}.hub`)!.send('in', frame)
  }

  counter(n: number, name: string): number {
    return this.server(n).rows(DIRECTORY_COUNTERS)[0]!.number(name)
  }

  state(n: number, name: string): number {
    return this.server(n).rows(DIRECTORY_STATE)[0]!.number(name)
  }

  async close(): Promise<void> {
    await this.kit.close()
  }

  inspect(...[interposer, passage, frame, nowNs]: Parameters<Inspector['inspect']>): readonly Copy[] | null {
    this.#interposers.set(interposer.name, interposer)
    if (passage !== 'in') return null
    const [from, on] = interposer.name.split('.') as [string, 'lan' | 'hub']
    const own = frame.slice()
    const sent = { on, from, ms: nowNs / 1e6, frame: own, packet: parse(own) }
    this.sent.push(sent)
    return this.fate(sent)
  }
}

export function hubMac(n: number): string {
  return `02:00:00:00:0${n}:02`
}

export function lanMac(n: number): string {
  return `02:00:00:00:0${n}:00`
}

/** The IP packet that a data packet or a release carries. */
export function carried({ packet }: { packet: Uint8Array }): Packet {
  const decoded: Packet = { destinationMac: '', sourceMac: '', type: 0, problems: [] }
  parseIpv4(packet, decoded)
  return decoded
}

/** Loses frames of the hub of these kinds, as many as are given of each. */
export function losing(counts: Partial<Record<IposKind, number>>): Lab['fate'] {
  const left = new Map(Object.entries(counts))
  return ({ on, packet }) => {
    const kind = packet.ipos?.kind ?? ''
    const count = left.get(kind) ?? 0
    if (on !== 'hub' || count === 0) return null
    left.set(kind, count - 1)
    return []
  }
}

/** The client's port on the LAN: answers ARP, and keeps what it is sent. */
export class Station implements Port, Alarm {
  slot = -1
  dueNs = 0
  sequence = 0
  readonly precise = true

  readonly name = 'client'
  readonly received: { ms: number; frame: Uint8Array; packet: Packet }[] = []
  readonly connections: Connection[] = []
  readonly #farm: Farm
  #outlet: FrameSink = NOWHERE
  #answers: Uint8Array[] = []

  constructor(farm: Farm) {
    this.#farm = farm
    farm.connect(this, farm.switches.get('lan')!.addPort())
  }

  plug(outlet: FrameSink | null): void {
    this.#outlet = outlet ?? NOWHERE
  }

  setCarrier(): void {}

  frame(memory: Uint8Array, offset: number, length: number, nowNs: number): void {
    const frame = memory.slice(offset, offset + length)
    const packet = parse(frame)
    this.received.push({ ms: nowNs / 1e6, frame, packet })
    const { arp } = packet
    if (arp?.operation === 'request' && arp.target === CLIENT_IP) {
      const { sender: target, senderMac: targetMac } = arp
      this.#answers.push(arpFrame({ operation: 'reply', senderMac: CLIENT_MAC, sender: CLIENT_IP, target, targetMac }))
      // It leaves after the frame that it answers is through.
      this.#farm.setAlarm(this, this.#farm.now())
    }
    for (const connection of this.connections) connection.take(packet, nowNs / 1e6)
  }

  fire(): void {
    for (const frame of this.#answers.splice(0)) this.send(frame)
  }

  send(frame: Uint8Array): void {
    this.#outlet.frame(frame, 0, frame.length, this.#farm.now())
  }

  /** Sends an IP packet to server 1. */
  sendIp(fields: Omit<Ipv4Fields, 'source' | 'destination'> & Partial<Ipv4Fields>): void {
    const link = { destinationMac: lanMac(1), sourceMac: CLIENT_MAC }
    this.send(ipv4Frame({ ...link, source: CLIENT_IP, destination: ENTRY_IP, ...fields }))
  }

  /** Sends an ICMP error that quotes a packet of the servers' to the address that it came from. */
  sendIcmp(type: number, code: number, rest: number, quoted: Uint8Array): void {
    this.sendIp({ protocol: 1, payload: icmp({ type, code, rest, payload: quoted }) })
  }
}

export interface ConnectionOptions {
  readonly port?: number
  readonly iss?: number
  readonly window?: number
  readonly mss?: number
  /** Its clock starts here; absent = no timestamps. */
  readonly tsClock?: number
  readonly sack?: boolean
}

export interface Segment extends Partial<Omit<TcpFields, 'payload' | 'options'>> {
  readonly flags: string
  readonly payload?: string | Uint8Array
  /** Value that the segment carries in place of the clock's. */
  readonly tsValue?: number
  /** Blocks of received sequence numbers. */
  readonly sack?: [number, number][]
  readonly ip?: Partial<Ipv4Fields>
}

export interface Received {
  readonly ms: number
  readonly packet: Packet
  readonly tcp: NonNullable<Packet['tcp']>
}

/** The client's end of one connection. It sends nothing by itself; numbers are absolute. */
export class Connection {
  readonly port: number
  readonly received: Received[] = []
  readonly iss: number
  sndNxt: number
  rcvNxt = 0
  irs = 0
  text = ''
  tsRecent = 0
  readonly #station: Station
  readonly #options: ConnectionOptions

  constructor(station: Station, port: number, options: ConnectionOptions) {
    this.#station = station
    this.#options = options
    this.port = port
    this.iss = options.iss ?? 0x1000_0000
    this.sndNxt = this.iss
    station.connections.push(this)
  }

  async open(run: () => Promise<unknown>): Promise<void> {
    this.sendSyn()
    await run()
    if (this.last?.tcp.flags !== 'SA') throw new Error(`no SYN-ACK\n${formatAll(this.#station.received)}`)
    this.send({ flags: 'A' })
    await run()
  }

  sendSyn(): void {
    this.send({ flags: 'S' })
  }

  /** Milliseconds since power-on, by which its timestamps count. */
  #clock(): number {
    return ((this.#options.tsClock ?? 0) + Math.floor(this.#station.received.at(-1)?.ms ?? 0)) >>> 0
  }

  /** Sends a segment: what is not given follows from what went before. */
  send(segment: Segment): void {
    this.#station.sendIp({ ...segment.ip, protocol: 6, payload: this.bytesOf(segment) })
  }

  /** The segment that `send` would send; it counts as sent. */
  bytesOf({ flags, payload = '', tsValue, sack, ip: _, ...fields }: Segment): Uint8Array {
    const { window = 65_535, mss = 1460, tsClock, sack: sacks = true } = this.#options
    const data = typeof payload === 'string' ? bytes(payload) : payload
    const syn = flags.includes('S')
    const stamp = tsClock === undefined ? undefined : ([tsValue ?? this.#clock(), this.tsRecent] as [number, number])
    const segment = tcp({
      source: CLIENT_IP,
      destination: ENTRY_IP,
      sourcePort: this.port,
      destinationPort: PORT,
      sequence: this.sndNxt,
      acknowledgment: flags.includes('A') ? this.rcvNxt : 0,
      window,
      flags,
      payload: data,
      options: {
        ...(syn && { mss, sackPermitted: sacks }),
        ...(stamp && { timestamps: stamp }),
        ...(sack && { sack }),
      },
      ...fields,
    })
    if (fields.sequence === undefined)
      this.sndNxt = (this.sndNxt + data.length + (syn ? 1 : 0) + (flags.includes('F') ? 1 : 0)) >>> 0
    return segment
  }

  take(packet: Packet, ms: number): void {
    const { tcp: segment, ipv4 } = packet
    if (!segment || ipv4?.destination !== CLIENT_IP || segment.destinationPort !== this.port) return
    this.received.push({ ms, packet, tcp: segment })
    if (segment.flags.includes('S')) {
      this.irs = segment.sequence
      this.rcvNxt = (segment.sequence + 1) >>> 0
    } else if (segment.sequence === this.rcvNxt) {
      this.text += Buffer.from(segment.payload)
      this.rcvNxt = (this.rcvNxt + segment.payload.length + (segment.flags.includes('F') ? 1 : 0)) >>> 0
    }
    if (segment.options.timestamps) this.tsRecent = segment.options.timestamps[0]
  }

  get last(): Received | undefined {
    return this.received.at(-1)
  }

  /** Takes what came so far. */
  drain(): Received[] {
    return this.received.splice(0)
  }
}
