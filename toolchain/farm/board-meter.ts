/** What a main board says of itself: measured in real time, in virtual time what is configured and nothing else. */
import { freemem, totalmem } from 'node:os'
import type { Board } from '../../emulator/board.ts'
import type { BoardState } from '../../host/driver/board-commands.ts'
import type { HostedProcess } from '../../host/process.ts'
import type { FarmConfig, ServerConfig } from '../config/farm-config.ts'

export interface BoardMeterOptions {
  readonly farm: FarmConfig
  readonly server: ServerConfig
  readonly board: Board
  /** Those of this board that run. */
  readonly processes: () => Iterable<HostedProcess>
}

export class BoardMeter {
  readonly #options: BoardMeterOptions
  /** MAC ports to clients, and what their links carry, bits a second; 0 = not known. */
  readonly #ports: readonly number[]
  readonly #rateBps: number
  #sent: { atNs: number; bytes: number }

  constructor(options: BoardMeterOptions) {
    this.#options = options
    const networks = new Map(options.farm.networks.map((network) => [network.name, network]))
    const clients = options.server.interfaces.filter(({ network }) => networks.get(network)?.kind !== 'hub')
    this.#ports = clients.map(({ port }) => port)
    const rates = clients.map(({ network }) => networks.get(network)?.wire.rateBps ?? 0)
    // With one link that has no limit there is none in all.
    this.#rateBps = rates.every((rate) => rate > 0) ? rates.reduce((sum, rate) => sum + rate, 0) : 0
    this.#sent = this.#count()
  }

  /** How the board is now, and has been since the last call. */
  measure(): BoardState | Promise<BoardState> {
    const { farm, server } = this.#options
    const known = farm.clock === 'virtual' ? this.#configured() : this.#measured()
    if (known instanceof Promise) return known.then((state) => ({ ...state, ...server.pinnedState }))
    return { ...known, ...server.pinnedState }
  }

  #configured(): BoardState {
    const total = kilo(this.#rateBps)
    return {
      cpuPermille: 0,
      memoryAvailableKib: 0,
      memoryTotalKib: 0,
      bandwidthAvailableKbit: total,
      bandwidthTotalKbit: total,
    }
  }

  async #measured(): Promise<BoardState> {
    const reports = await Promise.all([...this.#options.processes()].map((process) => process.report()))
    const busy = reports.reduce((sum, report) => sum + (report?.cpuPermille ?? 1000), 0)
    const before = this.#sent
    this.#sent = this.#count()
    const seconds = (this.#sent.atNs - before.atNs) / 1e9
    const sentBps = seconds > 0 ? ((this.#sent.bytes - before.bytes) * 8) / seconds : 0
    // The machine's memory is that of all its servers: each has its share.
    const servers = this.#options.farm.servers.length
    return {
      cpuPermille: Math.min(1000, busy),
      memoryAvailableKib: kibi(available() / servers),
      memoryTotalKib: kibi(totalmem() / servers),
      bandwidthAvailableKbit: kilo(Math.max(0, this.#rateBps - sentBps)),
      bandwidthTotalKbit: kilo(this.#rateBps),
    }
  }

  #count(): { atNs: number; bytes: number } {
    const { board } = this.#options
    const { ports } = board.statistics()
    return {
      atNs: board.hostClock.now(),
      bytes: this.#ports.reduce((sum, port) => sum + (ports[port]?.txBytes ?? 0), 0),
    }
  }
}

/** Bytes that this process may still use: a container may set it narrower limits than the machine has. */
function available(): number {
  const { availableMemory } = process as { availableMemory?: () => number }
  return availableMemory?.() ?? freemem()
}

/** As the fields of OP_BOARD_STATE hold it. */
function kilo(value: number): number {
  return Math.min(0xffffffff, Math.round(value / 1000))
}

function kibi(bytes: number): number {
  return Math.min(0xffffffff, Math.round(bytes / 1024))
}
