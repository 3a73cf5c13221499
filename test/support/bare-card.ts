import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import {
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
import { packageRoot } from '../../toolchain/package-root.ts'
import { type BootSettings, writeBoot } from './card-boot.ts'
import { formatAll } from './packets.ts'
import { type CardRecord, decodeRecord } from './records.ts'
import { sourceLayout } from './source-layout.ts'

export { DEFAULT_INTERFACES, type InterfaceSettings, type PeerSettings } from './card-boot.ts'
export * from './records.ts'

/**
 * The firmware alone on Node's WebAssembly, with the devices played by hand and the time in the test's hand: no emulator,
 * no fuel, no wire. What the firmware sees is what abi/registers.ts and abi/rings.ts promise, in their order.
 */

export interface CardSettings extends BootSettings {
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
    writeBoot(this.view, settings)
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
    const path = settings.firmware ?? process.env.INIC_FIRMWARE ?? join(packageRoot, 'build/release/firmware.wasm')
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
    const { offset, bytes } = sourceLayout(className).get(name) ?? { offset: -1, bytes: 0 }
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
