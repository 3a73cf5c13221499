import type { BootSettings, InterfaceSettings } from '../../emulator/board.ts'
import type { CpuKind } from '../../emulator/cpu/index.ts'
import { Farm } from '../../emulator/farm.ts'
import type { Cable } from '../../emulator/link/cable.ts'
import type { Alarm, Port } from '../../emulator/link/link.ts'
import type { Switch } from '../../emulator/link/switch.ts'
import type { WireOptions } from '../../emulator/link/wire.ts'
import { formatIpv4, parseIpv4, parseIpv4Prefix } from '../config/addresses.ts'
import type { FarmFirmware } from './firmware.ts'
import { ExpectationError, type PortHost, TestPort } from './test-port.ts'
import { type CardHost, describeCrash, VirtualCard } from './virtual-card.ts'
import { VirtualNode } from './virtual-node.ts'

export interface LabOptions {
  /** Everything random follows from it. */
  readonly seed?: string
  /** Default 'auto': Wasmtime where the addon is. */
  readonly cpu?: CpuKind | 'auto'
  /** A slice lasts as long as its fuel, at 1 GHz, which needs Wasmtime. Default false: 1 µs. */
  readonly countFuel?: boolean
  /** From an interrupt to the driver's handler. Default 0. */
  readonly hostLatencyNs?: number
}

export interface CardOptions {
  readonly firmware: FarmFirmware
  /** Boot information: interfaces and settings (docs/datasheet.md). */
  readonly boot?: BootSettings
  /** INIC memory. Default 64 MiB. */
  readonly memoryBytes?: number
}

export interface HostOptions {
  /** Firmware with sockets: ipOS, or one that extends it. */
  readonly firmware: FarmFirmware
  /** Address of port 0 with its prefix length: '192.0.2.1/24'. */
  readonly address: string
  /** Router for other networks. */
  readonly gateway?: string
  readonly boot?: Omit<BootSettings, 'interfaces'>
  readonly memoryBytes?: number
  /** RAM of its process. Default 16 MiB. */
  readonly ramBytes?: number
}

/** A MAC port of a card, or a switch, which has a port for everything that is plugged into it. */
export type CableEnd = readonly [card: VirtualCard, port: number] | Switch

/** Cards, hosts and cables as a test wants them, in virtual time. Nothing passes but time that the test lets pass. */
export class VirtualLab implements CardHost, PortHost {
  /** The emulator's farm. */
  readonly farm: Farm
  /** By name. */
  readonly cards: ReadonlyMap<string, VirtualCard>
  readonly #cards = new Map<string, VirtualCard>()
  readonly #cables = new Map<VirtualCard, Cable[]>()
  readonly #ports = new Map<string, TestPort>()
  readonly #cpu: CpuKind | 'auto'
  /** One for each `wait` that has not ended: true once it can. */
  readonly #waiting = new Set<() => boolean>()
  /** The run of the farm that is under way. */
  #active: Promise<unknown> | null = null

  constructor(options: LabOptions = {}) {
    const { seed = 'farm', cpu = 'auto', countFuel = false, hostLatencyNs = 0 } = options
    this.#cpu = cpu
    this.cards = this.#cards
    this.farm = new Farm({ clock: 'virtual', seed, countFuel, hostLatencyNs })
    this.farm.on('console', ({ name }, line) => this.#cards.get(name)?.hear(line))
  }

  /** Virtual time, nanoseconds. */
  now(): number {
    return this.farm.now()
  }

  /** A card, switched on. @throws RangeError if the name is taken */
  addCard(name: string, { firmware, boot = {}, memoryBytes }: CardOptions): VirtualCard {
    const cables: Cable[] = []
    const board = this.#addBoard(name, firmware, memoryBytes)
    const card = this.register(new VirtualCard(name, board, firmware.layouts, this, cables), cables)
    board.powerOn({ wasm: firmware.wasm, boot })
    return card
  }

  /** A card with sockets and a process on its main board, switched on. @throws RangeError if the name is taken, or for an address that is none */
  addHost(name: string, options: HostOptions): VirtualNode {
    const { firmware, gateway, boot = {}, memoryBytes, ramBytes } = options
    const address = parseIpv4Prefix(options.address)
    if (address === undefined) throw new RangeError(`${options.address} is no IPv4 address with prefix length`)
    const via = gateway === undefined ? undefined : parseIpv4(gateway)
    if (gateway !== undefined && via === undefined) throw new RangeError(`${gateway} is no IPv4 address`)
    const port: InterfaceSettings = { ...address, ...(via !== undefined && { gateway: via }) }
    const cables: Cable[] = []
    const board = this.#addBoard(name, firmware, memoryBytes)
    const node = new VirtualNode(name, formatIpv4(address.address), board, firmware.layouts, this, cables)
    this.register(node, cables)
    const off = { enabled: false }
    board.powerOn({ wasm: firmware.wasm, boot: { ...boot, interfaces: [port, off, off] } })
    node.startProcess(ramBytes)
    return node
  }

  addSwitch(name: string): Switch {
    return this.farm.addSwitch(name)
  }

  /** Plugs a cable in at both ends. @throws RangeError if one has a cable */
  connect(a: CableEnd, b: CableEnd, wire?: WireOptions): Cable {
    const cable = this.farm.connect(this.#plug(a), this.#plug(b), wire === undefined ? {} : { wire })
    for (const end of [a, b]) if (isCardPort(end)) this.#cables.get(end[0])?.push(cable)
    return cable
  }

  /** A port of the test's own on a network: a station that hears what a switch sends to it. */
  station(network: Switch, name = `${network.name}.test${this.#ports.size}`): TestPort {
    const port = new TestPort(name, this)
    this.#ports.set(name, port)
    this.farm.connect(port, network.addPort(), { name: `${name}.cable` })
    return port
  }

  portOf(card: VirtualCard, port: number): TestPort {
    const end = card.board.ports[port]
    if (end === undefined) throw new RangeError(`${card.name} has no MAC port ${port}`)
    const name = `${card.name}.${port}`
    const known = this.#ports.get(name)
    if (known !== undefined) return known
    const made = new TestPort(name, this)
    const cable = this.farm.connect(end, made, { name: `${name}.test` })
    this.#ports.set(name, made)
    this.#cables.get(card)?.push(cable)
    return made
  }

  /** Lets so much virtual time pass. */
  async run(ms: number): Promise<unknown> {
    while (this.#active !== null) await this.#active
    return this.#run(() => this.farm.run(this.now() + ms * 1e6))
  }

  /** Lets time pass until the condition holds: true; false once `ms` are over. Cards that stop are no concern of it. */
  until(condition: () => boolean, ms = 10_000): Promise<boolean> {
    return this.#wait(condition, ms, () => false)
  }

  /** As `until`. @throws ExpectationError with the crash report when a card stops that the test has not expected to */
  async wait(condition: () => boolean, withinMs: number): Promise<boolean> {
    const crash = () => this.#crash()
    if (await this.#wait(condition, withinMs, () => crash() !== undefined)) return true
    const report = crash()
    if (report !== undefined) throw new ExpectationError(`The firmware stopped.\n${report}`)
    return false
  }

  /**
   * Lets time pass until a promise is settled, and gives what it gives: `await lab.settled(once(socket, 'data'))`.
   *
   * @throws what the promise throws; ExpectationError once `withinMs` are over, or when a card stops
   */
  async settled<T>(promise: Promise<T>, withinMs = 10_000): Promise<T> {
    let done = false
    const finish = () => {
      done = true
    }
    promise.then(finish, finish)
    if (!(await this.wait(() => done, withinMs))) throw new ExpectationError(`Not settled within ${withinMs} ms`)
    return promise
  }

  /** Stops the clock and switches everything off. */
  async close(): Promise<void> {
    await this.farm.stop()
    for (const board of this.farm.boards.values()) board.powerOff()
  }

  /** Keeps a card that a laboratory of another kind has made. */
  protected register<T extends VirtualCard>(card: T, cables: Cable[]): T {
    this.#cards.set(card.name, card)
    this.#cables.set(card, cables)
    return card
  }

  #addBoard(name: string, { resolveSource }: FarmFirmware, memoryBytes: number | undefined) {
    return this.farm.addBoard(name, {
      cpu: this.#cpu,
      ...(memoryBytes !== undefined && { memoryBytes }),
      ...(resolveSource !== undefined && { resolveSource }),
    })
  }

  #plug(plugged: CableEnd): Port {
    if (!isCardPort(plugged)) return plugged.addPort()
    const [card, port] = plugged
    const end = card.board.ports[port]
    if (end === undefined) throw new RangeError(`${card.name} has no MAC port ${port}`)
    return end
  }

  #crash(): string | undefined {
    for (const card of this.#cards.values())
      if (card.unexpectedCrash !== null) return describeCrash(card.unexpectedCrash)
    return undefined
  }

  async #wait(condition: () => boolean, ms: number, giveUp: () => boolean): Promise<boolean> {
    const deadline = new Deadline()
    this.farm.setAlarm(deadline, this.now() + ms * 1e6)
    const done = () => condition() || deadline.over || giveUp()
    this.#waiting.add(done)
    try {
      // Several waits share one run of the farm; whose condition holds leaves, and the others go on.
      while (!done())
        await (this.#active ?? this.#run(() => this.farm.run(() => [...this.#waiting].some((wait) => wait()))))
    } finally {
      this.#waiting.delete(done)
      this.farm.clearAlarm(deadline)
    }
    return condition()
  }

  #run(run: () => Promise<unknown>): Promise<unknown> {
    const active = run().finally(() => {
      this.#active = null
    })
    this.#active = active
    return active
  }
}

/** The end of a wait. */
class Deadline implements Alarm {
  slot = -1
  dueNs = Number.POSITIVE_INFINITY
  sequence = 0
  readonly precise = false
  over = false

  fire(): void {
    this.over = true
  }
}

function isCardPort(end: CableEnd): end is readonly [VirtualCard, number] {
  return Array.isArray(end)
}
