/**
 * Updates in service: `inic update`. A new firmware takes over from the one that runs, and connections go on (docs/updating.md).
 *
 *   in place   write to flash, on trial ─▶ compile ─▶ swap at a slice boundary ─▶ watch
 *   drain      drain ─▶ wait until nothing hangs on the INIC ─▶ write to flash ─▶ restart ─▶ take connections again
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { DIRECTORY_FORWARDS, DIRECTORY_TCBS } from '../../abi/memory.ts'
import { TCP_CLOSED } from '../../abi/tcp.ts'
import { CARD_RUNNING } from '../../abi/virtio.ts'
import { type Board, type BootImage, TakeoverError } from '../../emulator/board.ts'
import { CpuError, precompile } from '../../emulator/cpu/index.ts'
import type { ServiceUpdateStatus } from '../control/protocol.ts'
import { CommandError, EXIT_BOARD, EXIT_FAILED, usageError } from '../errors.ts'
import { checkFirmware } from '../firmware/checks.ts'
import { WasmFormatError } from '../firmware/wasm-module.ts'
import { type SymbolFinder, sourceResolver } from '../image/boot-loader.ts'
import { loadImage } from '../image/files.ts'
import { readFlashStatus } from '../image/flash-status.ts'
import type { Image } from '../image/image.ts'
import { ImageError } from '../image/image-error.ts'
import { checkPolicy } from '../image/manifest.ts'
import { stateLayoutOf } from '../image/state-layout.ts'
import { formatVersion } from '../image/version.ts'
import type { InicMemoryReader } from '../inspect/inic-memory.ts'
import type { FarmAssembly } from './assembly.ts'
import { serversOnHub } from './directory.ts'
import type { Drains } from './drains.ts'
import { fail, isOver, type Mutable, type Updates } from './updates.ts'

/** How long connections may take to leave, if nothing else is said. */
export const DEFAULT_DRAIN_TIMEOUT_MS = 60_000

const POLL_MS = 25
/** For how long new firmware is watched after it has taken over. */
const WATCH_MS = 1000
/** For how long nothing may hang on an INIC before it is switched off: the last packets of connections that moved come in meanwhile. */
const QUIET_MS = 500

export interface ServiceUpdateRequest {
  /** Image file. */
  readonly image: string
  /** Drain and restart, even where the firmware could take over in place. */
  readonly drain: boolean
  /** Say which way it would go, and do nothing. */
  readonly check: boolean
  /** How long connections may take to leave. */
  readonly timeoutMs: number
}

export interface ServiceUpdateParts {
  readonly assembly: FarmAssembly
  readonly updates: Updates
  readonly drains: Drains
  readonly findSymbols: SymbolFinder
  /** Reads the tables of a board that has been switched on. */
  readonly reader: (board: Board) => InicMemoryReader | undefined
}

type Job = Mutable<ServiceUpdateStatus>

/** What hangs on an INIC. */
interface Burden {
  /** Connections that are served here. */
  readonly served: number
  /** Connections that came in by an address of this INIC, and are served elsewhere. */
  readonly forwarded: number
}

export class ServiceUpdates {
  readonly #parts: ServiceUpdateParts
  readonly #jobs = new Map<string, Job>()

  constructor(parts: ServiceUpdateParts) {
    this.#parts = parts
  }

  /** Chooses the way, begins, and gives the status at once; `status` tells how it goes on. @throws CommandError if it cannot be meant */
  async begin(server: string, request: ServiceUpdateRequest): Promise<ServiceUpdateStatus> {
    const board = this.#board(server)
    const running = this.#jobs.get(server)
    if (running !== undefined && running.stage !== 'done' && running.stage !== 'failed')
      throw new CommandError(`an update of ${server} is under way`, { hint: 'wait until it is over' })
    const { image } = await loadImage(request.image)
    checkImage(board, image)
    const job: Job = {
      server,
      version: formatVersion(image.version),
      ...this.#choose(board, image, request.drain),
      stage: 'writing',
      share: 0,
    }
    if (request.check) return { ...job, stage: 'done' }
    this.#jobs.set(server, job)
    void this.#run(job, board, image, request)
    return job
  }

  status(server: string): ServiceUpdateStatus {
    const job = this.#jobs.get(server)
    if (job === undefined) throw usageError(`no update in service of ${server} was begun`)
    return job
  }

  #choose(board: Board, image: Image, drain: boolean): Pick<ServiceUpdateStatus, 'way' | 'why' | 'hint'> {
    const { farm } = this.#parts.assembly
    if (farm.supervisor !== null) {
      return {
        way: 'none',
        why: 'a debugger or a recorder is attached, and counts on one firmware',
        hint: 'detach it, or run the farm without --record',
      }
    }
    const obstacle = board.whyNoTakeover(this.#bootImage(board, image))
    if (!drain && obstacle === undefined)
      return { way: 'in-place', why: 'the state layout is that of the firmware that runs' }
    const why = obstacle ?? 'as it was asked to'
    const against = this.#whyNoDrain(board)
    if (against === undefined) return { way: 'drain', why }
    return {
      way: 'none',
      why: obstacle === undefined ? against : `${obstacle}, and ${against}`,
      hint: `a restart cuts its connections: inic flash IMAGE --server ${board.name} --boot`,
    }
  }

  #whyNoDrain(board: Board): string | undefined {
    if (this.#others(board.name).length === 0)
      return 'there is no other server on a synchronization hub that could take its connections meanwhile'
    if (this.#parts.reader(board)?.knowsRows) return undefined
    return 'what its tables hold is not known, as its firmware was not built here'
  }

  async #run(job: Job, board: Board, image: Image, request: ServiceUpdateRequest): Promise<void> {
    const { server, way, why, hint } = job
    try {
      if (way === 'none') {
        throw new CommandError(`${server} cannot be updated in service: ${why}`, {
          exitCode: EXIT_FAILED,
          ...(hint !== undefined && { hint }),
        })
      }
      if (way === 'in-place') await this.#inPlace(job, board, image, request.image)
      else await this.#byDraining(job, board, request)
      job.share = 1
      job.stage = 'done'
    } catch (error) {
      fail(job, error)
    }
  }

  // ── in place ──

  async #inPlace(job: Job, board: Board, image: Image, path: string): Promise<void> {
    await this.#flash(job, path, false)
    const staged = readFlashStatus(board.flash!).secondary.image
    if (staged === undefined || Buffer.compare(staged.digest, image.digest) !== 0)
      throw new CommandError(`the image file was changed while ${job.server} was being flashed`)
    job.stage = 'taking over'
    const boot = this.#bootImage(board, image)
    try {
      await precompile(board.cpu!.kind, image.payload, board.sliceLimit)
      board.replaceFirmware(boot)
    } catch (error) {
      if (!(error instanceof TakeoverError || error instanceof CpuError)) throw error
      throw new CommandError(error.message, {
        hint: 'the firmware before goes on; the new one waits in flash, for the next power-on',
      })
    }
    const begin = performance.now()
    while (performance.now() - begin < WATCH_MS) {
      await sleep(POLL_MS)
      if (board.crash === null) continue
      const afterMs = Math.round(performance.now() - begin)
      throw new CommandError(
        `${job.server} has stopped ${afterMs} ms after version ${job.version} took over: ${board.crash.message}`,
        { exitCode: EXIT_BOARD, hint: 'start the farm anew: it tries the image once, and goes back to the one before' },
      )
    }
  }

  /** The image in the secondary slot, by driver and firmware; with `boot`, restarts the INIC with it and confirms it. */
  async #flash(job: Job, path: string, boot: boolean): Promise<void> {
    const { updates } = this.#parts
    let status = await updates.begin(job.server, { image: path, permanent: false, boot, confirm: boot })
    for (;;) {
      job.stage = status.stage === 'restarting' || status.stage === 'confirming' ? 'restarting' : 'writing'
      job.share = status.share
      if (isOver(status)) break
      await sleep(POLL_MS)
      status = updates.status(job.server)
    }
    if (status.error !== undefined) throw new CommandError(status.error.message, status.error)
  }

  // ── drain ──

  async #byDraining(job: Job, board: Board, { image, timeoutMs }: ServiceUpdateRequest): Promise<void> {
    const { drains } = this.#parts
    const { server } = job
    job.stage = 'draining'
    await drains.begin(server, undefined)
    try {
      await this.#untilFree(job, board, timeoutMs)
      await this.#flash(job, image, true)
    } finally {
      if (board.cardState === CARD_RUNNING) await drains.end(server)
    }
  }

  async #untilFree(job: Job, board: Board, timeoutMs: number): Promise<void> {
    const begin = performance.now()
    let quietSince = begin
    for (;;) {
      const { left } = await this.#parts.drains.status(job.server)
      const { served, forwarded } = this.#burden(board)
      const now = performance.now()
      job.left = Math.max(left, served) + forwarded
      if (job.left > 0) quietSince = now
      else if (now - quietSince >= QUIET_MS) return
      if (now - begin > timeoutMs) throw this.#stillBurdened(job.server, Math.max(left, served), forwarded, timeoutMs)
      await sleep(POLL_MS)
    }
  }

  #stillBurdened(server: string, served: number, forwarded: number, timeoutMs: number): CommandError {
    const what = [
      ...(served > 0 ? [`${connections(served)} that its programs keep`] : []),
      ...(forwarded > 0 ? [`${connections(forwarded)} that came in by its own address, and other servers serve`] : []),
    ]
    return new CommandError(
      `${server} was not restarted: after ${timeoutMs / 1000} s it had ${what.join(' and ')}, which a restart would cut`,
      { hint: 'it takes connections again; wait longer (--timeout), or have its clients come by another server' },
    )
  }

  #burden(board: Board): Burden {
    const reader = this.#parts.reader(board)
    if (reader === undefined) throw new CommandError(`the INIC of ${board.name} does not run`, { exitCode: EXIT_BOARD })
    const forwarding = ['FORWARDING', 'FORWARD_ASKING', 'FORWARD_RELEASING', 'FORWARD_LOST'].map((name) =>
      reader.constant(name),
    )
    let [served, forwarded] = [0, 0]
    for (const row of reader.rows(DIRECTORY_TCBS, 1)) if (row.number('state') !== TCP_CLOSED) served++
    for (const row of reader.rows(DIRECTORY_FORWARDS, 1)) if (forwarding.includes(row.number('kind'))) forwarded++
    return { served, forwarded }
  }

  // ── who ──

  #bootImage(board: Board, image: Image): BootImage {
    const symbols = this.#parts.findSymbols(image.payload)
    const stateLayout = stateLayoutOf(image)
    const update = board.image?.update
    return {
      wasm: image.payload,
      description: `${formatVersion(image.version)} (took over in service)`,
      ...(update && { update }),
      ...(stateLayout !== undefined && { stateLayout }),
      ...(symbols && { resolveSource: sourceResolver(symbols) }),
    }
  }

  /** Servers whose INICs run, and that connections of `server` can move to. */
  #others(server: string): string[] {
    const { config, servers } = this.#parts.assembly
    const own = servers.get(server)!.config
    return Object.keys(serversOnHub(config, own)).filter((name) => name !== server && servers.get(name)?.board.serving)
  }

  #board(server: string): Board {
    const { servers } = this.#parts.assembly
    const board = servers.get(server)?.board
    if (board === undefined)
      throw usageError(`the farm has no server '${server}'`, `it has: ${[...servers.keys()].join(', ')}`)
    if (board.cardState === CARD_RUNNING) return board
    throw new CommandError(`the INIC of ${server} does not run`, { exitCode: EXIT_BOARD })
  }
}

/** @throws CommandError for an image that the board would not boot, or that is no firmware */
function checkImage(board: Board, image: Image): void {
  if (board.flash === null) throw usageError(`${board.name} has no flash`)
  try {
    checkPolicy(image, readFlashStatus(board.flash).vault)
    const problems = checkFirmware(image.payload)
    if (problems.length > 0) throw usageError(`the image holds no firmware: ${problems.join('; ')}`)
  } catch (error) {
    if (error instanceof ImageError) throw usageError(`${board.name} would not boot it: ${error.message}`)
    if (error instanceof WasmFormatError) throw usageError(`the image holds no firmware: ${error.message}`)
    throw error
  }
}

function connections(count: number): string {
  return `${count} connection${count === 1 ? '' : 's'}`
}
