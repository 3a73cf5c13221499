/**
 * A farm that runs: its boards booted, its applications started, its published ports open, its control socket listening.
 *
 *   start: flash ─▶ boards on ─▶ clock ─▶ firmware serves ─▶ applications ─▶ published ports ─▶ control socket
 *   stop:  the other way round
 */
import { EventEmitter } from 'node:events'
import { FETCH_ENTRIES } from '../../abi/registers.ts'
import { CARD_OFF, CARD_RUNNING } from '../../abi/virtio.ts'
import type { Board, CrashReport } from '../../emulator/board.ts'
import type { CpuKind } from '../../emulator/cpu/index.ts'
import { FarmRecorder } from '../../emulator/record/farm-recorder.ts'
import { RecordingFile } from '../../emulator/record/file.ts'
import { AGENT_RAM_BYTES, BoardAgent } from '../../host/board-agent.ts'
import { Driver } from '../../host/driver/driver.ts'
import { Gateway } from '../../host/gateway.ts'
import { createNet, type Net } from '../../host/net.ts'
import type { HostedProcess, ProcessExit } from '../../host/process.ts'
import { NO_REFERENCES } from '../../host/stack.ts'
import { formatIpv4 } from '../config/addresses.ts'
import { formatHost } from '../config/endpoints.ts'
import type { FarmConfig, PublishConfig, ServerConfig } from '../config/farm-config.ts'
import { findPublishTarget } from '../config/routing.ts'
import type { BoardStatus, FarmStatus } from '../control/protocol.ts'
import type { ControlHandler } from '../control/server.ts'
import { ControlServer, Handover } from '../control/server.ts'
import { FirmwareLibrary, notesOf } from '../debug/session/firmware.ts'
import { DebugSession } from '../debug/session/session.ts'
import { CommandError, errorCode, errorMessage, usageError } from '../errors.ts'
import { findSymbols } from '../firmware/find-symbols.ts'
import type { Symbols } from '../firmware/symbols.ts'
import { bootLoader, type SymbolFinder } from '../image/boot-loader.ts'
import { cardStateName } from '../inspect/names.ts'
import { knownProjects } from '../project.ts'
import type { FarmState } from '../state.ts'
import { endedWell, startApplication } from './applications.ts'
import { FarmAssembly } from './assembly.ts'
import { BoardMeter } from './board-meter.ts'
import { Captures } from './captures.ts'
import { Debugging } from './debugging.ts'
import { serversOnHub } from './directory.ts'
import { type DrainedBoard, Drains } from './drains.ts'
import { type LoadedImage, prepareFlash } from './firmware.ts'
import { Inspector } from './inspection.ts'
import { type PlayRequest, plugCapture, plugOutside } from './outside.ts'
import { describeFirmware, isOnTrial, Power } from './power.ts'
import { beginProfile } from './profiles.ts'
import { DEFAULT_DRAIN_TIMEOUT_MS, ServiceUpdates } from './service-updates.ts'
import { traceToSocket } from './traces.ts'
import { type UpdatedBoard, Updates } from './updates.ts'

export interface CaptureRequest {
  readonly path: string
  /** A network or link; undefined: every network. */
  readonly target: string | undefined
}

export interface SessionOptions {
  readonly config: FarmConfig
  readonly state: FarmState
  /** What the servers boot, by name. */
  readonly images: ReadonlyMap<string, LoadedImage>
  /** What gateway boards boot: ipOS, whatever the servers run. Undefined if nothing is published. */
  readonly gatewayImage: LoadedImage | undefined
  /** Write the image into every server's flash, whatever is there. */
  readonly forceImage: boolean
  /** Confirm firmware that is on trial once it serves and the programs of its server have started. */
  readonly confirm: boolean
  readonly cpu: CpuKind | undefined
  readonly captures: readonly CaptureRequest[]
  readonly plays: readonly PlayRequest[]
  /** Where to record what the servers' cards are given. */
  readonly recordTo?: string
}

interface SessionEvents {
  /** A line on a board's console, or one that an application wrote; `source` says whose. */
  console: [source: string, line: string]
  /** Something that a person may want to know. */
  remark: [line: string]
  crash: [board: Board, report: CrashReport]
  /** An application ended. */
  exit: [name: string, exit: ProcessExit]
}

/** A published port that is open. */
export interface PublishedPort {
  readonly config: PublishConfig
  readonly gateway: Gateway
}

/** How long an application may take to end when it is asked to. */
const STOP_GRACE_MS = 500
/** How often a main board looks how loaded it is. */
const MEASURE_PERIOD_NS = 500e6
/** RAM of the process that carries published connections. */
const GATEWAY_RAM_BYTES = 32 * 1024 * 1024

export class FarmSession extends EventEmitter<SessionEvents> {
  readonly assembly: FarmAssembly
  readonly inspector: Inspector
  readonly published: PublishedPort[] = []
  readonly debugging: Debugging
  /** Programs that ended with an error. */
  failedApplications = 0
  /** With the server of each. */
  readonly #applications = new Map<HostedProcess, string>()
  readonly #mainBoards = new Map<string, DrainedBoard>()
  readonly #drains: Drains
  readonly #power: Power
  readonly #updates: Updates
  readonly #serviceUpdates: ServiceUpdates
  #lastProcessId = 0
  /** Servers whose programs are being ended, to be started again. */
  readonly #ending = new Set<string>()
  readonly #options: SessionOptions
  readonly #findSymbols: SymbolFinder
  readonly #captures: Captures
  readonly #library: FirmwareLibrary
  readonly #boards = new Map<string, Board>()
  readonly #gatewayNets = new Map<string, Net>()
  #control: ControlServer | undefined
  #stopping: Promise<void> | undefined

  constructor(options: SessionOptions) {
    super()
    this.#options = options
    this.assembly = new FarmAssembly(options.config, options.cpu)
    this.#findSymbols = symbolFinder(options.config)
    this.#library = new FirmwareLibrary(knownProjects(options.config.servers.map(({ firmware }) => firmware)))
    const { farm, networks } = this.assembly
    this.inspector = new Inspector(this.#boards, farm.boards, farm.routers, this.#findSymbols)
    this.#drains = new Drains(options.config, this.#mainBoards)
    this.debugging = new Debugging({
      name: options.config.name,
      published: () => this.status().published.map(({ address, target }) => `http://${address} → ${target}`),
      openSession: () =>
        DebugSession.attach(farm, [...this.#boards.values()], {
          firmware: (wasm, description) => this.#library.find(wasm, description),
        }),
    })
    this.#power = new Power(this.assembly, {
      remark: (line) => this.emit('remark', line),
      stopApplications: (server) => this.#stopApplications(server),
      startApplications: (server) => {
        this.#startAgent(server)
        return this.#startApplications(server)
      },
    })
    this.#updates = new Updates(
      options.config.servers.map(({ name }) => name),
      (server) => this.#updatedBoard(server),
      (server) => this.#power.restart(server),
    )
    this.#serviceUpdates = new ServiceUpdates({
      assembly: this.assembly,
      updates: this.#updates,
      drains: this.#drains,
      findSymbols: this.#findSymbols,
      reader: (board) => this.inspector.reader(board),
    })
    this.#captures = new Captures(farm, networks, (line) => this.emit('remark', line))
    farm.on('console', (board, line) => this.emit('console', board.name, line))
    farm.on('crash', (board, report) => {
      if (this.#stopping === undefined) this.#power.crashed(board)
      this.emit('crash', board, report)
    })
  }

  /**
   * Brings everything up. If something fails, or `signal` says so, what was up already is taken down.
   *
   * @throws CommandError, or the signal's reason
   */
  async start(signal: AbortSignal): Promise<void> {
    const { config, state } = this.#options
    // First, so that a second farm with this state never opens the same flash.
    this.#control = await ControlServer.open(state, this.#handlers())
    try {
      for (const server of config.servers) await this.#addServer(server.name)
      const report = (line: string) => void this.emit('remark', line)
      await plugOutside(this.assembly, report)
      const plays = this.#options.plays.map((request) => plugCapture(this.assembly, request, report))
      for (const item of config.publish) this.assembly.gateway(this.#route(item).network)
      for (const { target, path } of this.#options.captures) this.#captures.toFile(target, path)
      if (this.#options.recordTo !== undefined) this.#record(this.#options.recordTo)
      this.#power.switchOn()
      const ipos = this.#options.gatewayImage?.image.payload
      if (ipos !== undefined) for (const { board } of this.assembly.gateways.values()) board.powerOn({ wasm: ipos })
      if (config.clock === 'real') this.assembly.farm.start()
      await this.#power.untilServing(signal)
      for (const { name } of config.servers) this.#startAgent(name)
      for (const { name } of config.servers) {
        signal.throwIfAborted()
        await this.#startApplications(name)
      }
      this.#power.applicationsRun = true
      if (this.#options.confirm) await this.#confirmTrials()
      for (const item of config.publish) await this.#publish(item)
      signal.throwIfAborted()
      for (const play of plays) play.start()
    } catch (error) {
      await this.stop()
      throw error
    }
  }

  /** Takes everything down; a second call waits for the first. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop()
    return this.#stopping
  }

  /** True if every server's board has stopped, for good. */
  get allStopped(): boolean {
    const { servers } = this.assembly
    return [...servers].every(([name, { board }]) => board.crash !== null && !this.#power.isRestarting(name))
  }

  /** Programs that have not ended. */
  get applicationCount(): number {
    return this.#applications.size
  }

  status(): FarmStatus {
    const { config, farm, networks } = this.assembly
    return {
      name: config.name,
      pid: process.pid,
      uptimeSeconds: farm.now() / 1e9,
      servers: config.servers.map((server) => this.#boardStatus(server.name)),
      routers: config.routers.map(({ name, isp, interfaces }) => ({
        name,
        isp,
        addresses: interfaces.map(({ address }) => formatIpv4(address.address)),
      })),
      networks: [...networks.keys()],
      links: [...farm.cables.keys()],
      published: this.published.map(({ config: { server, serverPort }, gateway }) => {
        const { address, port } = gateway.address
        return { address: `${formatHost(address)}:${port}`, target: `${server}:${serverPort}` }
      }),
    }
  }

  async #addServer(name: string): Promise<void> {
    const { config, state, images, forceImage } = this.#options
    const server = config.servers.find((candidate) => candidate.name === name)!
    const { flash, remark } = await prepareFlash(state, server, images.get(name)!, forceImage)
    if (remark !== undefined) this.emit('remark', remark)
    const { board } = this.assembly.addServer(server, flash, bootLoader(this.#findSymbols))
    this.assembly.farm.own({ close: () => flash.close() })
    this.#boards.set(name, board)
  }

  #record(path: string): void {
    const { farm } = this.assembly
    const servers = new Set<Board>(this.#boards.values())
    try {
      const file = new RecordingFile(path, (module) => notesOf(this.#library.find(module, '')))
      const recorder = new FarmRecorder(farm, file.recorder, (board) => servers.has(board))
      farm.own({
        close() {
          recorder.close()
          file.close()
        },
      })
    } catch (error) {
      throw new CommandError(`${path} cannot be written: ${errorMessage(error)}`)
    }
  }

  /** Each main board whose card listens tells it how loaded it is, and whether it takes anything new. */
  #startAgent(name: string): void {
    const { config: farm, servers } = this.assembly
    const { config: server, board } = servers.get(name)!
    if (this.#mainBoards.has(name) || !servesProcesses(board)) return
    const processes = () => this.#processesOf(server.name)
    const meter = new BoardMeter({ farm, server, board, processes })
    const agent = new BoardAgent(board.attachProcess({ ramBytes: AGENT_RAM_BYTES }).bus, {
      clock: board.hostClock,
      ...(farm.clock === 'real' && { periodNs: MEASURE_PERIOD_NS }),
      measure: () => meter.measure(),
      onFault: (error) => this.emit('remark', `${server.name}: ${error.message}`),
    })
    this.#mainBoards.set(server.name, { agent, processes, runs: () => board.cardState === CARD_RUNNING })
  }

  #processesOf(server: string): HostedProcess[] {
    return [...this.#applications].filter(([, name]) => name === server).map(([process]) => process)
  }

  async #startApplications(name: string): Promise<void> {
    const { config, servers, farm } = this.assembly
    const { config: server, board } = servers.get(name)!
    const hosts = Object.fromEntries(config.servers.map((item) => [item.name, addressesOf(item)[0]]))
    const targets = serversOnHub(config, server)
    for (const application of server.applications) {
      const processId = ++this.#lastProcessId
      if (board.cardState !== CARD_RUNNING) continue
      if (!servesProcesses(board)) {
        this.emit('remark', `${server.name}: its firmware has no sockets, so '${application.name}' is not started`)
        continue
      }
      const random = farm.randomStream(`program:${server.name}/${application.name}`)
      const onLine = (source: string, line: string) => this.emit('console', source, line)
      const started = await startApplication({
        ...{ board, application, processId, hosts, servers: targets },
        ...{ random, onLine },
      })
      this.#applications.set(started, server.name)
      void started.exited.then((exit) => this.#onExit(started, exit))
    }
  }

  /** Firmware that serves, with its programs started, has passed its trial. */
  async #confirmTrials(): Promise<void> {
    const { farm, servers } = this.assembly
    for (const { board } of servers.values()) {
      if (!board.serving || !isOnTrial(board)) continue
      let settled = false
      const confirmed = this.#updates
        .confirm(board.name)
        .then((by) => {
          const how = by === 'firmware' ? '' : ', from outside: it takes no updates itself'
          this.emit('remark', `${board.name}: firmware ${board.image?.description} serves, and is confirmed${how}`)
        })
        .catch((error: Error) => this.emit('remark', `${board.name}: its firmware stays on trial: ${error.message}`))
        .finally(() => {
          settled = true
        })
      if (farm.virtual) await farm.run(() => settled)
      await confirmed
    }
  }

  #updatedBoard(server: string): UpdatedBoard | undefined {
    const board = this.assembly.servers.get(server)?.board
    const agent = this.#mainBoards.get(server)?.agent
    return board?.cardState === CARD_RUNNING ? { board, agent } : undefined
  }

  #onExit(application: HostedProcess, exit: ProcessExit): void {
    const server = this.#applications.get(application)
    this.#applications.delete(application)
    if (server !== undefined && this.#ending.has(server)) return
    if (!endedWell(exit)) this.failedApplications++
    if (this.#stopping === undefined) this.emit('exit', application.name, exit)
  }

  /** Opens a port of this machine that leads, by the gateway board of its network, to a server's port. */
  async #publish(config: PublishConfig): Promise<void> {
    const { network, address } = this.#route(config)
    const { connect } = this.#gatewayNet(network)
    try {
      const target = { host: formatIpv4(address), port: config.serverPort }
      const gateway = await Gateway.open({ host: config.host, port: config.port, target, connect })
      this.published.push({ config, gateway })
    } catch (error) {
      throw publishError(config, error)
    }
  }

  #gatewayNet(network: string): Net {
    let net = this.#gatewayNets.get(network)
    if (net === undefined) {
      const { board } = this.assembly.gateway(network)
      const { bus } = board.attachProcess({ ramBytes: GATEWAY_RAM_BYTES })
      const driver = new Driver(bus, { onFault: (error) => this.emit('remark', `${board.name}: ${error.message}`) })
      net = createNet({ driver, clock: board.hostClock, hosts: new Map(), references: NO_REFERENCES })
      this.#gatewayNets.set(network, net)
    }
    return net
  }

  /** The network that a published port comes in by, and the address that it leads to. */
  #route(item: PublishConfig): { network: string; address: number } {
    const target = findPublishTarget(this.assembly.config, item)
    if ('message' in target) throw new Error(target.message) // the configuration was checked
    return target
  }

  #handlers(): ReadonlyMap<string, ControlHandler> {
    return new Map<string, ControlHandler>([
      ['status', () => this.status()],
      ['inspect', (params) => this.inspector.inspect(params)],
      ['read', (params) => this.inspector.read(params)],
      ['drain', ({ server, to }) => this.#drains.begin(String(server), to === undefined ? undefined : String(to))],
      ['undrain', ({ server }) => this.#drains.end(String(server))],
      [
        'flash',
        ({ server, image, permanent, boot, confirm }) =>
          this.#updates.begin(String(server), {
            image: image === undefined ? undefined : String(image),
            permanent: permanent === true,
            boot: boot === true,
            confirm: confirm === true,
          }),
      ],
      ['flashStatus', ({ server }) => this.#updates.status(String(server))],
      ['flashReport', ({ server }) => this.#updates.report(String(server))],
      ['flashConfirm', ({ server }) => this.#updates.confirm(String(server)).then((by) => ({ by }))],
      [
        'serviceUpdate',
        ({ server, image, drain, check, timeoutMs }) =>
          this.#serviceUpdates.begin(String(server), {
            image: String(image),
            drain: drain === true,
            check: check === true,
            timeoutMs: timeoutMs === undefined ? DEFAULT_DRAIN_TIMEOUT_MS : Number(timeoutMs),
          }),
      ],
      ['serviceUpdateStatus', ({ server }) => this.#serviceUpdates.status(String(server))],
      ['drainStatus', ({ server }) => this.#drains.status(String(server))],
      ['debug', (params) => this.debugging.handOver(params)],
      [
        'trace',
        ({ server }) => {
          const boards = this.#chosenBoards(optionalName(server))
          return new Handover({ format: 'json lines' }, (socket) => traceToSocket(boards, socket))
        },
      ],
      ['profile', (params) => beginProfile(this.#chosenBoards(optionalName(params.server)), params)],
      [
        'capture',
        (params) => {
          const target = String(params.target)
          this.#captures.check(target)
          return new Handover({ format: 'pcapng' }, (socket) => this.#captures.toSocket(target, socket))
        },
      ],
    ])
  }

  #chosenBoards(server: string | undefined): Board[] {
    if (server === undefined) return [...this.#boards.values()]
    const board = this.#boards.get(server)
    if (board === undefined)
      throw usageError(`there is no server '${server}'`, `there are: ${[...this.#boards.keys()].join(', ')}`)
    return [board]
  }

  #boardStatus(name: string): BoardStatus {
    const server = this.assembly.servers.get(name)
    const config = this.assembly.config.servers.find((candidate) => candidate.name === name)
    return {
      name,
      state: cardStateName(server?.board.cardState ?? CARD_OFF),
      firmware: server?.board.image ? describeFirmware(server.board) : undefined,
      addresses: config ? addressesOf(config) : [],
      applications: config ? config.applications.map((application) => application.name) : [],
    }
  }

  /** Ends the programs of a server, or all. */
  async #stopApplications(server?: string): Promise<void> {
    const { farm } = this.assembly
    const theirs = () => (server === undefined ? [...this.#applications.keys()] : this.#processesOf(server))
    if (server !== undefined) this.#ending.add(server)
    const stopped = Promise.all(theirs().map((application) => application.stop(STOP_GRACE_MS)))
    // Their last words take time, and virtual time passes only while the farm runs.
    if (farm.virtual) await farm.run(() => theirs().length === 0)
    await stopped
    if (server !== undefined) this.#ending.delete(server)
  }

  async #stop(): Promise<void> {
    await this.#control?.close()
    await Promise.all(this.published.map(({ gateway }) => gateway.close()))
    await this.#stopApplications()
    for (const { agent } of this.#mainBoards.values()) agent.close()
    for (const board of this.assembly.farm.boards.values()) board.powerOff()
    await this.assembly.farm.stop()
  }
}

function optionalName(name: unknown): string | undefined {
  return name === undefined ? undefined : String(name)
}

function addressesOf(server: ServerConfig): string[] {
  return server.interfaces.flatMap(({ address }) => (address === undefined ? [] : [formatIpv4(address.address)]))
}

/** True if the firmware takes commands of processes: it has given the DMA engine a ring for them (abi/rings.ts). */
function servesProcesses(board: Board): boolean {
  return board.cardState === CARD_RUNNING && board.memory!.register(FETCH_ENTRIES) !== 0
}

/** Symbols from the firmware projects of the farm, of the one that the command is run in, or of ipOS; looked for once for each module. */
function symbolFinder({ servers }: FarmConfig): SymbolFinder {
  const projects = knownProjects(servers.map(({ firmware }) => firmware))
  const known = new WeakMap<Uint8Array, { readonly symbols: Symbols | undefined }>()
  return (wasm) => {
    const found = known.get(wasm) ?? { symbols: findSymbols(wasm, projects) }
    known.set(wasm, found)
    return found.symbols
  }
}

function publishError(config: PublishConfig, error: unknown): CommandError {
  const place = `${formatHost(config.host)}:${config.port}`
  const reasons: Record<string, [string, string]> = {
    EADDRINUSE: [
      'another program listens there',
      `publish another port: --publish ${config.port + 1 || 8081}:${config.server}:${config.serverPort}`,
    ],
    EACCES: ['you may not', 'ports below 1024 need privileges; publish a higher one'],
    EADDRNOTAVAIL: ['this machine has no such address', 'use one of its own, or leave the address out for 127.0.0.1'],
    ENOTFOUND: ['there is no such name', 'give an address of this machine'],
  }
  const [reason, hint] = reasons[errorCode(error) ?? ''] ?? [errorMessage(error), undefined]
  return new CommandError(
    `port ${place} cannot be published: ${reason}`,
    hint === undefined ? { cause: error } : { hint, cause: error },
  )
}
