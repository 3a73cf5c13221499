import type { HostClock } from '../abi/bus.ts'
import { CARVE_BASE, CONSTANTS_BASE } from '../abi/memory.ts'
import {
  IRQ_LINK,
  MAC_PORTS,
  SYS_ID,
  SYS_ID_VALUE,
  SYS_MEMORY_BYTES,
  SYS_READY,
  SYS_VERSION,
  SYS_VERSION_VALUE,
} from '../abi/registers.ts'
import { QUEUE_SETS } from '../abi/rings.ts'
import { CARD_OFF, CARD_RUNNING, CARD_STOPPED } from '../abi/virtio.ts'
import type { BoardHost, BoardOptions, BoardStatistics, Profile } from './board-contract.ts'
import { createBoardCpu, SLICE_LIMIT } from './board-cpu.ts'
import {
  BootError,
  type BootImage,
  type BootSettings,
  imageToBoot,
  TakeoverError,
  whyOtherLayout,
  writeBootInformation,
  writeUpdateInformation,
} from './boot.ts'
import { NO_TIME, wallNs } from './clock.ts'
import { type Cpu, CpuError, FUEL_PER_SLICE, POLL_HALTED, POLL_STOPPED, type SliceLimit } from './cpu/index.ts'
import { type CrashKind, type CrashReport, reportCrash } from './crash.ts'
import { BusMonitor } from './devices/bus-monitor.ts'
import { DmaEngine, type DmaHost } from './devices/dma.ts'
import type { Flash } from './devices/flash.ts'
import { FlashController } from './devices/flash-controller.ts'
import { InterruptController } from './devices/irq.ts'
import { MacPort, type ReceiveGate } from './devices/mac.ts'
import { hex, InicMemory } from './devices/memory.ts'
import type { QueueSet } from './devices/queue-set.ts'
import { Timer } from './devices/timer.ts'
import { readTrace, readTraceFrom, type TraceEntry, type TracePiece } from './devices/trace.ts'
import { Uart } from './devices/uart.ts'
import { Watchdog } from './devices/watchdog.ts'
import type { Alarm } from './link/link.ts'
import { type AttachedProcess, BoardClock, InterruptLine } from './process.ts'
import type { Supervisor } from './supervisor.ts'

export type { BoardHost, BoardOptions, BoardStatistics, Profile } from './board-contract.ts'
export {
  BootError,
  type BootImage,
  type BootLoader,
  type BootSettings,
  type InterfaceSettings,
  type PeerSettings,
  type PlacementWeights,
  type SourceLocation,
  type SourceResolver,
  TakeoverError,
} from './boot.ts'
export { type CrashReport, formatCrash } from './crash.ts'
export type { AttachedProcess } from './process.ts'

/** Largest main-board RAM of one process, bytes. */
const MAXIMUM_RAM_BYTES = 0x40000000
const RAM_PAGE_BYTES = 4096
/** Where firmware has its constants: what one that takes over from another writes. */
const CONSTANTS_RANGE = { start: CONSTANTS_BASE, end: CARVE_BASE }

/**
 * An INIC on its main board: wires CPU and devices, and runs slices.
 *
 *      begin ─ fetch, registers shown, poll ┄┄ slice ┄┄ finish ─ registers read, transmit, deliver, fetch, receive
 *
 * The farm decides when. Between `begin` and `finish` nothing but the CPU touches INIC memory.
 */
export class Board implements DmaHost, Alarm {
  readonly name: string
  /** MAC ports, for `farm.connect`. */
  readonly ports: readonly MacPort[]
  /** Clock of the host code that runs on this main board. */
  readonly hostClock: HostClock
  readonly clockHz: number
  /** CARD_*. */
  cardState: number = CARD_OFF
  /** Why the board stopped, or null. */
  crash: CrashReport | null = null
  /** True between `begin` and `finish`. */
  busy = false
  /** In mid-slice, by a debugger: until `proceed`. */
  halted = false
  /** True while the board waits in the farm's list of those that are ready; the farm's. */
  queued = false

  // The alarm that wakes the board; the farm's.
  slot = -1
  dueNs = Number.POSITIVE_INFINITY
  sequence = 0
  readonly precise = false

  slices = 0
  fuel = 0

  readonly #host: BoardHost
  readonly #options: BoardOptions
  readonly #irq: InterruptController
  readonly #timer: Timer
  readonly #watchdog = new Watchdog()
  readonly #uart: Uart
  readonly #flashController: FlashController
  readonly #dma: DmaEngine
  readonly #monitor = new BusMonitor()
  readonly #gate: ReceiveGate = { closed: false }
  /** By queue set. */
  readonly #lines: (InterruptLine | null)[] = new Array(QUEUE_SETS).fill(null)
  #cpu: Cpu | null = null
  /** What runs the next slice. The present one's `stored` and `fault` are asked for at the end of its last. */
  #nextCpu: Cpu | null = null
  #memory: InicMemory | null = null
  #image: BootImage | null = null
  /** What `#nextCpu` runs. */
  #nextImage: BootImage | null = null
  /** CPUs whose firmware was replaced in the midst of the present slice. */
  readonly #retired: Cpu[] = []
  /** New firmware has taken over, and had no slice yet. */
  #fresh = false
  /** First complaint of a device about what the firmware gave it. */
  #deviceFault: string | null = null
  #powerOns = 0
  #startNs = NO_TIME
  #delayUs = 0
  /** The firmware may have changed registers that it only reads: they are all shown again. */
  #showAll = true

  /** `number` is the board's place in its farm; addresses derive from it. */
  constructor(name: string, number: number, options: BoardOptions, host: BoardHost) {
    this.name = name
    this.clockHz = options.clockHz ?? 1e9
    if (!(this.clockHz >= 1e3))
      throw new RangeError(`Board ${name}: a clock of ${options.clockHz} Hz; at least 1000 is needed.`)
    this.#host = host
    this.#options = options
    this.hostClock = new BoardClock(host)
    const fault = (message: string) => this.#complain(message)
    this.#irq = new InterruptController(() => this.wake())
    this.#timer = new Timer(this.#irq)
    this.#uart = new Uart((line) => host.consoleLine(this, line), fault)
    this.#flashController = new FlashController(options.flash ?? null)
    this.#dma = new DmaEngine(this.#irq, this, fault)
    this.ports = Array.from({ length: MAC_PORTS }, (_, port) => {
      const address = options.macAddresses?.[port] ?? defaultMacAddress(number, port)
      if (address.length !== 6 || (address[0] & 1) !== 0)
        throw new RangeError(`Board ${name}, port ${port}: no unicast MAC address.`)
      return new MacPort(`${name}.${port}`, port, address, this.#irq, this.#gate, fault)
    })
  }

  /** Fuel that one slice may spend. */
  get fuelPerSlice(): number {
    return this.#options.fuelPerSlice ?? FUEL_PER_SLICE
  }

  /** In real time, where nobody asks what a slice has spent, the watchdog goes by processor time. */
  get sliceLimit(): SliceLimit | undefined {
    return this.#host.virtual ? undefined : SLICE_LIMIT
  }

  get flash(): Flash | null {
    return this.#options.flash ?? null
  }

  /** INIC memory for inspectors, or null before the first power-on; kept after a crash. Not to be written while the board runs. */
  get memory(): InicMemory | null {
    return this.#memory
  }

  /** What runs the firmware; null while the board is off. */
  get cpu(): Cpu | null {
    return this.#cpu
  }

  /** From the next slice on the firmware runs on `cpu`, which works on the same INIC memory. The CPU before is not disposed of. */
  changeCpu(cpu: Cpu): void {
    if (this.#cpu === null || cpu.memory !== this.#cpu.memory)
      throw new RangeError(`Board ${this.name}: a CPU with another memory cannot go on where this one is.`)
    this.#nextCpu = cpu
    if (!this.busy) this.#cpu = cpu
  }

  /** What is running, from the next slice on at the latest: from the boot loader, or the bytes given to `powerOn`. */
  get image(): BootImage | null {
    return this.#nextImage
  }

  /**
   * Update in service: from the next slice on `image` runs, over INIC memory as it is and without a reset. Only its constants are
   * written. Connections, rings and timers go on; the flash is left alone.
   *
   * Compile the firmware beforehand (`precompile`): making a CPU of it holds up the whole farm otherwise.
   *
   * @throws TakeoverError, with everything as it was: the board does not run, is halted or supervised, the firmware is none, or its state
   * layout is another one
   */
  replaceFirmware(image: BootImage): void {
    const obstacle = this.whyNoTakeover(image)
    if (obstacle !== undefined) throw new TakeoverError(`No firmware can take over on board ${this.name}: ${obstacle}.`)
    const cpu = this.#nextCpu!
    try {
      this.#nextCpu = cpu.successor!(image.wasm, CONSTANTS_RANGE)
    } catch (cause) {
      if (!(cause instanceof CpuError)) throw cause
      throw new TakeoverError(`No firmware can take over on board ${this.name}: ${cause.message}.`, { cause })
    }
    this.#retired.push(cpu)
    this.#nextImage = image
    this.#fresh = true
    if (!this.busy) this.#retire()
    // A slice now, whatever there is to do: what is wrong with it shows at once.
    this.wake()
  }

  /** Why `replaceFirmware` would refuse `image`, as far as that shows before it is compiled; undefined if nothing does. */
  whyNoTakeover(image: BootImage): string | undefined {
    if (this.cardState !== CARD_RUNNING) return this.crash === null ? 'it is off' : 'it has stopped'
    if (this.#deviceFault !== null) return 'it is about to stop'
    if (this.halted) return 'it is halted in mid-slice'
    if (this.#host.supervisor !== null) return 'a debugger or a recorder is attached, and counts on one firmware'
    if (this.#nextCpu!.successor === undefined) return 'it runs under a debugger'
    return whyOtherLayout(this.#nextImage!, image)
  }

  /** True once the firmware says that it serves (SYS_READY). */
  get serving(): boolean {
    return this.cardState === CARD_RUNNING && this.#memory!.register(SYS_READY) === 1
  }

  /**
   * Boots `wasm`, or what the boot loader finds in flash. Throws BootError if there is nothing to boot or the board is on;
   * firmware that stops in its reset leaves a crash report.
   */
  powerOn(options: { wasm?: Uint8Array; stateLayout?: string; boot?: BootSettings } = {}): void {
    if (this.cardState === CARD_RUNNING) throw new BootError(`Board ${this.name} is on already.`)
    const image = imageToBoot(this.name, this.#options, options)
    const cpu = createBoardCpu(this.name, this.#options, this.#host, image.wasm)
    const memory = new InicMemory(cpu.memory)
    try {
      writeBootInformation(memory.bytes, options.boot ?? this.#options.boot ?? {}, this.#seedBytes())
      writeUpdateInformation(memory.bytes, image)
    } catch (error) {
      cpu.dispose()
      throw error
    }
    this.#powerOns++
    this.#disposeCpus()
    this.#cpu = cpu
    this.#memory = memory
    this.#image = this.#nextImage = image
    this.crash = null
    this.#deviceFault = null
    this.#showAll = true
    this.slices = 0
    this.fuel = 0
    this.#start(memory, this.#host.now())
  }

  /** Switches the card off; its processes see CARD_STOPPED. INIC memory is gone. */
  powerOff(): void {
    if (this.cardState === CARD_RUNNING) this.#stop()
    this.#disposeCpus()
    this.#cpu = this.#nextCpu = null
    this.#memory = null
  }

  /**
   * Gives a process RAM and a queue set; `shared` makes the RAM a SharedArrayBuffer. Throws RangeError when every queue set is
   * taken, or for a size that is no multiple of 4096 or above 1 GiB.
   */
  attachProcess(options: { ramBytes: number; shared?: boolean }): AttachedProcess {
    const { ramBytes, shared = false } = options
    if (
      !Number.isInteger(ramBytes) ||
      ramBytes <= 0 ||
      ramBytes > MAXIMUM_RAM_BYTES ||
      ramBytes % RAM_PAGE_BYTES !== 0
    ) {
      throw new RangeError(
        `Board ${this.name}: a process cannot have ${ramBytes} bytes of RAM; give it a multiple of ${RAM_PAGE_BYTES}, at most ${MAXIMUM_RAM_BYTES}.`,
      )
    }
    const set = this.#dma.attach(shared ? new SharedArrayBuffer(ramBytes) : new ArrayBuffer(ramBytes))
    this.#lines[set.index] = new InterruptLine(set, this.#host)
    return { set: set.index, bus: set }
  }

  /** Takes a process's queue set away: the firmware sees its queues disabled. Throws RangeError if `set` names none. */
  detachProcess(set: number): void {
    this.#dma.detach(set)
    this.#host.clearAlarm(this.#lines[set]!)
    this.#lines[set] = null
  }

  statistics(): BoardStatistics {
    return {
      slices: this.slices,
      fuel: this.fuel,
      ports: this.ports.map((port) => port.statistics()),
      dma: this.#dma.statistics(),
      interrupts: Object.fromEntries(this.#lines.flatMap((line) => (line === null ? [] : [[line.set, line.count]]))),
    }
  }

  /** The newest trace entries, oldest first. */
  trace(maximum: number): TraceEntry[] {
    return this.#memory === null ? [] : readTrace(this.#memory, this.#host.now() - this.#timer.powerOnNs, maximum)
  }

  /** Trace entries from number `from` on; 0 is the first since power-on. */
  traceFrom(from: number): TracePiece {
    if (this.#memory === null) return { entries: [], head: 0, lost: 0 }
    return readTraceFrom(this.#memory, this.#host.now() - this.#timer.powerOnNs, from)
  }

  // ── for the farm ──

  /** When the board wants to run without being interrupted, nanoseconds; Infinity = never. */
  get wakeNs(): number {
    if (this.cardState !== CARD_RUNNING) return Number.POSITIVE_INFINITY
    return Math.min(this.#timer.wakeNs, this.#watchdog.deadlineNs)
  }

  /** True if a slice at `nowNs` would have something to do. */
  pending(nowNs: number): boolean {
    if (this.cardState !== CARD_RUNNING) return false
    return this.#irq.active || nowNs >= this.wakeNs || this.#deviceFault !== null || this.#fresh
  }

  /** Something has come for the firmware. */
  wake(): void {
    if (!this.busy && !this.queued && this.cardState === CARD_RUNNING) this.#host.ready(this)
  }

  fire(): void {
    this.#host.due(this)
  }

  raise(line: InterruptLine): void {
    if (line.raised) return
    line.raised = true
    line.count++
    this.#host.supervisor?.interrupted(this, line.set)
    this.#host.interrupt(line)
  }

  interrupt(set: QueueSet): void {
    const line = this.#lines[set.index]
    if (line !== null) this.raise(line)
  }

  /** Begins a slice if there is anything to do; false if not. The slice lasts `cycles`; a board that is `halted` has not come to its end. */
  begin(nowNs: number): boolean {
    if (this.cardState !== CARD_RUNNING) return false
    if (this.#deviceFault !== null) {
      this.#stopWith('bus-fault', this.#deviceFault, nowNs)
      return false
    }
    const { profile } = this.#host
    const before = profile === null ? 0 : wallNs()
    this.busy = true
    this.#dma.fetch()
    if (!this.#irq.active && nowNs < this.wakeNs && !this.#fresh) {
      this.busy = false
      return false
    }
    this.#show(nowNs)
    const irqs = this.#irq.take()
    this.#gate.closed = true
    this.#startNs = nowNs
    const cpu = this.#nextCpu!
    this.#cpu = cpu
    this.#fresh = false
    if (this.#retired.length > 0) this.#retire()
    const { supervisor } = this.#host
    if (supervisor !== null) return this.#beginSupervised(supervisor, cpu, irqs, nowNs)
    if (profile === null) this.#delayUs = cpu.poll(irqs)
    else {
      const middle = wallNs()
      this.#delayUs = cpu.poll(irqs)
      profile.dmaNs += middle - before
      profile.firmwareNs += wallNs() - middle
      profile.slices++
    }
    this.slices++
    this.fuel += cpu.cycles
    return true
  }

  #beginSupervised(supervisor: Supervisor, cpu: Cpu, irqs: number, nowNs: number): true {
    supervisor.beforeSlice(this, irqs, nowNs)
    const delayUs = cpu.poll(irqs)
    if (delayUs === POLL_HALTED) {
      this.halted = true
      this.#host.halted(this)
    } else this.#endSlice(delayUs)
    return true
  }

  /** The firmware has returned from the call in which it was halted, with what `poll` gives; 0 for `reset`. */
  proceed(delayUs: number): void {
    this.halted = false
    this.#endSlice(delayUs)
  }

  #endSlice(delayUs: number): void {
    this.#delayUs = delayUs
    this.slices++
    this.fuel += this.#cpu!.cycles
    this.#host.supervisor?.afterSlice(this, delayUs === POLL_STOPPED)
  }

  /** Fuel spent by the slice; 0 if it was not counted. */
  get cycles(): number {
    return this.#cpu!.cycles
  }

  /** Ends the slice: what the firmware left in its rings leaves, and what waits comes in. */
  finish(nowNs: number): void {
    if (this.#delayUs === POLL_STOPPED) {
      this.#stopWith('trap', 'the CPU stopped', nowNs)
      return
    }
    if (!this.#settle(nowNs)) return
    this.#timer.sleep(this.#startNs, this.#delayUs)
    const { profile } = this.#host
    if (profile === null) this.#move(nowNs)
    else this.#moveProfiled(nowNs, profile)
    this.busy = false
  }

  #move(nowNs: number): void {
    for (let port = 0; port < MAC_PORTS; port++) this.ports[port].transmit(nowNs)
    this.#dma.deliver()
    this.#dma.fetch()
    this.#gate.closed = false
    for (let port = 0; port < MAC_PORTS; port++) this.ports[port].receive()
    this.#dma.publish()
  }

  #moveProfiled(nowNs: number, profile: Profile): void {
    const start = wallNs()
    for (let port = 0; port < MAC_PORTS; port++) this.ports[port].transmit(nowNs)
    const transmitted = wallNs()
    this.#dma.deliver()
    this.#dma.fetch()
    const fetched = wallNs()
    this.#gate.closed = false
    for (let port = 0; port < MAC_PORTS; port++) this.ports[port].receive()
    const received = wallNs()
    this.#dma.publish()
    const end = wallNs()
    profile.linkNs += transmitted - start + (received - fetched)
    profile.dmaNs += fetched - transmitted + (end - received)
  }

  // ── power ──

  /** The firmware before has run for the last time. */
  #retire(): void {
    this.#cpu = this.#nextCpu
    this.#image = this.#nextImage
    for (const cpu of this.#retired) cpu.dispose()
    this.#retired.length = 0
  }

  #disposeCpus(): void {
    if (this.#cpu !== null) this.#host.supervisor?.poweredOff(this)
    this.#cpu?.dispose()
    if (this.#fresh) this.#nextCpu?.dispose()
    this.#retire()
    this.#fresh = false
  }

  /** Other ones each time: what the firmware draws must not repeat, its incarnation on the hub and its secrets least of all. */
  #seedBytes(): Uint8Array {
    return this.#host.seedBytes(`board:${this.name}${this.#powerOns > 0 ? `:${this.#powerOns}` : ''}`)
  }

  #start(memory: InicMemory, nowNs: number): void {
    const { supervisor } = this.#host
    if (supervisor !== null) this.#cpu = supervisor.poweredOn(this, this.#cpu!)
    const cpu = this.#cpu!
    this.#nextCpu = cpu
    const guarded = cpu.kind === 'wasmtime' && process.platform === 'linux'
    this.#irq.powerOn(memory)
    this.#timer.powerOn(memory, nowNs)
    this.#watchdog.powerOn(memory)
    this.#uart.powerOn(memory)
    this.#flashController.powerOn(memory)
    this.#monitor.powerOn(memory, guarded)
    for (const port of this.ports) port.powerOn(memory)
    this.#dma.powerOn(memory)
    this.cardState = CARD_RUNNING
    // The state of the links is news to the firmware.
    this.#irq.raise(IRQ_LINK)
    this.#show(nowNs)
    this.#startNs = nowNs
    // What `reset` stored is read off the CPU that ran it, whichever the supervisor wants next.
    this.busy = true
    supervisor?.beforeSlice(this, undefined, nowNs)
    this.#delayUs = cpu.reset() ? 0 : POLL_STOPPED
    if (cpu.halted) {
      this.halted = true
      this.#host.halted(this)
      return
    }
    supervisor?.afterSlice(this, this.#delayUs === POLL_STOPPED)
    this.finish(nowNs)
    this.wake()
  }

  #stop(): void {
    this.#uart.drain()
    this.cardState = CARD_STOPPED
    this.busy = this.halted = false
    this.#gate.closed = false
    for (const port of this.ports) port.receiving = false
    this.#host.clearAlarm(this)
    this.#dma.stop()
  }

  #stopWith(kind: CrashKind, message: string, nowNs: number): void {
    const memory = this.#memory!
    // The last words are in the ring still.
    this.#uart.settle()
    this.#stop()
    this.crash = reportCrash({
      board: this.name,
      timeNs: nowNs - this.#timer.powerOnNs,
      memory,
      cpuFault: this.#cpu!.fault,
      kind,
      message,
      console: this.#uart.history(),
      resolveSource: this.#image?.resolveSource ?? null,
    })
    this.#host.supervisor?.crashed(this, this.crash)
    this.#host.crashed(this, this.crash)
  }

  // ── slice ──

  /** Before a poll: the registers that the firmware reads. */
  #show(nowNs: number): void {
    this.#timer.show(nowNs)
    if (this.#showAll) {
      const memory = this.#memory!
      memory.setRegister(SYS_ID, SYS_ID_VALUE)
      memory.setRegister(SYS_VERSION, SYS_VERSION_VALUE)
      memory.setRegister(SYS_MEMORY_BYTES, memory.length)
      this.#uart.show()
      this.#flashController.show()
      for (let port = 0; port < MAC_PORTS; port++) this.ports[port].show()
    } else {
      for (let port = 0; port < MAC_PORTS; port++) this.ports[port].showNews()
    }
    this.#dma.show()
  }

  /** After a poll: the registers that the firmware wrote. False if the board had to be stopped. */
  #settle(nowNs: number): boolean {
    const { stored } = this.#cpu!
    this.#showAll = stored
    if (stored) {
      this.#irq.settle()
      this.#uart.settle()
      for (let port = 0; port < MAC_PORTS; port++) this.ports[port].settle()
      this.#dma.settle()
      // The firmware waits for a flash command; it runs again at once.
      if (this.#flashController.settle()) this.#delayUs = 0
    }
    const address = this.#monitor.check(stored)
    if (address >= 0) this.#complain(`a store to ${hex(address)}, where nothing is mapped`)
    if (this.#deviceFault !== null) {
      this.#stopWith('bus-fault', this.#deviceFault, nowNs)
      return false
    }
    if (this.#watchdog.bites(nowNs)) {
      this.#stopWith('watchdog', `WATCHDOG_KICK did not change for ${this.#watchdog.timeoutMs} ms`, nowNs)
      return false
    }
    return true
  }

  #complain(message: string): void {
    this.#deviceFault ??= message
    this.wake()
  }
}

/** 02:49:4e, locally administered (IEEE 802 §8.4), then the board's number and the port's. */
function defaultMacAddress(board: number, port: number): Uint8Array {
  return Uint8Array.of(0x02, 0x49, 0x4e, board >>> 8, board & 0xff, port)
}
