import type net from 'node:net'
import { IPOS_ACKNOWLEDGE, IPOS_CONNECT, IPOS_TYPE } from '../abi/ipos.ts'
import type { Board } from '../emulator/board.ts'
import type { FrameSink } from '../emulator/link/link.ts'
import type { WireOptions } from '../emulator/link/wire.ts'
import type { RandomStream } from '../emulator/random.ts'
import type { FarmFirmware } from '../toolchain/testing/firmware.ts'
import { VirtualFarm } from '../toolchain/testing/virtual-farm.ts'
import type { VirtualNode } from '../toolchain/testing/virtual-node.ts'
import { median } from './statistics.ts'

/**
 * Blackout of a live migration, in virtual time at 1 GHz: how much longer than usual the client waits for the next segment when the connection
 * moves. A program on the main board writes a byte every microsecond; the connection goes round the servers.
 */

const PORT = 80
const WRITE_NS = 1000
/** Between two moves: at least this, and at most as much again. */
const PAUSE_NS = 100_000
/** 10 Gbit/s and a microsecond, each way, between any board and its switch. */
const WIRE: WireOptions = { rateBps: 10e9, delayNs: 1000 }
const SEED = 'blackout'

export interface BlackoutOptions {
  readonly firmware: FarmFirmware
  readonly migrations: number
  /** Virtual time from an interrupt to the driver's handler, nanoseconds; host code itself takes none. */
  readonly hostLatencyNs: number
  /** Default 2: to and fro. */
  readonly servers?: number
  /** False: the program writes nothing, so that a slice that has to do with the control block has to do with nothing else. Default true. */
  readonly writes?: boolean
}

/** Nanoseconds of virtual time, ascending, one a migration but for the spacing. */
export interface BlackoutFigures {
  /** Between two segments of one server: the median, which is what a blackout is beyond. NaN if nothing is written. */
  readonly spacingNs: number
  /** From the old server's last segment to the new one's first, as they come to the client's port. */
  readonly blackoutNs: readonly number[]
  /** The whole slice that sends the control block. */
  readonly giveNs: readonly number[]
  /** The whole slice that builds the endpoint from it and acknowledges. */
  readonly takeNs: readonly number[]
}

/** Offsets in a frame with 14 bytes of Ethernet and an IPv4 header without options. */
const ETHERNET_BYTES = 14
const IP_TOTAL = 16
const TCP_SEQUENCE = 38
const TCP_OFFSET = 46
const TCP_AT = 34
const MAC_SOURCE = 6

/** Measures. Throws Error if the client gets another byte than is its turn, or the connection breaks. */
export async function measureBlackout(options: BlackoutOptions): Promise<BlackoutFigures> {
  const { firmware, migrations, hostLatencyNs, servers = 2, writes = true } = options
  const farm = new VirtualFarm(firmware, {
    servers,
    clients: 1,
    seed: SEED,
    countFuel: true,
    hostLatencyNs,
    lan: WIRE,
    hub: WIRE,
  })
  try {
    const run = new Run(farm, migrations, writes)
    await run.toEnd()
    return run.figures()
  } finally {
    await farm.close()
  }
}

class Run {
  readonly #farm: VirtualFarm
  readonly #migrations: number
  readonly #writes: boolean
  readonly #random: RandomStream
  #begun = 0
  #arrived = 0
  #received = 0
  #failure: Error | null = null
  // What was seen on the wires.
  readonly #segments = new Segments()
  readonly #giveNs: number[] = []
  readonly #takeNs: number[] = []

  constructor(farm: VirtualFarm, migrations: number, writes: boolean) {
    this.#farm = farm
    this.#migrations = migrations
    this.#writes = writes
    this.#random = farm.farm.randomStream('moves')
    const [client] = farm.clients
    for (const cable of client.cables) cable.impair(WIRE)
    client.cables[0].capture(this.#segments, 'backward')
    for (const { board, cables } of farm.servers) cables[1].capture(this.#hubTap(board), 'forward')
  }

  async toEnd(): Promise<void> {
    const farm = this.#farm
    await farm.settle()
    for (const node of farm.servers) this.#serve(node)
    await farm.settle()
    const socket = farm.client().net.connect({ host: farm.server(1).address, port: PORT })
    socket.on('connect', () => socket.write('go'))
    socket.on('data', (data) => this.#check(data))
    socket.on('close', () => this.#fail(new Error('the connection was closed')))
    socket.on('error', (error) => this.#fail(error))
    await farm.farm.run(() => this.#arrived === this.#migrations || this.#failure !== null)
    // The last of them is over with a segment from there.
    await farm.run(1)
    if (this.#failure !== null) throw this.#failure
  }

  figures(): BlackoutFigures {
    const { gaps, blackouts } = this.#segments
    const ascending = (values: number[]) => values.sort((a, b) => a - b)
    return {
      spacingNs: gaps.length > 0 ? median(gaps) : Number.NaN,
      blackoutNs: ascending(blackouts),
      giveNs: ascending(this.#giveNs),
      takeNs: ascending(this.#takeNs),
    }
  }

  #serve(node: VirtualNode): void {
    const server = node.net.createServer({ noDelay: true })
    server.on('connection', (socket) => this.#program(node, socket, 0))
    server.on('migrate', (socket, n) => {
      this.#arrived++
      this.#program(node, socket, n as number)
    })
    server.listen(PORT)
  }

  /** The program: a byte now and every microsecond, and to the next server after a while. */
  #program(node: VirtualNode, socket: net.Socket, n: number): void {
    const { clock } = node.stack
    const { servers } = this.#farm
    const next = servers[(servers.indexOf(node) + 1) % servers.length]
    const leaveNs = clock.now() + PAUSE_NS + this.#random.below(PAUSE_NS)
    const stepNs = this.#writes ? WRITE_NS : PAUSE_NS
    socket.on('error', (error) => this.#fail(error))
    socket.resume()
    const turn = () => {
      if (this.#writes) socket.write(Uint8Array.of(n++))
      if (clock.now() < leaveNs || this.#begun === this.#migrations) clock.schedule(stepNs, turn)
      else {
        this.#begun++
        socket.migrate(next.name, n).catch((error) => this.#fail(error))
      }
    }
    turn()
  }

  #check(data: Buffer): void {
    for (const byte of data)
      if (byte !== (this.#received++ & 0xff)) this.#fail(new Error(`byte ${this.#received - 1} is ${byte}`))
  }

  #fail(error: Error): void {
    this.#failure ??= error
  }

  /** A frame leaves at the end of its slice. */
  #hubTap(board: Board): FrameSink {
    return {
      frame: (memory, offset) => {
        const type = memory[offset + ETHERNET_BYTES + IPOS_TYPE]
        const lengthNs = (board.cycles * 1e9) / board.clockHz
        if (type === IPOS_CONNECT) this.#giveNs.push(lengthNs)
        else if (type === IPOS_ACKNOWLEDGE) this.#takeNs.push(lengthNs)
      },
    }
  }
}

/** Stands before the client and notes when segments with new bytes come, and whether they are of the same server as the one before. */
class Segments implements FrameSink {
  readonly gaps: number[] = []
  readonly blackouts: number[] = []
  #lastNs = -1
  #lastMac = -1
  #end = 0

  frame(memory: Uint8Array, offset: number, length: number, nowNs: number): void {
    const view = new DataView(memory.buffer, memory.byteOffset + offset, length)
    if (view.getUint16(12) !== 0x0800) return
    const headers = TCP_AT - ETHERNET_BYTES + (view.getUint8(TCP_OFFSET) >>> 4) * 4
    const bytes = view.getUint16(IP_TOTAL) - headers
    const end = (view.getUint32(TCP_SEQUENCE) + bytes) | 0
    if (bytes <= 0 || (this.#lastNs >= 0 && ((end - this.#end) | 0) <= 0)) return
    const mac = view.getUint32(MAC_SOURCE + 2)
    if (this.#lastNs >= 0) (mac === this.#lastMac ? this.gaps : this.blackouts).push(nowNs - this.#lastNs)
    this.#lastNs = nowNs
    this.#lastMac = mac
    this.#end = end
  }
}
