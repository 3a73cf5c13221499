/**
 * Records that outlive power cuts: numbered, each with a checksum, in a ring of erase blocks. A record is written once; the block after
 * the last full one is erased for the next, and with it the oldest records. What is half written, or has a flipped bit, is none.
 *
 *   0        4          8                         124       128
 *   ├─MAGIC──┼─NUMBER───┼─CONTENTS (116 bytes)────┼─CRC-32──┤
 */
import { crc32 } from 'node:zlib'
import { ERASE_BLOCK_BYTES } from '../../emulator/devices/flash.ts'
import { isErased, type Region } from './flash-access.ts'

const RECORD_BYTES = 128
const AT_CONTENTS = 8
const AT_CHECK = 124
/** Bytes of the contents of one record. */
export const RECORD_CONTENTS_BYTES = AT_CHECK - AT_CONTENTS
const PER_BLOCK = ERASE_BLOCK_BYTES / RECORD_BYTES

export interface BootRecord {
  readonly number: number
  readonly contents: DataView
}

/** A ring over `blocks` erase blocks of a region, from `firstBlock` on; at least two, so that one is whole while the other is erased. */
export class RecordRing {
  readonly #region: Region
  readonly #magic: number
  readonly #offset: number
  readonly #blocks: number

  constructor(region: Region, magic: number, firstBlock: number, blocks: number) {
    this.#region = region
    this.#magic = magic
    this.#offset = firstBlock * ERASE_BLOCK_BYTES
    this.#blocks = blocks
  }

  /** Every record that is whole, oldest first. */
  read(): BootRecord[] {
    return this.#scan().sort((a, b) => a.number - b.number)
  }

  /** Appends a record with these contents, at most RECORD_CONTENTS_BYTES; the rest is zeros. */
  append(contents: Uint8Array): void {
    const records = this.#scan()
    const newest = records.reduce<Placed | undefined>((best, record) => {
      return best === undefined || record.number > best.number ? record : best
    }, undefined)
    const bytes = new Uint8Array(RECORD_BYTES)
    const view = new DataView(bytes.buffer)
    view.setUint32(0, this.#magic, true)
    view.setUint32(4, ((newest?.number ?? 0) + 1) >>> 0, true)
    bytes.set(contents.subarray(0, RECORD_CONTENTS_BYTES), AT_CONTENTS)
    view.setUint32(AT_CHECK, crc32(bytes.subarray(0, AT_CHECK)), true)
    this.#region.write(this.#place(newest), bytes)
  }

  /** Where the next record goes; what is there is erased by then. */
  #place(newest: Placed | undefined): number {
    const block = newest === undefined ? 0 : Math.floor(newest.slot / PER_BLOCK)
    if (newest !== undefined) {
      for (let slot = newest.slot + 1; slot < (block + 1) * PER_BLOCK; slot++) {
        const offset = this.#offset + slot * RECORD_BYTES
        if (isErased(this.#region.read(offset, RECORD_BYTES))) return offset
      }
    }
    const next = newest === undefined ? 0 : (block + 1) % this.#blocks
    const offset = this.#offset + next * ERASE_BLOCK_BYTES
    this.#region.clear(offset)
    return offset
  }

  #scan(): Placed[] {
    const bytes = this.#region.read(this.#offset, this.#blocks * ERASE_BLOCK_BYTES)
    const view = new DataView(bytes.buffer)
    const found: Placed[] = []
    for (let slot = 0; slot < this.#blocks * PER_BLOCK; slot++) {
      const at = slot * RECORD_BYTES
      if (view.getUint32(at, true) !== this.#magic) continue
      if (view.getUint32(at + AT_CHECK, true) !== crc32(bytes.subarray(at, at + AT_CHECK))) continue
      const contents = new DataView(bytes.buffer, at + AT_CONTENTS, RECORD_CONTENTS_BYTES)
      found.push({ slot, number: view.getUint32(at + 4, true), contents })
    }
    return found
  }
}

interface Placed extends BootRecord {
  readonly slot: number
}
