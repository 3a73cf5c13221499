/** Switches the INICs of a farm's servers on, and off and on again. */
import { setTimeout as sleep } from 'node:timers/promises'
import { CARD_RUNNING } from '../../abi/virtio.ts'
import { type Board, BootError } from '../../emulator/board.ts'
import { CommandError, EXIT_BOARD } from '../errors.ts'
import { flashMap } from '../image/flash-map.ts'
import { Slots } from '../image/swap.ts'
import type { FarmAssembly } from './assembly.ts'

/** How long firmware may take to say that it serves. */
const READY_TIMEOUT_MS = 5000
const READY_POLL_MS = 2
/** How long an INIC stays off, and then is left alone: its drivers hear of both. */
const PAUSE_MS = 10

export interface PowerHooks {
  /** Something that a person may want to know. */
  remark(line: string): void
  /** Ends the programs of a server; settles when they have ended. */
  stopApplications(server: string): Promise<void>
  startApplications(server: string): Promise<void>
}

export class Power {
  readonly #assembly: FarmAssembly
  readonly #hooks: PowerHooks
  /** Servers that `restart` is at work on. */
  readonly #restarting = new Set<string>()
  /** Programs run, and have to be started anew with their INIC. */
  applicationsRun = false

  constructor(assembly: FarmAssembly, hooks: PowerHooks) {
    this.#assembly = assembly
    this.#hooks = hooks
  }

  /**
   * Switches every server's INIC on. One that does not boot is reported; the others go on, unless there are none.
   *
   * @throws CommandError if none boots
   */
  switchOn(): void {
    const failures: string[] = []
    const { servers } = this.#assembly
    for (const { board } of servers.values()) {
      try {
        this.#boot(board)
        if (board.crash !== null) this.#recover(board)
      } catch (error) {
        if (!(error instanceof BootError)) throw error
        failures.push(error.message)
        this.#hooks.remark(error.message)
      }
    }
    if (failures.length === servers.size) {
      throw new CommandError(failures.join('\n'), {
        exitCode: EXIT_BOARD,
        hint: 'write an image that boots: inic flash IMAGE --server NAME',
      })
    }
  }

  /** Waits until all firmware that runs says that it serves; one that never does is left to itself, with a remark, unless it is on trial. */
  async untilServing(signal: AbortSignal): Promise<void> {
    const boards = [...this.#assembly.farm.boards.values()]
    await this.#untilServing(boards, signal)
    for (const board of boards) {
      await this.#giveUpTrial(board)
      if (isWaiting(board)) this.#hooks.remark(`${board.name}: its firmware has not said that it serves`)
    }
  }

  /**
   * A planned reboot: ends the server's programs, switches its INIC off and on, so that the boot loader does what it was asked to, waits until
   * the firmware serves, and starts the programs again. Firmware on trial that stops, or does not come to serve, costs a second reboot,
   * which brings back the one before it.
   *
   * @throws CommandError if nothing serves in the end
   */
  async restart(server: string): Promise<void> {
    const board = this.#assembly.servers.get(server)?.board
    if (board === undefined) throw new Error(`no server ${server}`) // the name was checked
    this.#restarting.add(server)
    try {
      if (this.applicationsRun) await this.#hooks.stopApplications(server)
      await this.#reboot(board)
      await this.#giveUpTrial(board)
      if (!board.serving) {
        throw new CommandError(`the firmware of ${server} does not serve`, { exitCode: EXIT_BOARD })
      }
      if (this.applicationsRun) await this.#hooks.startApplications(server)
    } finally {
      this.#restarting.delete(server)
    }
  }

  /** True while an INIC that is off, or has stopped, is about to run again. */
  isRestarting(server: string): boolean {
    return this.#restarting.has(server)
  }

  /**
   * A board has stopped. If its firmware was on trial, it is switched off and on, once: the boot loader goes back to the one before. Says so
   * with `isRestarting` at once, and does it in a tick.
   */
  crashed(board: Board): void {
    const { name } = board
    if (this.#assembly.servers.get(name)?.board !== board || !isOnTrial(board)) return
    const planned = this.#restarting.has(name)
    this.#restarting.add(name)
    queueMicrotask(() => {
      if (board.crash === null) {
        if (!planned) this.#restarting.delete(name)
        return
      }
      if (planned || !this.applicationsRun) {
        this.#recover(board)
        if (!planned) this.#restarting.delete(name)
        return
      }
      this.#hooks.remark(`${name}: its firmware stopped on trial; it is switched off and on`)
      this.restart(name).catch((error: Error) => this.#hooks.remark(error.message))
    })
  }

  #recover(board: Board): void {
    if (!isOnTrial(board)) return
    this.#hooks.remark(`${board.name}: its firmware stopped on trial; it is switched off and on`)
    try {
      this.#boot(board)
    } catch (error) {
      if (!(error instanceof BootError)) throw error
      this.#hooks.remark(error.message)
    }
  }

  /** Firmware on trial that does not come to serve: the next boot goes back to the one before it. */
  async #giveUpTrial(board: Board): Promise<void> {
    if (!isWaiting(board) || !isOnTrial(board)) return
    this.#hooks.remark(`${board.name}: its firmware is on trial and does not come to serve; it is switched off and on`)
    await this.#reboot(board)
  }

  async #reboot(board: Board): Promise<void> {
    board.powerOff()
    await this.#pause()
    try {
      this.#boot(board)
    } catch (error) {
      throw error instanceof BootError ? new CommandError(error.message, { exitCode: EXIT_BOARD }) : error
    }
    await this.#pause()
    await this.#untilServing([board], undefined)
  }

  async #pause(): Promise<void> {
    const { farm } = this.#assembly
    if (farm.virtual) await farm.run(farm.now() + PAUSE_MS * 1e6)
    else await sleep(PAUSE_MS)
  }

  #boot(board: Board): void {
    board.powerOn()
    const { remark } = board.image ?? {}
    if (remark !== undefined) this.#hooks.remark(`${board.name}: boots ${describeFirmware(board)}: ${remark}`)
  }

  async #untilServing(boards: readonly Board[], signal: AbortSignal | undefined): Promise<void> {
    const { farm } = this.#assembly
    const deadline = performance.now() + READY_TIMEOUT_MS
    while (boards.some(isComing) && performance.now() < deadline) {
      signal?.throwIfAborted()
      if (farm.virtual) await farm.run(() => !boards.some(isWaiting))
      else await sleep(READY_POLL_MS)
    }
  }
}

function isWaiting(board: Board): boolean {
  return board.cardState === CARD_RUNNING && !board.serving
}

/** The same, or it has stopped on trial, and is about to be switched on again. */
function isComing(board: Board): boolean {
  return isWaiting(board) || (board.crash !== null && isOnTrial(board))
}

/** What a board runs, for people: `1.2.3 (primary slot), on trial`. */
export function describeFirmware(board: Board): string {
  return `${board.image?.description ?? 'its firmware'}${isOnTrial(board) ? ', on trial' : ''}`
}

/** True if the image in the primary slot would be reverted at the next boot. */
export function isOnTrial({ flash, image }: Board): boolean {
  return flash !== null && image?.trial === true && !new Slots(flash, flashMap(flash.bytes)).confirmed
}
