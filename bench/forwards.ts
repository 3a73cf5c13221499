import { FIRST_SPEAKER_CLIENT } from '../abi/messages.ts'
import type { ConnectionOwner, TcpConnection } from '../host/driver/connection.ts'
import type { ListenerOwner } from '../host/driver/listener.ts'
import type { FarmFirmware } from '../toolchain/testing/firmware.ts'
import { VirtualFarm } from '../toolchain/testing/virtual-farm.ts'
import type { VirtualNode } from '../toolchain/testing/virtual-node.ts'
import { HEADER_BYTES, ScriptedClients } from './clients.ts'
import { median } from './statistics.ts'

/**
 * What it costs to forward: many connections come in by one server and are served by another. Fuel, in virtual time: the same on any machine.
 */

const PORT = 80
const ENTRY = 0xc0000201
const FIRST_CLIENT = 0xc00002c8
const CLIENT_MAC = Uint8Array.of(2, 0, 0, 0, 0xc8, 0)
/** Connections that are opened at a time: their frames fit into the receive rings. */
const BATCH = 64
const SPARE = 1024
/** INIC memory of one connection, wherever it has rows, and of all else, bytes. */
const CONNECTION_BYTES = 900
const MEMORY_BYTES = 48 << 20
const PAGE_BYTES = 65536
/** Long enough for a packet to be forwarded and served, and for an acknowledgement that is put off to leave before the next, ms. */
const QUIET_MS = 50
const SMALL_BYTES = 64
const LARGE_BYTES = 1500
/** Packets that come in a row. */
export const BURST = 32
const REQUEST = Buffer.from('GET / HTTP/1.1\r\n\r\n')

export interface ForwardsOptions {
  readonly firmware: FarmFirmware
  readonly connections: number
  /** Packets that a figure is the median of. */
  readonly samples: number
}

/** Fuel a packet. */
export interface PacketCost {
  /** The packets are IP packets of so many bytes. */
  readonly bytes: number
  /** One at a time, everything included that the card does for it: the poll, and on the serving INIC the ACK and the main board's credit. */
  readonly entry: number
  readonly serving: number
  /** Of `BURST` that come in a row. */
  readonly entryBurst: number
  readonly servingBurst: number
}

export interface ForwardsFigures {
  readonly connections: number
  /** Fuel of the entry INIC for a packet of the nth connection that it forwards. */
  readonly byPlace: readonly { readonly place: number; readonly fuel: number }[]
  readonly packets: readonly PacketCost[]
}

/** Opens the connections and measures. Throws Error if one of them is not forwarded. */
export async function measureForwards({ firmware, connections, samples }: ForwardsOptions): Promise<ForwardsFigures> {
  const farm = new VirtualFarm(firmware, {
    servers: 2,
    clients: 0,
    seed: 'forwards',
    countFuel: true,
    memoryBytes: Math.ceil((MEMORY_BYTES + connections * CONNECTION_BYTES) / PAGE_BYTES) * PAGE_BYTES,
    boot: { forwardEntries: connections + SPARE, maximumConnections: connections + SPARE },
  })
  try {
    const bench = new Forwards(farm, connections)
    await bench.open()
    const places = [10, 1000, connections].filter((place) => place <= connections)
    const byPlace = []
    for (const place of places) byPlace.push({ place, fuel: await bench.median(place - 1, samples) })
    const packets = [await bench.packets(SMALL_BYTES, samples), await bench.packets(LARGE_BYTES, samples)]
    return { connections, byPlace, packets }
  } finally {
    await farm.close()
  }
}

class Forwards {
  readonly #farm: VirtualFarm
  readonly #count: number
  readonly #entry: VirtualNode
  readonly #serving: VirtualNode
  readonly #clients: ScriptedClients
  readonly #application = new Application()

  constructor(farm: VirtualFarm, count: number) {
    this.#farm = farm
    this.#count = count
    this.#entry = farm.server(1)
    this.#serving = farm.server(2)
    const lan = farm.farm.switches.get('lan')!
    const options = { mac: CLIENT_MAC, address: FIRST_CLIENT, server: ENTRY, port: PORT }
    this.#clients = new ScriptedClients(farm.farm, lan, count, REQUEST, options)
  }

  /** Opens every connection, in order: the nth is the nth that the entry INIC forwards. */
  async open(): Promise<void> {
    const clients = this.#clients
    this.#serving.stack.driver.listen(this.#application, {
      address: 0,
      port: PORT,
      backlog: 0,
      firstSpeaker: FIRST_SPEAKER_CLIENT,
      placeAfterMs: 0,
      options: 0,
    })
    await this.#farm.settle()
    clients.start()
    await this.#farm.until(() => clients.ready)
    for (let opened = 0; opened < this.#count; ) {
      const end = Math.min(opened + BATCH, this.#count)
      while (opened < end) clients.open(opened++)
      if (!(await this.#farm.until(() => this.#application.accepted === end, 100)))
        throw new Error(`${this.#application.accepted} of ${end} connections are served by the other server`)
    }
  }

  /** Fuel of the entry INIC for one packet of connection `n`, the median. */
  async median(n: number, samples: number): Promise<number> {
    return (await this.#samples(n, SMALL_BYTES, 1, samples)).entry
  }

  async packets(bytes: number, samples: number): Promise<PacketCost> {
    const one = await this.#samples(0, bytes, 1, samples)
    const many = await this.#samples(0, bytes, BURST, samples)
    return { bytes, ...one, entryBurst: many.entry, servingBurst: many.serving }
  }

  async #samples(
    n: number,
    bytes: number,
    burst: number,
    samples: number,
  ): Promise<{ entry: number; serving: number }> {
    const entry: number[] = []
    const serving: number[] = []
    for (let i = 0; i < samples; i++) {
      const before = { entry: this.#entry.board.fuel, serving: this.#serving.board.fuel }
      const received = this.#application.bytes
      const data = new Uint8Array(bytes - HEADER_BYTES)
      for (let packet = 0; packet < burst; packet++) this.#clients.send(n, data)
      await this.#farm.run(QUIET_MS)
      if (this.#application.bytes - received !== burst * data.length) throw new Error('a packet was not forwarded')
      entry.push((this.#entry.board.fuel - before.entry) / burst)
      serving.push((this.#serving.board.fuel - before.serving) / burst)
    }
    return { entry: median(entry), serving: median(serving) }
  }
}

/** Takes every connection and every byte. */
class Application implements ListenerOwner {
  accepted = 0
  bytes = 0

  onListening(): void {}

  onListenerLost(): void {}

  onArrival(connection: TcpConnection): void {
    this.onConnection(connection)
  }

  onConnection(connection: TcpConnection): void {
    this.accepted++
    connection.owner = this.#ownerOf(connection)
  }

  #ownerOf(connection: TcpConnection): ConnectionOwner {
    return {
      onConnected() {},
      onConnectFailed() {},
      onData: (data) => {
        this.bytes += data.length
        connection.consume(data.length)
      },
      onEnd() {},
      onRoom() {},
      onReset() {},
    }
  }
}
