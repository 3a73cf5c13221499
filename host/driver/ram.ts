// The global Buffer is an accessor, asked at every use.
import { Buffer } from 'node:buffer'

/**
 * Main-board RAM of one process, seen through the views that the driver needs. Everything in it is little-endian (abi/), and so is every
 * machine that Node 20 supports but s390x; there the constructor throws rather than talk nonsense to the card.
 */
export class Ram {
  readonly bytes: Uint8Array
  readonly halves: Uint16Array
  readonly words: Uint32Array
  /** The same bytes as a Buffer: encodes strings in place. */
  readonly buffer: Buffer
  readonly #memory: ArrayBufferLike
  readonly #start: number

  /** Throws RangeError if `bytes` does not start and end on a multiple of 16. */
  constructor(bytes: Uint8Array) {
    if (bytes.byteOffset % 16 !== 0 || bytes.byteLength % 16 !== 0) {
      throw new RangeError('Main-board RAM must start and end on a multiple of 16 bytes.')
    }
    if (new Uint8Array(new Uint16Array([1]).buffer)[0] !== 1)
      throw new Error('The driver runs on little-endian machines only.')
    this.bytes = bytes
    this.#memory = bytes.buffer
    this.#start = bytes.byteOffset
    this.halves = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2)
    this.words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)
    this.buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  /** A private copy of `length` bytes at `address`; short ones come from Node's pool. The card keeps writing to RAM, applications keep what they get. */
  copy(address: number, length: number): Buffer {
    const copy = Buffer.allocUnsafe(length)
    // Two thirds of what `subarray` takes, which asks for the class of its result.
    copy.set(new Uint8Array(this.#memory, this.#start + address, length))
    return copy
  }
}
