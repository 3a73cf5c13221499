import {
  FLASH_OP_CONFIRM,
  FLASH_OP_ERASE,
  FLASH_OP_READ,
  FLASH_OP_WRITE,
  MAXIMUM_FLASH_BYTES,
  OP_FLASH,
} from '../../abi/messages.ts'
import { STATUS_OK } from '../../abi/status.ts'
import { STATUS_ENETDOWN } from '../status.ts'
import type { TxQueue } from './tx.ts'

/** What the card said to a flash command: STATUS_*, and FLASH_ERROR_* where the flash itself refused. */
export interface FlashAnswer {
  readonly status: number
  readonly flashError: number
  /** What was read. */
  readonly bytes: Uint8Array | null
}

interface Command {
  readonly op: number
  readonly offset: number
  readonly bytes: number
  readonly payload: Uint8Array | null
  readonly done: (answer: FlashAnswer) => void
}

/**
 * The slot of the card's flash that updates are written to, by way of the firmware (OP_FLASH). Commands are given one at a time, in order;
 * lengths are cut into what one command carries.
 */
export class CardFlash {
  readonly #tx: TxQueue
  readonly #running: () => boolean
  readonly #waiting: Command[] = []
  #current: Command | null = null
  #cookie = 0

  constructor(tx: TxQueue, running: () => boolean) {
    this.#tx = tx
    this.#running = running
  }

  /** Reads `bytes` from `offset` of the slot; `bytes` of the answer is null where that failed. */
  async read(offset: number, bytes: number): Promise<FlashAnswer> {
    const into = new Uint8Array(bytes)
    for (let done = 0; done < bytes; ) {
      const length = Math.min(MAXIMUM_FLASH_BYTES, bytes - done)
      const answer = await this.#give(FLASH_OP_READ, offset + done, length, null)
      if (answer.bytes === null || answer.bytes.length !== length) return { ...answer, bytes: null }
      into.set(answer.bytes, done)
      done += length
    }
    return { status: STATUS_OK, flashError: 0, bytes: into }
  }

  /** Programs `data` from `offset` of the slot on. */
  async write(offset: number, data: Uint8Array): Promise<FlashAnswer> {
    for (let done = 0; done < data.length; done += MAXIMUM_FLASH_BYTES) {
      const piece = data.subarray(done, done + MAXIMUM_FLASH_BYTES)
      const answer = await this.#give(FLASH_OP_WRITE, offset + done, piece.length, piece)
      if (answer.status !== STATUS_OK) return answer
    }
    return { status: STATUS_OK, flashError: 0, bytes: null }
  }

  erase(offset: number, bytes: number): Promise<FlashAnswer> {
    return this.#give(FLASH_OP_ERASE, offset, bytes, null)
  }

  /** Confirms the running image, if it is on trial. */
  confirm(): Promise<FlashAnswer> {
    return this.#give(FLASH_OP_CONFIRM, 0, 0, null)
  }

  // ── for the driver ──

  /** The card answered; false if nobody waits for that. */
  answered(cookie: number, status: number, flashError: number, bytes: Uint8Array | null): boolean {
    const command = this.#current
    if (command === null || cookie !== this.#cookie) return false
    this.#current = null
    command.done({ status, flashError, bytes })
    this.#next()
    return true
  }

  /** The card stopped: nothing that was asked will be answered. */
  fail(status: number): void {
    const commands = [...(this.#current === null ? [] : [this.#current]), ...this.#waiting.splice(0)]
    this.#current = null
    for (const { done } of commands) done({ status, flashError: 0, bytes: null })
  }

  onTxRoom(): void {
    this.#send()
  }

  #give(op: number, offset: number, bytes: number, payload: Uint8Array | null): Promise<FlashAnswer> {
    return new Promise((done) => {
      this.#waiting.push({ op, offset, bytes, payload, done })
      this.#next()
    })
  }

  #next(): void {
    if (this.#current !== null || this.#waiting.length === 0) return
    if (!this.#running()) {
      this.fail(STATUS_ENETDOWN)
      return
    }
    this.#current = this.#waiting.shift()!
    this.#cookie = (this.#cookie + 1) >>> 0 || 1
    this.#send()
  }

  #send(): void {
    const command = this.#current
    if (command === null) return
    const { op, offset, bytes, payload } = command
    const address = this.#tx.append(OP_FLASH, op, this.#cookie, offset, bytes, payload?.length ?? 0)
    if (address < 0) {
      this.#tx.wait(this)
      return
    }
    if (payload !== null) this.#tx.ram.bytes.set(payload, address)
    this.#tx.flush()
  }
}
