/**
 * ipOS frames (abi/ipos.ts, FIG. 11) for tests, written apart from the firmware's own code on purpose. `iposFrame` builds a frame from
 * named values, what is not named is 0, lengths and checksum are filled in unless a field says otherwise; `parseIpos` gives the values
 * back and lists what is wrong. Addresses are strings. The tables below are the only place that knows an offset.
 */
import * as I from '../../../abi/ipos.ts'
import { TCP_ESTABLISHED } from '../../../abi/tcp.ts'
import {
  concat,
  ethernet,
  internetChecksum,
  ipNumber,
  ipText,
  type LinkFields,
  NO_BYTES,
  padded,
  viewOf,
} from './build.ts'

// ── fields ──

export interface Field<T> {
  readonly at: number
  readonly bytes: number
  load(view: DataView, base: number): T
  store(view: DataView, base: number, value: T): void
}

function number(at: number, bytes: number, type: 'Uint8' | 'Uint16' | 'Uint32' | 'Float32'): Field<number> {
  return {
    at,
    bytes,
    load: (view, base) => view[`get${type}`](base + at),
    store: (view, base, value) => view[`set${type}`](base + at, value),
  }
}

const u8 = (at: number) => number(at, 1, 'Uint8')
const u16 = (at: number) => number(at, 2, 'Uint16')
const u32 = (at: number) => number(at, 4, 'Uint32')
const f32 = (at: number) => number(at, 4, 'Float32')
const address = (at: number): Field<string> => ({
  at,
  bytes: 4,
  load: (view, base) => ipText(view.getUint32(base + at)),
  store: (view, base, value) => view.setUint32(base + at, ipNumber(value)),
})

type Layout = Readonly<Record<string, Field<number> | Field<string>>>
type Values<L> = { [K in keyof L]: L[K] extends Field<infer T> ? T : never }

const HEADER = {
  source: address(I.IPOS_SOURCE_ADDRESS),
  sourcePort: u16(I.IPOS_SOURCE_PORT),
  destination: address(I.IPOS_DESTINATION_ADDRESS),
  thread: u16(I.IPOS_DESTINATION_PORT),
  type: u8(I.IPOS_TYPE),
  protocol: u8(I.IPOS_PROTOCOL),
  checksum: u16(I.IPOS_CHECKSUM),
}

const CONNECTION = { server: address(I.IPOS_SERVER_ADDRESS), serverPort: u16(I.IPOS_SERVER_PORT) }

/** Offsets count from the control block. */
const BLOCK = {
  version: u8(I.BLOCK_VERSION),
  state: u8(I.BLOCK_STATE),
  flags: u16(I.BLOCK_FLAGS),
  moves: u32(I.BLOCK_MOVES),
  entry: address(I.BLOCK_ENTRY),
  iss: u32(I.BLOCK_ISS),
  sndUna: u32(I.BLOCK_SND_UNA),
  sndMax: u32(I.BLOCK_SND_MAX),
  sndEnd: u32(I.BLOCK_SND_END),
  sndWnd: u32(I.BLOCK_SND_WND),
  sndWndMaximum: u32(I.BLOCK_SND_WND_MAXIMUM),
  sndWl1: u32(I.BLOCK_SND_WL1),
  sndWl2: u32(I.BLOCK_SND_WL2),
  irs: u32(I.BLOCK_IRS),
  rcvNxt: u32(I.BLOCK_RCV_NXT),
  rcvRead: u32(I.BLOCK_RCV_READ),
  rcvAdvertised: u32(I.BLOCK_RCV_ADVERTISED),
  rcvFin: u32(I.BLOCK_RCV_FIN),
  mss: u16(I.BLOCK_MSS),
  sndScale: u8(I.BLOCK_SND_SCALE),
  rcvScale: u8(I.BLOCK_RCV_SCALE),
  tsRecent: u32(I.BLOCK_TS_RECENT),
  tsRecentAge: u32(I.BLOCK_TS_RECENT_AGE),
  tsClock: u32(I.BLOCK_TS_CLOCK),
  lastAckSent: u32(I.BLOCK_LAST_ACK_SENT),
  srtt: u32(I.BLOCK_SRTT),
  rttvar: u32(I.BLOCK_RTTVAR),
  rto: u32(I.BLOCK_RTO),
  cwnd: u32(I.BLOCK_CWND),
  ssthresh: u32(I.BLOCK_SSTHRESH),
  cubicWmax: f32(I.BLOCK_CUBIC_WMAX),
  persistLeft: u32(I.BLOCK_PERSIST_LEFT),
  keepAliveLeft: u32(I.BLOCK_KEEP_ALIVE_LEFT),
  keepAliveIdle: u32(I.BLOCK_KEEP_ALIVE_IDLE),
  stalledAge: u32(I.BLOCK_STALLED_AGE),
  backoff: u8(I.BLOCK_BACKOFF),
  keepAliveProbes: u8(I.BLOCK_KEEP_ALIVE_PROBES),
  socketOptions: u16(I.BLOCK_SOCKET_OPTIONS),
  stateBytes: u32(I.BLOCK_STATE_BYTES),
  receiver: u32(I.BLOCK_RECEIVER),
  reorderSteps: u8(I.BLOCK_REORDER_STEPS),
  ackDelay: u8(I.BLOCK_ACK_DELAY),
}

const STATE = {
  incarnation: u32(I.STATE_INCARNATION),
  sequence: u32(I.STATE_SEQUENCE),
  flags: u16(I.STATE_FLAGS),
  cpu: u16(I.STATE_CPU),
  connections: u32(I.STATE_CONNECTIONS),
  connectionsMaximum: u32(I.STATE_CONNECTIONS_MAXIMUM),
  memoryAvailable: u32(I.STATE_MEMORY_AVAILABLE),
  memoryTotal: u32(I.STATE_MEMORY_TOTAL),
  bandwidthAvailable: u32(I.STATE_BANDWIDTH_AVAILABLE),
  bandwidthTotal: u32(I.STATE_BANDWIDTH_TOTAL),
  heardCount: u16(I.STATE_HEARD_COUNT),
  serviceCount: u16(I.STATE_SERVICE_COUNT),
  lease: u32(I.STATE_LEASE),
}
const HEARD = {
  address: address(I.HEARD_ADDRESS),
  incarnation: u32(I.HEARD_INCARNATION),
  sequence: u32(I.HEARD_SEQUENCE),
}
const SERVICE = { port: u16(I.SERVICE_PORT), protocol: u8(I.SERVICE_PROTOCOL), flags: u8(I.SERVICE_FLAGS) }

const COMMIT = {
  receiveEnd: u32(I.COMMIT_RECEIVE_END),
  sendEnd: u32(I.COMMIT_SEND_END),
  stateBytes: u32(I.COMMIT_STATE_BYTES),
  outOfOrder: u32(I.COMMIT_OUT_OF_ORDER),
}
const COMMITTED = {
  received: u32(I.COMMITTED_RECEIVED),
  queued: u32(I.COMMITTED_QUEUED),
  stateBytes: u32(I.COMMITTED_STATE_BYTES),
  outOfOrder: u32(I.COMMITTED_OUT_OF_ORDER),
  flags: u16(I.COMMITTED_FLAGS),
}
const REFUSE = { reason: u16(I.REFUSE_REASON) }
const RELEASE = {
  reason: u16(I.RELEASE_REASON),
  floor: u32(I.RELEASE_FLOOR),
  packetBytes: u16(I.RELEASE_PACKET_BYTES),
}
const APPLICATION = { offset: u32(I.APPLICATION_OFFSET), bytes: u16(I.APPLICATION_BYTES) }
const MOVED = { moves: u32(I.MOVED_MOVES), newAddress: address(I.MOVED_ADDRESS), newThread: u16(I.MOVED_THREAD) }
const MOVED_HEARD = { moves: u32(I.MOVED_HEARD_MOVES) }

/** Every piece of an ipOS packet by the prefix that its constants have in abi/ipos.ts; `end` is where its fields end. */
export const IPOS_LAYOUTS: Readonly<Record<string, { fields: Layout; start: number; end: number }>> = {
  HEADER: { fields: HEADER, start: 0, end: I.IPOS_HEADER_BYTES },
  CONNECTION: { fields: CONNECTION, start: I.IPOS_HEADER_BYTES, end: I.IPOS_CONNECTION_BYTES },
  BLOCK: { fields: BLOCK, start: 0, end: I.BLOCK_RESERVED },
  STATE: { fields: STATE, start: I.IPOS_HEADER_BYTES, end: I.STATE_HEARD },
  HEARD: { fields: HEARD, start: 0, end: I.HEARD_BYTES },
  SERVICE: { fields: SERVICE, start: 0, end: I.SERVICE_BYTES },
  COMMIT: { fields: COMMIT, start: I.IPOS_CONNECTION_BYTES, end: I.COMMIT_BYTES },
  COMMITTED: { fields: COMMITTED, start: I.IPOS_CONNECTION_BYTES, end: I.COMMITTED_BYTES },
  REFUSE: { fields: REFUSE, start: I.IPOS_CONNECTION_BYTES, end: I.REFUSE_BYTES },
  RELEASE: { fields: RELEASE, start: I.IPOS_CONNECTION_BYTES, end: I.RELEASE_PACKET },
  APPLICATION: { fields: APPLICATION, start: I.IPOS_CONNECTION_BYTES, end: I.APPLICATION_DATA },
  MOVED: { fields: MOVED, start: I.IPOS_CONNECTION_BYTES, end: I.MOVED_BYTES },
  MOVED_HEARD: { fields: MOVED_HEARD, start: I.IPOS_CONNECTION_BYTES, end: I.MOVED_HEARD_BYTES },
}

// ── packets ──

export type IposHeader = Values<typeof HEADER>
export type ControlBlock = Values<typeof BLOCK>
export type Heard = Values<typeof HEARD>
export type Service = Values<typeof SERVICE>
type Connection = Values<typeof CONNECTION>

/** What a packet of each kind has after the header. */
export interface IposBodies {
  /** `block` is there for TCP alone. */
  connect: Connection & { block?: ControlBlock }
  /** From the IP header on. */
  data: { packet: Uint8Array }
  acknowledge: object
  state: Values<typeof STATE> & { heard: Heard[]; services: Service[] }
  commit: Connection & Values<typeof COMMIT>
  committed: Connection & Values<typeof COMMITTED>
  refuse: Connection & Values<typeof REFUSE>
  /** `packet` is handed back; empty = none. */
  release: Connection & Values<typeof RELEASE> & { packet: Uint8Array }
  released: Connection
  cancel: Connection
  application: Connection & Values<typeof APPLICATION> & { data: Uint8Array }
  moved: Connection & Values<typeof MOVED>
  movedHeard: Connection & Values<typeof MOVED_HEARD>
}
export type IposKind = keyof IposBodies
export type IposPacket = { [K in IposKind]: { kind: K } & IposHeader & IposBodies[K] }[IposKind]

/** Values of a packet, as many as one wants to name. */
export type IposFields<K extends IposKind> = Partial<IposHeader> &
  Partial<Omit<IposBodies[K], 'block'>> & { block?: Partial<ControlBlock> }

interface Shape {
  readonly type: number
  /** Fields after the header, connection information first where there is some. */
  readonly fields: Layout
  /** Bytes that a packet of this kind has at least. */
  readonly bytes: number
}

const shape = (type: number, bytes: number, own: Layout = {}): Shape => ({
  type,
  bytes,
  fields: { ...CONNECTION, ...own },
})
const SHAPES: Readonly<Record<IposKind, Shape>> = {
  connect: shape(I.IPOS_CONNECT, I.IPOS_CONNECTION_BYTES),
  data: { type: I.IPOS_DATA, bytes: I.IPOS_HEADER_BYTES, fields: {} },
  acknowledge: { type: I.IPOS_ACKNOWLEDGE, bytes: I.IPOS_HEADER_BYTES, fields: {} },
  state: { type: I.IPOS_STATE, bytes: I.STATE_HEARD, fields: STATE },
  commit: shape(I.IPOS_COMMIT, I.COMMIT_BYTES, COMMIT),
  committed: shape(I.IPOS_COMMITTED, I.COMMITTED_BYTES, COMMITTED),
  refuse: shape(I.IPOS_REFUSE, I.REFUSE_BYTES, REFUSE),
  release: shape(I.IPOS_RELEASE, I.RELEASE_PACKET, RELEASE),
  released: shape(I.IPOS_RELEASED, I.IPOS_CONNECTION_BYTES),
  cancel: shape(I.IPOS_CANCEL, I.IPOS_CONNECTION_BYTES),
  application: shape(I.IPOS_APPLICATION, I.APPLICATION_DATA, APPLICATION),
  moved: shape(I.IPOS_MOVED, I.MOVED_BYTES, MOVED),
  movedHeard: shape(I.IPOS_MOVED_HEARD, I.MOVED_HEARD_BYTES, MOVED_HEARD),
}
export const IPOS_KINDS = Object.keys(SHAPES) as IposKind[]
const KIND_OF_TYPE = new Map(IPOS_KINDS.map((kind) => [SHAPES[kind].type, kind]))

/** A control block that makes sense: ESTABLISHED, nothing in flight, nothing unread, an open window, SACK and timestamps. */
export function controlBlock(changes: Partial<ControlBlock> = {}): ControlBlock {
  const iss = changes.iss ?? 0x10000000
  const irs = changes.irs ?? 0x20000000
  const sndUna = changes.sndUna ?? (iss + 1) >>> 0
  const rcvNxt = changes.rcvNxt ?? (irs + 1) >>> 0
  const zeros = Object.fromEntries(Object.keys(BLOCK).map((name) => [name, 0])) as Record<keyof ControlBlock, number>
  return {
    ...zeros,
    version: I.BLOCK_VERSION_VALUE,
    state: TCP_ESTABLISHED,
    flags: I.BLOCK_FLAG_SACK | I.BLOCK_FLAG_TIMESTAMPS,
    moves: 1,
    entry: '0.0.0.0',
    iss,
    sndUna,
    sndMax: sndUna,
    sndEnd: sndUna,
    sndWnd: 65535,
    sndWndMaximum: 65535,
    sndWl1: rcvNxt,
    sndWl2: sndUna,
    irs,
    rcvNxt,
    rcvRead: rcvNxt,
    rcvAdvertised: (rcvNxt + 65535) >>> 0,
    mss: 1460,
    lastAckSent: rcvNxt,
    rto: 1000,
    cwnd: 14600,
    ssthresh: 0x7fffffff,
    ...changes,
  }
}

// ── builder ──

/** Frame of an ipOS packet, padded to what a wire demands. `etherType`: what the board has set, 0x0007 if nothing. */
export function iposFrame<K extends IposKind>(
  kind: K,
  fields: IposFields<K> & LinkFields & { etherType?: number },
): Uint8Array {
  const { destinationMac, sourceMac, etherType: type = I.IPOS_ETHERTYPE } = fields
  return padded(ethernet({ destinationMac, sourceMac, type, payload: ipos<K>(kind, fields) }))
}

/** The packet from the ipOS header on. */
export function ipos<K extends IposKind>(kind: K, fields: IposFields<K>): Uint8Array {
  const { type, bytes, fields: layout } = SHAPES[kind]
  const given = definedOf(fields)
  const tail = tailOf(kind, given)
  const packet = concat(new Uint8Array(bytes), tail)
  const view = viewOf(packet)
  const protocol = kind === 'state' ? 0 : I.IPOS_TCP
  storeAll(HEADER, view, 0, { type, protocol, ...given, checksum: 0 })
  storeAll(layout, view, 0, {
    heardCount: given.heard?.length,
    serviceCount: given.services?.length,
    packetBytes: tail.length,
    bytes: tail.length,
    ...given,
  })
  HEADER.checksum.store(view, 0, fields.checksum ?? internetChecksum(packet))
  return packet
}

/** Fields of packets of every kind by name: inside the builder nobody knows which kind it is. */
type AnyFields = Partial<Record<string, unknown>> & {
  block?: Partial<ControlBlock>
  heard?: Heard[]
  services?: Service[]
  packet?: Uint8Array
  data?: Uint8Array
}

/** Without the fields that are there and undefined: they would hide what stands before them. */
function definedOf(fields: object): AnyFields {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
}

/** Bytes after the fixed fields. */
function tailOf(kind: IposKind, fields: AnyFields): Uint8Array {
  if (kind === 'connect') return fields.protocol === I.IPOS_UDP ? NO_BYTES : blockBytes(fields.block)
  if (kind !== 'state') return fields.packet ?? fields.data ?? NO_BYTES
  const rows = (layout: Layout, bytes: number, values: readonly object[] = []) =>
    values.map((row) => storeAll(layout, viewOf(new Uint8Array(bytes)), 0, row))
  return concat(...rows(HEARD, I.HEARD_BYTES, fields.heard), ...rows(SERVICE, I.SERVICE_BYTES, fields.services))
}

function blockBytes(block: Partial<ControlBlock> = {}): Uint8Array {
  return storeAll(BLOCK, viewOf(new Uint8Array(I.IPOS_BLOCK_BYTES)), 0, controlBlock(block))
}

function storeAll(layout: Layout, view: DataView, base: number, values: object): Uint8Array {
  const given = values as Readonly<Record<string, unknown>>
  for (const [name, field] of Object.entries(layout) as [string, Field<unknown>][]) {
    const value = given[name]
    if (value !== undefined) field.store(view, base, value)
  }
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength)
}

/** Makes the checksum of a frame right again after somebody has changed it. In place; the frame has a whole ipOS header. */
export function resealIpos(frame: Uint8Array): Uint8Array {
  const packet = frame.subarray(14)
  const view = viewOf(packet)
  HEADER.checksum.store(view, 0, 0)
  HEADER.checksum.store(view, 0, internetChecksum(packet))
  return frame
}

// ── parser ──

/**
 * Decodes what follows the Ethernet header. Returns undefined for what cannot be decoded; why, and everything else that breaks a
 * rule, is added to `problems`. Never throws.
 */
export function parseIpos(packet: Uint8Array, problems: string[]): IposPacket | undefined {
  if (packet.length < I.IPOS_HEADER_BYTES) {
    problems.push(`ipOS packet of ${packet.length} bytes`)
    return undefined
  }
  if (internetChecksum(packet) !== 0) problems.push('ipOS checksum')
  const view = viewOf(packet)
  const header = loadAll(HEADER, view, 0)
  const kind = KIND_OF_TYPE.get(header.type)
  if (kind === undefined) {
    problems.push(`ipOS type 0x${header.type.toString(16)}`)
    return undefined
  }
  const { bytes, fields } = SHAPES[kind]
  const block = kind === 'connect' && header.protocol !== I.IPOS_UDP
  const least = block ? I.IPOS_CONNECT_TCP_BYTES : bytes
  if (packet.length < least) {
    problems.push(`ipOS ${kind} of ${packet.length} bytes, not ${least}`)
    return undefined
  }
  const values = {
    kind,
    ...header,
    ...loadAll(fields, view, 0),
    ...(block && { block: loadAll(BLOCK, view, I.IPOS_BLOCK) }),
  } as unknown as IposPacket
  const rest = new Rest(packet, bytes, problems)
  if (values.kind === 'data') values.packet = rest.takeIp()
  if (values.kind === 'release') values.packet = rest.take(values.packetBytes, 'packet')
  if (values.kind === 'application') values.data = rest.take(values.bytes, 'state')
  if (values.kind === 'state') {
    values.heard = rest.rows(HEARD, I.HEARD_BYTES, values.heardCount, 'heard')
    values.services = rest.rows(SERVICE, I.SERVICE_BYTES, values.serviceCount, 'services')
  }
  if (values.kind === 'connect' && values.block && values.block.version !== I.BLOCK_VERSION_VALUE) {
    problems.push(`control block version ${values.block.version}`)
  }
  return values
}

/** What follows the fixed fields of a packet; more is claimed than there is: a problem, and what there is. */
class Rest {
  readonly #packet: Uint8Array
  readonly #problems: string[]
  #at: number

  constructor(packet: Uint8Array, at: number, problems: string[]) {
    this.#packet = packet
    this.#at = at
    this.#problems = problems
  }

  take(bytes: number, what: string): Uint8Array {
    const piece = this.#packet.subarray(this.#at, this.#at + bytes)
    if (piece.length < bytes) this.#problems.push(`ipOS ${what} of ${bytes} bytes, ${piece.length} are there`)
    this.#at += piece.length
    return piece
  }

  /** An IP packet, whose own header says how long it is: the frame may be longer. */
  takeIp(): Uint8Array {
    const left = this.#packet.subarray(this.#at)
    if (left.length < 20) this.#problems.push(`ipOS data: an IP packet of ${left.length} bytes`)
    return left.length < 20 ? this.take(left.length, 'packet') : this.take(viewOf(left).getUint16(2), 'packet')
  }

  rows<L extends Layout>(layout: L, bytes: number, count: number, what: string): Values<L>[] {
    const piece = this.take(count * bytes, what)
    const view = viewOf(piece)
    return Array.from({ length: Math.floor(piece.length / bytes) }, (_, i) => loadAll(layout, view, i * bytes))
  }
}

function loadAll<L extends Layout>(layout: L, view: DataView, base: number): Values<L> {
  return Object.fromEntries(
    Object.entries(layout).map(([name, field]) => [name, field.load(view, base)]),
  ) as unknown as Values<L>
}

/** One line, without the Ethernet addresses. */
export function formatIpos(packet: IposPacket): string {
  const { kind, source, sourcePort, destination, thread, type, protocol, checksum: _, ...body } = packet
  const name = `${kind}${protocol === I.IPOS_UDP ? ' UDP' : protocol === I.IPOS_TCP ? ' TCP' : ''}`
  const show = (value: unknown): string => {
    if (value instanceof Uint8Array) return `(${value.length} bytes)`
    return typeof value === 'object' ? JSON.stringify(value) : String(value)
  }
  const values = Object.entries(body).map(([field, value]) => ` ${field} ${show(value)}`)
  return `ipOS 0x${type.toString(16).padStart(2, '0')} ${name} ${source}:${sourcePort} > ${destination} thread ${thread}${values.join('')}`
}
