import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Board, CrashReport } from '../../emulator/board.ts'
import type { CpuKind } from '../../emulator/cpu/index.ts'
import { formatHost } from '../config/endpoints.ts'
import type { PublishConfig } from '../config/farm-config.ts'
import { loadFarm } from '../config/load-farm.ts'
import { publishedServer } from '../config/routing.ts'
import { CommandError } from '../errors.ts'
import { DEFAULT_IMAGE_PATH, loadImage, loadImages } from '../farm/firmware.ts'
import { FarmSession } from '../farm/session.ts'
import { buildFirmware } from '../firmware/build.ts'
import type { FieldValue } from '../firmware/layouts.ts'
import type { InicMemoryReader } from '../inspect/inic-memory.ts'
import { isProject } from '../project.ts'
import { FarmState } from '../state.ts'
import { readTable } from './virtual-card.ts'

/** How long programs may take until they listen. */
const LISTEN_TIMEOUT_MS = 30_000
const LISTEN_POLL_MS = 5

export interface RealFarmOptions {
  /** Default: Wasmtime where the addon is. */
  readonly cpu?: CpuKind
}

/** A line on a card's console, or one that a program wrote: `server1 | ...`, `server1/web | ...`. */
export interface FarmLine {
  readonly source: string
  readonly line: string
}

/** The farm of a farm file in real time, with its programs, for clients of this machine: `fetch`, curl, a browser. */
export class RealFarm {
  /** What cards and programs have written, oldest first. */
  readonly console: FarmLine[] = []
  readonly crashes: CrashReport[] = []
  readonly #session: FarmSession
  readonly #directory: string

  private constructor(session: FarmSession, directory: string) {
    this.#session = session
    this.#directory = directory
    session.on('console', (source, line) => this.console.push({ source, line }))
    session.on('crash', (_board: Board, report) => this.crashes.push(report))
  }

  /**
   * Builds the firmware projects of the farm, boots it from flash that is erased, starts its programs and opens its published ports, each at a
   * free port of 127.0.0.1, so that several farms may run at once. Resolves once somebody listens behind each of them.
   *
   * @throws CommandError for a farm file that cannot be meant, a compile error, a board that does not boot, a port on which nobody listens
   */
  static async start(farmFile: string, { cpu }: RealFarmOptions = {}): Promise<RealFarm> {
    const farm = await loadFarm(farmFile)
    const publish = farm.publish.map((item) => ({ ...item, host: '127.0.0.1', port: 0 }))
    const config = { ...farm, publish }
    for (const { firmware } of config.servers) {
      if (firmware !== undefined && isProject(firmware)) await buildFirmware({ directory: firmware, target: 'release' })
    }
    const images = await loadImages(config)
    const gatewayImage = publish.length > 0 ? await loadImage(DEFAULT_IMAGE_PATH) : undefined
    const directory = await mkdtemp(join(tmpdir(), 'inic-farm-'))
    const state = FarmState.of(config, directory)
    const session = new FarmSession({
      config,
      state,
      images,
      gatewayImage,
      confirm: true,
      forceImage: false,
      cpu,
      captures: [],
      plays: [],
    })
    const running = new RealFarm(session, directory)
    try {
      await session.start(new AbortController().signal)
      await running.#listening()
      return running
    } catch (error) {
      await running.stop()
      throw error
    }
  }

  /** Where a published port of a server is reached: `http://127.0.0.1:40123`. @throws RangeError if the farm file publishes no such port */
  url(server: string, port: number): string {
    const found = this.#session.published.find(
      ({ config }) => this.#nameOf(config) === server && config.serverPort === port,
    )
    if (found === undefined) throw new RangeError(`the farm file publishes no port ${port} of ${server}`)
    const { address, port: here } = found.gateway.address
    return `http://${formatHost(address)}:${here}`
  }

  /** Rows in use of a table in a server's card, by its class. @throws RangeError if there is no such server or table */
  table(server: string, className: string): Record<string, FieldValue>[] {
    const memory = this.#reader(server)
    if (memory === undefined) throw new RangeError(`the farm has no server ${server}`)
    return readTable(memory, className, server)
  }

  async #listening(): Promise<void> {
    const deadline = performance.now() + LISTEN_TIMEOUT_MS
    for (const { config } of this.#session.published) {
      const { serverPort } = config
      const name = this.#nameOf(config)
      while (!this.#listens(name, serverPort)) {
        if (performance.now() > deadline) {
          throw new CommandError(`${name}: nobody listens on port ${serverPort} after ${LISTEN_TIMEOUT_MS / 1000} s`)
        }
        await sleep(LISTEN_POLL_MS)
      }
    }
  }

  /** True if somebody listens on a server's port, as far as its firmware lets that be seen. */
  #listens(name: string, serverPort: number): boolean {
    const memory = this.#reader(name)
    if (memory?.entryOf('Listener') === undefined) return true
    return readTable(memory, 'Listener', name).some(({ port }) => port === serverPort)
  }

  /** A published port may name its server by an address. */
  #nameOf(config: PublishConfig): string {
    return publishedServer(this.#session.assembly.config, config)!.name
  }

  #reader(name: string): InicMemoryReader | undefined {
    const board = this.#session.assembly.servers.get(name)?.board
    return board && this.#session.inspector.reader(board)
  }

  async stop(): Promise<void> {
    await this.#session.stop()
    await rm(this.#directory, { recursive: true, force: true })
  }
}
