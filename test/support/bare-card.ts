import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
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
import {
  BOOT_BASE,
  DEFAULT_MEMORY_BYTES,
  DIRECTORY_BASE,
  DIRECTORY_COUNT,
  DIRECTORY_COUNTERS,
  DIRECTORY_ENTRIES,
  DIRECTORY_ENTRY_BASE,
  DIRECTORY_ENTRY_BYTES,
  DIRECTORY_STATE,
  NULL_GUARD_BYTES,
  REGISTER_BASE,
} from '../../abi/memory.ts'
import * as M from '../../abi/messages.ts'
import * as R from '../../abi/registers.ts'
import * as G from '../../abi/rings.ts'
import { formatAll, ipNumber, macBytes } from './packets.ts'
import { type CardRecord, decodeRecord } from './records.ts'

export * from './records.ts'

/**
 * The firmware alone on Node's WebAssembly, with the devices played by hand and the time in the test's hand: no emulator,
 * no fuel, no wire. What the firmware sees is what abi/registers.ts and abi/rings.ts promise, in their order.
 */

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

export interface CardSettings extends Partial<Record<SettingName, number>> {
  interfaces?: InterfaceSettings[]
  peers?: PeerSettings[]
  seed?: number
  memoryBytes?: number
  /** Milliseconds since power-on at the first poll. */
  startMs?: number
  /** Queue sets enabled at once, 0..15; default [0]. */
  sets?: number[]
  /** Firmware, default build/release/firmware.wasm; INIC_FIRMWARE names another. */
  firmware?: string
}

/** A frame that the card sent. */
export interface Captured {
  port: number
  timeNs: number
  frame: Uint8Array
}

/** Two LANs of 192.0.2.0/24 and 198.51.100.0/24 with a gateway each, and the hub. */
export const DEFAULT_INTERFACES: InterfaceSettings[] = [
  { address: '192.0.2.1', prefix: 24, gateway: '192.0.2.254', mac: '02:00:00:00:00:01' },
  { address: '198.51.100.1', prefix: 24, gateway: '198.51.100.254', mac: '02:00:00:00:00:02' },
  { hub: true, mac: '02:00:00:00:00:03' },
]

/** What this file needs of WebAssembly, which @types/node does not declare. */
interface Wasm {
  Memory: new (limits: { initial: number; maximum: number }) => { buffer: ArrayBuffer }
  Module: new (bytes: Uint8Array) => object
  Instance: new (module: object, imports: object) => { exports: unknown }
}
const wasm = (globalThis as unknown as { WebAssembly: Wasm }).WebAssembly

const NEVER = 0xffffffff
/** Polls without a step of time after which the firmware is taken to be stuck. */
const STUCK = 20000

interface Queue {
  available: number
  used: number
  enabled: boolean
  epoch: number
  bufferBytes: number
  pending: { bytes: Uint8Array; at: number }[]
  replenish: boolean
}

/** The project's root, whether this file runs from test/ or from dist/test/. */
export function projectRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(folder, 'asconfig.json'))) folder = dirname(folder)
  return folder
}

const modules = new Map<string, object>()

function firmwareModule(path: string): object {
  let module = modules.get(path)
  if (!module) {
    module = new wasm.Module(readFileSync(path))
    modules.set(path, module)
  }
  return module
}

export class BareCard {
  nowNs: number
  /** Time at which the firmware wants to run again; Infinity = only when something comes. */
  wakeNs = 0
  /** Frames that found no free receive descriptor. */
  receiveDropped = 0
  dmaDropped = 0
  polls = 0
  /** Most bytes that the DMA engine puts into one fetch buffer; less than the buffer, it cuts records in odd places. */
  fetchLimit = Number.POSITIVE_INFINITY
  readonly memory: Uint8Array
  readonly view: DataView
  private exports: { reset(): void; poll(irqs: number): number } & Record<string, (...values: number[]) => number>
  private readonly queues: Queue[] = []
  private readonly rxIndex = [0, 0, 0]
  private readonly txIndex = [0, 0, 0]
  private fetchIndex = 0
  private deliverIndex = 0
  private irqs = R.IRQ_LINK | R.IRQ_QUEUE
  private incoming: { port: number; frame: Uint8Array }[] = []
  private sent: Captured[] = []
  private delivered: CardRecord[] = []
  private open: Uint8Array[] = []
  private readonly guard: BigUint64Array

  constructor(settings: CardSettings = {}) {
    const memoryBytes = settings.memoryBytes ?? DEFAULT_MEMORY_BYTES
    const pages = memoryBytes / 65536
    const memory = new wasm.Memory({ initial: pages, maximum: pages })
    this.memory = new Uint8Array(memory.buffer)
    this.view = new DataView(memory.buffer)
    this.guard = new BigUint64Array(memory.buffer, 0, NULL_GUARD_BYTES / 8)
    this.nowNs = (settings.startMs ?? 0) * 1e6
    this.writeBoot(settings)
    this.set(R.SYS_ID, R.SYS_ID_VALUE)
    this.set(R.SYS_VERSION, R.SYS_VERSION_VALUE)
    this.set(R.SYS_MEMORY_BYTES, memoryBytes)
    for (let index = 0; index < G.QUEUE_COUNT; index++) {
      this.queues.push({
        available: 0,
        used: 0,
        enabled: false,
        epoch: 0,
        bufferBytes: 0,
        pending: [],
        replenish: true,
      })
    }
    const path = settings.firmware ?? process.env.INIC_FIRMWARE ?? join(projectRoot(), 'build/release/firmware.wasm')
    const instance = new wasm.Instance(firmwareModule(path), { env: { memory } })
    this.exports = instance.exports as BareCard['exports']
    this.writeTime()
    this.guarded(() => this.exports.reset())
    for (const set of settings.sets ?? [0]) this.enableSet(set)
    this.devices()
  }

  // ── network side ──

  /** Puts a frame on the wire into a port; the firmware sees it at the next poll. */
  receive(port: number, frame: Uint8Array): void {
    this.incoming.push({ port, frame })
  }

  /** One poll at this instant, then the devices. Returns the frames that left. */
  poll(): Captured[] {
    this.receiveFrames()
    this.writeTime()
    if (this.nowNs >= this.wakeNs) this.irqs |= R.IRQ_TIMER
    this.set(R.IRQ_PENDING, this.irqs)
    const irqs = this.irqs
    this.irqs = 0
    this.polls++
    const wakeUs = this.guarded(() => this.exports.poll(irqs)) >>> 0
    this.wakeNs = wakeUs === NEVER ? Number.POSITIVE_INFINITY : this.nowNs + wakeUs * 1000
    if (this.guard.some((word) => word !== 0n)) throw new Error('bus fault: the firmware stored into the null guard')
    this.devices()
    return this.takeFrames()
  }

  /** Polls until nothing is left to do at this instant. */
  run(): Captured[] {
    const frames: Captured[] = []
    for (let count = 0; ; count++) {
      if (count === STUCK) throw new Error(`${STUCK} polls without a step of time\n${formatAll(frames.slice(-20))}`)
      frames.push(...this.poll())
      if (this.wakeNs > this.nowNs && this.irqs === 0 && this.incoming.length === 0) return frames
    }
  }

  /** Lets time pass, waking the firmware when it asked for it. */
  advance(ms: number): Captured[] {
    const end = this.nowNs + Math.round(ms * 1e6)
    // Without a reason to run the firmware is not run: a wake time that it forgot to name must show.
    const frames = this.irqs !== 0 || this.incoming.length > 0 ? this.run() : []
    while (this.wakeNs <= end) {
      this.nowNs = Math.max(this.wakeNs, this.nowNs)
      frames.push(...this.run())
    }
    this.nowNs = end
    return frames
  }

  /** Lets `poll` run the firmware's polls from now on, over this card's memory. */
  replaceCpu(poll: (irqs: number) => number): void {
    this.exports = { ...this.exports, poll } as BareCard['exports']
  }

  get nowMs(): number {
    return this.nowNs / 1e6
  }

  /** Raises or cuts a port's link. */
  setLink(port: number, up: boolean): void {
    this.set(R.MAC_BLOCK + port * R.MAC_STRIDE + R.MAC_LINK, up ? 1 : 0)
    this.irqs |= R.IRQ_LINK
  }

  // ── main-board side ──

  /** Enables the four queues of a set, as a process that has started does. */
  enableSet(
    set: number,
    options: { receiveBuffers?: number; receiveBytes?: number; eventBuffers?: number } = {},
  ): void {
    const sizes = [0, 0, options.receiveBytes ?? 70000, M.EVENT_BYTES]
    const counts = [0, 0, options.receiveBuffers ?? 256, options.eventBuffers ?? 256]
    for (let kind = 0; kind < G.QUEUES_PER_SET; kind++) {
      const queue = this.queues[set * G.QUEUES_PER_SET + kind]!
      Object.assign(queue, { enabled: true, epoch: queue.epoch + 1, available: counts[kind], used: 0, pending: [] })
      queue.bufferBytes = sizes[kind]!
    }
    this.writeQueueStatus()
  }

  /** Disables the queues of a set, as the end of the process does. */
  disableSet(set: number): void {
    for (let kind = 0; kind < G.QUEUES_PER_SET; kind++) {
      const queue = this.queues[set * G.QUEUES_PER_SET + kind]!
      Object.assign(queue, { enabled: false, epoch: queue.epoch + 1, pending: [] })
    }
    this.writeQueueStatus()
  }

  /** Makes `count` more chains available on a queue that is not replenished by itself. */
  replenish(queue: number, count: number): void {
    this.queues[queue]!.available += count
    this.writeQueueStatus()
  }

  /** Whether a used chain comes back at once (the default). */
  setReplenish(queue: number, automatic: boolean): void {
    this.queues[queue]!.replenish = automatic
  }

  /** Hands the firmware one record on a host-to-card queue (set * QUEUES_PER_SET + QUEUE_CONTROL or QUEUE_TX). */
  command(queue: number, record: Uint8Array): void {
    const entry = this.queues[queue]!
    if (!entry.enabled) throw new Error(`queue ${queue} is not enabled`)
    entry.available++
    entry.pending.push({ bytes: record, at: 0 })
    this.fetch()
  }

  /** What the firmware delivered since the last call, in the order of its sequence numbers. */
  records(): CardRecord[] {
    const records = this.delivered
    this.delivered = []
    return records
  }

  /** Calls what test firmware exports besides reset and poll. */
  call(name: string, ...values: number[]): number {
    return this.guarded(() => this.exports[name]!(...values))
  }

  // ── looking from outside ──

  register(offset: number): number {
    return this.view.getUint32(REGISTER_BASE + offset, true)
  }

  /** A field of `class State` in firmware/state.ts. */
  state(field: string): number {
    return this.field('State', DIRECTORY_STATE, field)
  }

  /** A field of `class Counters` in firmware/state.ts. */
  counter(field: string): number {
    return this.field('Counters', DIRECTORY_COUNTERS, field)
  }

  private field(className: string, kind: number, name: string): number {
    const { offset, bytes } = stateLayout(className).get(name) ?? { offset: -1, bytes: 0 }
    if (offset < 0) throw new RangeError(`firmware/state.ts: class ${className} has no field ${name}`)
    const address = this.directory(kind) + offset
    return bytes === 8 ? Number(this.view.getBigUint64(address, true)) : this.view.getUint32(address, true)
  }

  /** Base of a table in the firmware directory (abi/memory.ts DIRECTORY_*). */
  directory(kind: number): number {
    const count = this.view.getUint32(DIRECTORY_BASE + DIRECTORY_COUNT, true)
    for (let i = 0; i < count; i++) {
      const entry = DIRECTORY_BASE + DIRECTORY_ENTRIES + i * DIRECTORY_ENTRY_BYTES
      if (this.view.getUint32(entry, true) === kind) return this.view.getUint32(entry + DIRECTORY_ENTRY_BASE, true)
    }
    throw new Error(`the firmware directory has no entry of kind ${kind}`)
  }

  /** All that the firmware has written to its console; nobody takes it away, so that it ends when the ring is full. */
  console(): string {
    const base = this.register(R.UART_BASE)
    return Buffer.from(this.memory.subarray(base, base + this.register(R.UART_HEAD))).toString('latin1')
  }

  /** The last trace entries, decoded as numbers. */
  trace(count = 16): string {
    const base = this.register(R.TRACE_BASE)
    const entries = this.register(R.TRACE_ENTRIES)
    const head = this.register(R.TRACE_HEAD)
    const lines: string[] = []
    for (let i = Math.max(0, head - Math.min(count, entries)); i < head; i++) {
      const entry = base + (i & (entries - 1)) * G.TRACE_ENTRY_BYTES
      const word = (at: number) => this.view.getUint32(entry + at, true)
      const hex = (value: number) => `0x${value.toString(16)}`
      lines.push(`  ${word(0)} ns event ${word(4) & 0xffff} a ${word(4) >>> 16} b ${hex(word(8))} c ${hex(word(12))}`)
    }
    return lines.join('\n')
  }

  // ── devices, in the order of abi/rings.ts ──

  private devices(): void {
    this.transmit()
    this.deliver()
    this.fetch()
    this.set(R.DMA_DROPPED, this.dmaDropped)
  }

  private transmit(): void {
    for (let port = 0; port < R.MAC_PORTS; port++) {
      const block = R.MAC_BLOCK + port * R.MAC_STRIDE
      const mask = this.register(block + R.MAC_TX_ENTRIES) - 1
      if (mask < 0) continue
      for (;;) {
        const descriptor = this.register(block + R.MAC_TX_BASE) + (this.txIndex[port]! & mask) * G.DESCRIPTOR_BYTES
        if (this.word(descriptor + G.DESCRIPTOR_OWNER) !== G.OWNER_DEVICE) break
        const bytes = this.word(descriptor + G.DESCRIPTOR_LENGTH)
        if (bytes < G.MAC_MINIMUM_FRAME || bytes > G.MAC_MAXIMUM_FRAME)
          throw new Error(`TX descriptor of ${bytes} bytes`)
        const address = this.word(descriptor + G.DESCRIPTOR_ADDRESS)
        this.sent.push({ port, timeNs: this.nowNs, frame: this.memory.slice(address, address + bytes) })
        this.view.setUint32(descriptor + G.DESCRIPTOR_OWNER, G.OWNER_FIRMWARE, true)
        this.txIndex[port]!++
      }
    }
  }

  private deliver(): void {
    const mask = this.register(R.DELIVER_ENTRIES) - 1
    while (mask >= 0) {
      const descriptor = this.register(R.DELIVER_BASE) + (this.deliverIndex & mask) * G.DESCRIPTOR_BYTES
      if (this.word(descriptor + G.DESCRIPTOR_OWNER) !== G.OWNER_DEVICE) return
      const info = this.word(descriptor + G.DESCRIPTOR_INFO)
      const address = this.word(descriptor + G.DESCRIPTOR_ADDRESS)
      if (((info & G.INFO_FIRST) !== 0) !== (this.open.length === 0))
        throw new Error('deliver ring: FIRST out of place')
      this.open.push(this.memory.slice(address, address + this.word(descriptor + G.DESCRIPTOR_LENGTH)))
      if (info & G.INFO_LAST) {
        this.deliverRecord(info & G.INFO_QUEUE_MASK, Buffer.concat(this.open))
        this.open = []
      }
      this.view.setUint32(descriptor + G.DESCRIPTOR_OWNER, G.OWNER_FIRMWARE, true)
      this.deliverIndex++
    }
  }

  private deliverRecord(index: number, record: Uint8Array): void {
    const queue = this.queues[index]!
    if (!queue.enabled || queue.used === queue.available) {
      this.dmaDropped++
      return
    }
    if (record.length > queue.bufferBytes) throw new Error(`record of ${record.length} bytes on queue ${index}`)
    queue.used++
    if (queue.replenish) queue.available++
    this.writeQueueStatus()
    this.delivered.push(decodeRecord(index, new Uint8Array(record)))
  }

  private fetch(): void {
    const mask = this.register(R.FETCH_ENTRIES) - 1
    if (mask < 0) return
    for (const [index, queue] of this.queues.entries()) {
      while (queue.pending.length > 0) {
        const descriptor = this.register(R.FETCH_BASE) + (this.fetchIndex & mask) * G.DESCRIPTOR_BYTES
        if (this.word(descriptor + G.DESCRIPTOR_OWNER) !== G.OWNER_DEVICE) return
        const record = queue.pending[0]!
        const capacity = Math.min(this.word(descriptor + G.DESCRIPTOR_LENGTH), this.fetchLimit)
        const piece = record.bytes.subarray(record.at, record.at + capacity)
        this.memory.set(piece, this.word(descriptor + G.DESCRIPTOR_ADDRESS))
        const first = record.at === 0 ? G.INFO_FIRST : 0
        record.at += piece.length
        const last = record.at === record.bytes.length ? G.INFO_LAST : 0
        if (last) queue.pending.shift()
        this.view.setUint32(descriptor + G.DESCRIPTOR_LENGTH, piece.length, true)
        this.view.setUint32(descriptor + G.DESCRIPTOR_INFO, index | first | last, true)
        this.view.setUint32(descriptor + G.DESCRIPTOR_OWNER, G.OWNER_FIRMWARE, true)
        this.fetchIndex++
        this.irqs |= R.IRQ_FETCH
      }
    }
  }

  private receiveFrames(): void {
    for (const { port, frame } of this.incoming) {
      const block = R.MAC_BLOCK + port * R.MAC_STRIDE
      const entries = this.register(block + R.MAC_RX_ENTRIES)
      const index = this.rxIndex[port]! & (entries - 1)
      const descriptor = this.register(block + R.MAC_RX_BASE) + index * G.DESCRIPTOR_BYTES
      const free = entries > 0 && this.word(descriptor + G.DESCRIPTOR_OWNER) === G.OWNER_DEVICE
      if (!free || frame.length > this.word(descriptor + G.DESCRIPTOR_LENGTH) || frame.length > G.MAC_MAXIMUM_FRAME) {
        this.receiveDropped++
        continue
      }
      this.memory.set(frame, this.word(descriptor + G.DESCRIPTOR_ADDRESS))
      this.view.setUint32(descriptor + G.DESCRIPTOR_LENGTH, frame.length, true)
      this.view.setUint32(descriptor + G.DESCRIPTOR_INFO, 0, true)
      this.view.setUint32(descriptor + G.DESCRIPTOR_OWNER, G.OWNER_FIRMWARE, true)
      this.rxIndex[port]!++
      this.irqs |= R.IRQ_MAC0 << port
    }
    this.incoming = []
  }

  private takeFrames(): Captured[] {
    const frames = this.sent
    this.sent = []
    return frames
  }

  private writeQueueStatus(): void {
    const base = this.register(R.QUEUE_STATUS_BASE)
    if (base === 0) return
    this.irqs |= R.IRQ_QUEUE
    for (const [index, queue] of this.queues.entries()) {
      const entry = base + index * G.QUEUE_STATUS_BYTES
      const state = queue.enabled ? G.QUEUE_STATE_ENABLED : G.QUEUE_STATE_DISABLED
      this.view.setUint32(entry + G.QUEUE_STATUS_AVAILABLE, queue.available, true)
      this.view.setUint32(entry + G.QUEUE_STATUS_STATE, state, true)
      this.view.setUint32(entry + G.QUEUE_STATUS_EPOCH, queue.epoch, true)
      this.view.setUint32(entry + G.QUEUE_STATUS_BUFFER_BYTES, queue.bufferBytes, true)
    }
  }

  private writeTime(): void {
    this.set(R.TIMER_NOW_LOW, this.nowNs % 0x100000000)
    this.set(R.TIMER_NOW_HIGH, Math.floor(this.nowNs / 0x100000000))
  }

  private writeBoot(settings: CardSettings): void {
    const boot = (offset: number, value: number) => this.view.setUint32(BOOT_BASE + offset, value, true)
    boot(BOOT_MAGIC, BOOT_MAGIC_VALUE)
    boot(BOOT_VERSION, BOOT_VERSION_VALUE)
    let seed = settings.seed ?? 1
    for (let i = 0; i < 32; i += 4) {
      seed = (Math.imul(seed, 0x915f77f5) + 0x1234567) >>> 0
      boot(BOOT_SEED + i, seed)
    }
    for (const [name, offset] of Object.entries(SETTINGS)) boot(offset, settings[name as SettingName] ?? 0)
    for (const [name, offset] of Object.entries(SETTINGS_FROM_0))
      boot(offset, (settings[name as SettingName] ?? -1) + 1)
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
      this.set(registers + R.MAC_ADDRESS_HIGH, mac.readUInt16BE(0))
      this.set(registers + R.MAC_ADDRESS_LOW, mac.readUInt32BE(2))
      this.set(registers + R.MAC_LINK, wanted.link === false ? 0 : 1)
    }
  }

  private guarded<T>(run: () => T): T {
    try {
      return run()
    } catch (cause) {
      const reason = this.register(R.SYS_PANIC)
      const detail = this.register(R.SYS_PANIC_DETAIL)
      const text = `the firmware trapped at ${this.nowMs} ms: panic ${reason}, detail ${detail} (0x${detail.toString(16)})`
      throw new Error(`${text}\n${(cause as Error).stack}\nlast trace entries:\n${this.trace()}`, { cause })
    }
  }

  private set(register: number, value: number): void {
    this.view.setUint32(REGISTER_BASE + register, value, true)
  }

  private word(address: number): number {
    return this.view.getUint32(address, true)
  }
}

// ── layout of State and Counters ──

const layouts = new Map<string, Map<string, { offset: number; bytes: number }>>()

/** Where the classes stand, with what they extend. */
const CLASS_SOURCES: Readonly<Record<string, string>> = {
  Hal: 'firmware/hal/state.ts',
  HalCounters: 'firmware/hal/state.ts',
  State: 'firmware/state.ts',
  Counters: 'firmware/state.ts',
}

/** Offsets of an @unmanaged class of plain numbers, read from its source: its base's fields, then its own, naturally aligned. */
function stateLayout(className: string): Map<string, { offset: number; bytes: number }> {
  let layout = layouts.get(className)
  if (layout) return layout
  const source = readFileSync(join(projectRoot(), CLASS_SOURCES[className]!), 'utf8')
  const [, base, body = ''] = new RegExp(`class ${className}(?: extends (\\w+))? \\{([^}]*)\\}`).exec(source) ?? []
  layout = base === undefined ? new Map() : new Map(stateLayout(base))
  let end = Math.max(0, ...Array.from(layout.values(), ({ offset, bytes }) => offset + bytes))
  for (const [, name, bits] of body.matchAll(/^\s*(\w+): [iu](8|16|32|64);?/gm)) {
    const bytes = Number(bits) / 8
    const offset = (end + bytes - 1) & -bytes
    layout.set(name!, { offset, bytes })
    end = offset + bytes
  }
  layouts.set(className, layout)
  return layout
}
