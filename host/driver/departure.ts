import {
  DATA_FLAG_FIN,
  DATA_FLAG_MIGRATING,
  MAXIMUM_DATA_BYTES,
  MIGRATE_FLAG_HANDED_OVER,
  OP_CREDIT,
  OP_DATA,
  OP_MIGRATE,
  OP_RETURN,
  OP_STATE,
} from '../../abi/messages.ts'
import { STATUS_EAGAIN, STATUS_OK } from '../../abi/status.ts'
import type { TxQueue, TxWaiter } from './tx.ts'

/** What a connection takes along to another server (abi/messages.ts, OP_MIGRATE). */
export interface MoveRequest {
  /** Of the server; 0 = the card chooses the best. */
  readonly address: number
  /** Its application must take hand-overs. */
  readonly handedOver: boolean
  /** Bytes that were written and that the card has not taken; they may exceed its credit by MAXIMUM_MIGRATING_BYTES. */
  readonly queued: readonly Uint8Array[]
  /** Our FIN follows them. */
  readonly finish: boolean
  /** Bytes that were delivered and that nobody has read. Their owner keeps them until the move has succeeded. */
  readonly unread: readonly Uint8Array[]
  /** At most MAXIMUM_STATE_BYTES. */
  readonly state: Uint8Array | null
  /** The card's answer, STATUS_*, not EAGAIN. Anything but STATUS_OK: the connection stays as it was. */
  done(status: number): void
}

interface Command {
  readonly op: number
  readonly flags: number
  readonly a: number
  readonly pieces: readonly Uint8Array[]
}

const NO_PIECES: readonly Uint8Array[] = []

/**
 * A connection on its way to another server, as the TX queue sees it: one burst of commands, one doorbell.
 *
 *   OP_DATA, what was queued ─▶ OP_CREDIT, what was read ─▶ OP_RETURN, what was not ─▶ OP_STATE ─▶ OP_MIGRATE
 *                                                              ▲                                      │
 *                                                              └── EAGAIN: what has come meanwhile ───┘
 */
export class Departure implements TxWaiter {
  readonly request: MoveRequest
  /** What the card delivered after the move began; not shown to the application unless it fails. */
  readonly held: Buffer[] = []
  /** The peer's FIN came behind it. */
  ended = false
  /** Bytes that went back to the card; once it has failed, those of them that the card has yet to deliver again. */
  returned = 0
  /** Why it failed, STATUS_*. */
  failed = STATUS_OK
  /** Settings that were changed meanwhile; they count if the move fails. */
  readonly options: [option: number, value: number][] = []

  readonly #tx: TxQueue
  readonly #handle: number
  #commands: Command[] = []
  #sent = 0
  #heldReturned = 0

  constructor(tx: TxQueue, handle: number, request: MoveRequest) {
    this.#tx = tx
    this.#handle = handle
    this.request = request
  }

  /** Sends everything. `sendCredit`: bytes that the card takes as usual; `consumed`: to be returned as credit. */
  begin(sendCredit: number, consumed: number): void {
    const { queued, finish, unread, state } = this.request
    const credit = Math.max(0, sendCredit)
    let taken = 0
    for (const pieces of records(queued, credit)) {
      taken += lengthOf(pieces)
      this.#commands.push({ op: OP_DATA, flags: taken > credit ? DATA_FLAG_MIGRATING : 0, a: 0, pieces })
    }
    if (finish) this.#commands.push({ op: OP_DATA, flags: DATA_FLAG_FIN, a: 0, pieces: NO_PIECES })
    if (consumed > 0) this.#commands.push({ op: OP_CREDIT, flags: 0, a: consumed, pieces: NO_PIECES })
    this.#return(unread)
    if (state !== null) for (const pieces of records([state])) this.#add(OP_STATE, pieces)
    this.#finish()
  }

  /** The card's answer to OP_MIGRATE; true if that is the end of it. */
  answered(status: number): boolean {
    if (status === STATUS_EAGAIN) {
      this.#finish()
      return false
    }
    this.failed = status
    return true
  }

  /** The connection is gone: nothing more is sent. */
  cancel(): void {
    this.#commands = []
    this.#sent = 0
  }

  onTxRoom(): void {
    this.#send()
  }

  #finish(): void {
    const held = this.held.slice(this.#heldReturned)
    this.#heldReturned = this.held.length
    this.#return(held)
    const { address, handedOver } = this.request
    this.#commands.push({
      op: OP_MIGRATE,
      flags: handedOver ? MIGRATE_FLAG_HANDED_OVER : 0,
      a: address,
      pieces: NO_PIECES,
    })
    this.#send()
  }

  #return(bytes: readonly Uint8Array[]): void {
    for (const pieces of records(bytes)) this.#add(OP_RETURN, pieces)
    this.returned += lengthOf(bytes)
  }

  #add(op: number, pieces: readonly Uint8Array[]): void {
    this.#commands.push({ op, flags: 0, a: 0, pieces })
  }

  #send(): void {
    const tx = this.#tx
    while (this.#sent < this.#commands.length) {
      const { op, flags, a, pieces } = this.#commands[this.#sent]!
      let address = tx.append(op, flags, this.#handle, a, 0, lengthOf(pieces))
      if (address < 0) {
        tx.flush()
        tx.wait(this)
        return
      }
      for (const piece of pieces) {
        tx.ram.bytes.set(piece, address)
        address += piece.length
      }
      this.#sent++
    }
    this.cancel()
    tx.flush()
  }
}

function lengthOf(pieces: readonly Uint8Array[]): number {
  let bytes = 0
  for (const piece of pieces) bytes += piece.length
  return bytes
}

/** Cuts and gathers `pieces` into records of MAXIMUM_DATA_BYTES; one ends at byte `cut` if there is one. */
function records(pieces: readonly Uint8Array[], cut = 0): Uint8Array[][] {
  const result: Uint8Array[][] = []
  let record: Uint8Array[] = []
  let room = cut > 0 ? Math.min(cut, MAXIMUM_DATA_BYTES) : MAXIMUM_DATA_BYTES
  let before = cut
  for (const piece of pieces) {
    for (let at = 0; at < piece.length; ) {
      const part = piece.subarray(at, at + room)
      record.push(part)
      at += part.length
      room -= part.length
      before -= part.length
      if (room > 0) continue
      result.push(record)
      record = []
      room = before > 0 ? Math.min(before, MAXIMUM_DATA_BYTES) : MAXIMUM_DATA_BYTES
    }
  }
  if (record.length > 0) result.push(record)
  return result
}
