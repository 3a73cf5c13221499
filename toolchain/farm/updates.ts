/**
 * Updates of the firmware of servers that run: `inic flash` on a running farm. The image goes the way that any update agent's goes: by the
 * driver and its DMA to the INIC, whose firmware writes it into the secondary slot. Nothing is written to the flash behind the card's back.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { STATUS_EAGAIN, STATUS_EINVAL, STATUS_OK } from '../../abi/status.ts'
import type { Board } from '../../emulator/board.ts'
import type { BoardAgent } from '../../host/board-agent.ts'
import type { CardFlash, FlashAnswer } from '../../host/driver/flash.ts'
import { STATUS_ENETDOWN } from '../../host/status.ts'
import { suggest } from '../config/issues.ts'
import type { ServiceUpdateStatus, UpdateStatus } from '../control/protocol.ts'
import { CommandError, EXIT_BOARD, EXIT_FAILED, errorMessage, usageError } from '../errors.ts'
import { loadImage } from '../image/files.ts'
import { flashErrorText } from '../image/flash-access.ts'
import { flashMap } from '../image/flash-map.ts'
import { type FlashReport, readFlashStatus, reportFlash } from '../image/flash-status.ts'
import { ImageError } from '../image/image-error.ts'
import { checkPolicy } from '../image/manifest.ts'
import { requireSame, type SlotStep, stagingSteps, stepBytes } from '../image/slot.ts'
import { Slots } from '../image/swap.ts'
import { formatVersion } from '../image/version.ts'

/** How long firmware may take to answer a command. */
const ANSWER_TIMEOUT_MS = 5000
const CONFIRM_TIMEOUT_MS = 2000
/** Bytes between two answers of progress. */
const STEP_BYTES = 0x4000

/** A server, as far as an update has to do with it. */
export interface UpdatedBoard {
  readonly board: Board
  /** Undefined: its firmware has no sockets, and nobody talks to it. */
  readonly agent: BoardAgent | undefined
}

export interface UpdateRequest {
  /** Image file; undefined: what the secondary slot holds already. */
  readonly image: string | undefined
  /** Not on trial: the swap is not reverted. */
  readonly permanent: boolean
  /** Restart the card when the image is in its slot. */
  readonly boot: boolean
  /** Confirm it once it serves. */
  readonly confirm: boolean
}

/** A status that its update writes. */
export type Mutable<T> = { -readonly [K in keyof T]: T[K] }

export class Updates {
  readonly #find: (server: string) => UpdatedBoard | undefined
  readonly #servers: readonly string[]
  readonly #restart: (server: string) => Promise<void>
  readonly #jobs = new Map<string, Mutable<UpdateStatus>>()

  /**
   * @param find the server, if its INIC runs
   * @param restart switches the server's INIC off and on, and settles once it serves
   */
  constructor(
    servers: readonly string[],
    find: (server: string) => UpdatedBoard | undefined,
    restart: (server: string) => Promise<void>,
  ) {
    this.#servers = servers
    this.#find = find
    this.#restart = restart
  }

  /** Begins, and gives the status at once; `status` tells how it goes on. @throws CommandError if it cannot be meant */
  async begin(server: string, request: UpdateRequest): Promise<UpdateStatus> {
    const { board } = this.#board(server)
    const running = this.#jobs.get(server)
    if (running !== undefined && !isOver(running)) {
      throw new CommandError(`an update of ${server} is under way`, {
        exitCode: EXIT_FAILED,
        hint: 'wait until it is over',
      })
    }
    const job: Mutable<UpdateStatus> = { server, stage: 'writing', share: 0 }
    this.#jobs.set(server, job)
    try {
      const image = request.image === undefined ? undefined : await this.#load(server, board, request)
      if (image !== undefined) job.version = formatVersion(image.image.version)
      void this.#run(job, image?.steps, request)
    } catch (error) {
      this.#jobs.delete(server)
      throw error
    }
    return job
  }

  status(server: string): UpdateStatus {
    this.#name(server)
    const job = this.#jobs.get(server)
    if (job === undefined) throw usageError(`nothing is being flashed on ${server}`)
    return job
  }

  /** What is in a server's flash; read from outside, as an inspector does. */
  report(server: string): FlashReport {
    const { flash } = this.#board(server).board
    if (flash === null) throw usageError(`${server} has no flash`)
    return reportFlash(flash)
  }

  /**
   * Has the firmware confirm itself. For firmware that takes no updates it is done from outside, as with a programmer: it serves, and more cannot
   * be asked of it. Says who did it.
   *
   * @throws CommandError if it cannot be done
   */
  async confirm(server: string): Promise<'firmware' | 'outside'> {
    const { agent, board } = this.#board(server)
    const answer = agent && (await withinTime(agent.flash.confirm(), CONFIRM_TIMEOUT_MS))
    if (answer !== undefined) {
      expect(answer, server, 'confirming the image')
      return 'firmware'
    }
    if (board.flash !== null && board.serving) new Slots(board.flash, flashMap(board.flash.bytes)).confirm()
    return 'outside'
  }

  async #load(server: string, { flash }: Board, { image: path, permanent }: UpdateRequest) {
    if (flash === null) throw usageError(`${server} has no flash`)
    const { bytes, image, padding } = await loadImage(String(path))
    const status = readFlashStatus(flash)
    try {
      checkPolicy(image, status.vault)
    } catch (error) {
      if (!(error instanceof ImageError)) throw error
      throw usageError(`${server} would not boot it: ${error.message}`)
    }
    if (!status.confirmed) {
      throw usageError(
        `${server} runs an image on trial, and the slot holds what it would go back to`,
        `confirm it first: inic flash --confirm --server ${server}`,
      )
    }
    const steps = stagingSteps(bytes, flashMap(flash.bytes).secondary, permanent || padding?.confirmed === true)
    return { image, steps }
  }

  async #run(
    job: Mutable<UpdateStatus>,
    steps: readonly SlotStep[] | undefined,
    request: UpdateRequest,
  ): Promise<void> {
    const { server } = job
    try {
      if (steps !== undefined) await this.#write(job, steps)
      if (request.boot) {
        job.stage = 'restarting'
        const { flash } = this.#board(server).board
        const { pending, secondary } = readFlashStatus(flash!)
        const staged = secondary.image
        if (staged === undefined || pending.kind !== 'swap')
          throw usageError(`no update waits in the flash of ${server}`, 'name an image: inic flash IMAGE --boot')
        const wanted = Buffer.from(staged.digest)
        await this.#restart(server)
        const after = readFlashStatus(flash!)
        const booted = after.primary.image
        if (booted === undefined || Buffer.compare(booted.digest, wanted) !== 0) {
          throw new CommandError(
            `${server} has not kept version ${formatVersion(staged.version)}: it runs ${booted ? formatVersion(booted.version) : 'nothing'}`,
            { exitCode: EXIT_BOARD, hint: `why: inic flash --log --server ${server}` },
          )
        }
        if (request.confirm && !after.confirmed) {
          job.stage = 'confirming'
          await this.confirm(server)
        }
      }
      job.share = 1
      job.stage = 'done'
    } catch (error) {
      fail(job, error)
    }
  }

  async #write(job: Mutable<UpdateStatus>, steps: readonly SlotStep[]): Promise<void> {
    const { server } = job
    const total = steps.reduce((sum, step) => sum + stepBytes(step), 0)
    let done = 0
    for (const step of steps) {
      const { agent } = this.#board(server)
      if (agent === undefined) throw silent(server)
      const { flash } = agent
      job.stage = step.kind === 'verify' ? 'verifying' : 'writing'
      if (step.kind === 'erase') {
        expect(await answered(server, flash.erase(step.offset, step.bytes)), server, 'erasing the secondary slot')
        done += step.bytes
        job.share = done / total
        continue
      }
      for (let at = 0; at < step.data.length; at += STEP_BYTES) {
        const data = step.data.subarray(at, at + STEP_BYTES)
        await transfer(server, flash, { ...step, offset: step.offset + at, data })
        done += data.length
        job.share = done / total
      }
    }
  }

  #board(server: string): UpdatedBoard {
    this.#name(server)
    const found = this.#find(server)
    if (found !== undefined) return found
    throw new CommandError(`the INIC of ${server} does not run`, { exitCode: EXIT_BOARD })
  }

  #name(server: string): void {
    if (this.#servers.includes(server)) return
    throw usageError(
      `the farm has no server '${server}'`,
      suggest(server, this.#servers) ?? `it has: ${this.#servers.join(', ')}`,
    )
  }
}

/** Ends an update that has failed, with what a command would say. */
export function fail(job: Mutable<UpdateStatus> | Mutable<ServiceUpdateStatus>, error: unknown): void {
  const { exitCode, hint } = error instanceof CommandError ? error : { exitCode: EXIT_FAILED, hint: undefined }
  job.error = { message: errorMessage(error), exitCode, ...(hint !== undefined && { hint }) }
  job.stage = 'failed'
}

export function isOver({ stage }: UpdateStatus): boolean {
  return stage === 'done' || stage === 'failed'
}

async function transfer(server: string, flash: CardFlash, step: Exclude<SlotStep, { kind: 'erase' }>): Promise<void> {
  const { offset, data } = step
  if (step.kind === 'write') {
    expect(await answered(server, flash.write(offset, data)), server, `writing the secondary slot at byte ${offset}`)
    return
  }
  const what = `reading the secondary slot at byte ${offset}`
  const { bytes } = expect(await answered(server, flash.read(offset, data.length)), server, what)
  requireSame(bytes ?? new Uint8Array(0), step, `secondary slot of ${server}`)
}

/** The answer, or an error where none comes: firmware that is not ipOS may know nothing of updates. */
async function answered(server: string, answer: Promise<FlashAnswer>): Promise<FlashAnswer> {
  const result = await withinTime(answer, ANSWER_TIMEOUT_MS)
  if (result !== undefined) return result
  throw silent(server)
}

function silent(server: string): CommandError {
  return new CommandError(`the firmware of ${server} does not answer to updates`, {
    exitCode: EXIT_BOARD,
    hint: 'stop the farm, and flash its file instead',
  })
}

/** Undefined if there is no answer in time. */
async function withinTime<T>(answer: Promise<T>, milliseconds: number): Promise<T | undefined> {
  const limit = new AbortController()
  const late = sleep(milliseconds, undefined, { signal: limit.signal }).catch(() => undefined)
  const result = await Promise.race([answer, late])
  limit.abort()
  return result
}

function expect(answer: FlashAnswer, server: string, what: string): FlashAnswer {
  const { status, flashError } = answer
  if (status === STATUS_OK) return answer
  const reasons: Record<number, string> = {
    [STATUS_EAGAIN]: 'the card is busy with another command',
    [STATUS_EINVAL]: 'the card has no such place in its slot',
    [STATUS_ENETDOWN]: 'the card stopped',
  }
  const reason = flashError !== 0 ? flashErrorText(flashError) : (reasons[status] ?? `error ${status}`)
  throw new CommandError(`${server}: ${what} failed: ${reason}`, { exitCode: EXIT_BOARD })
}
