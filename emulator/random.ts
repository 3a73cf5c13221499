import { createHash, randomBytes } from 'node:crypto'

/**
 * The place where randomness enters: a seed. Everything random in a farm comes from a stream named after the thing that uses
 * it, so that adding a wire does not change what another one draws.
 */
export class RandomSource {
  readonly seed: string

  constructor(seed: string) {
    this.seed = seed
  }

  /** The stream of that name; two calls with one name give two streams that draw the same. */
  stream(name: string): RandomStream {
    return new RandomStream(this.bytes(name))
  }

  /** 32 bytes for `name`: SHA-256 of seed and name, as unpredictable as the seed. */
  bytes(name: string): Uint8Array {
    return createHash('sha256').update(`${this.seed}\u0000${name}`).digest()
  }
}

/** A seed that nobody can guess; for farms that face a real network. */
export function unpredictableSeed(): string {
  return randomBytes(32).toString('hex')
}

/** sfc32 (Chris Doty-Humphrey, PractRand): 128 bits of state, passes PractRand and BigCrush, a few integer additions a draw. */
export class RandomStream {
  #a: number
  #b: number
  #c: number
  #counter: number

  /** `state`: at least 16 bytes. */
  constructor(state: Uint8Array) {
    const view = new DataView(state.buffer, state.byteOffset, state.byteLength)
    this.#a = view.getInt32(0, true)
    this.#b = view.getInt32(4, true)
    this.#c = view.getInt32(8, true)
    this.#counter = view.getInt32(12, true)
  }

  /** 32 bits, unsigned. */
  next(): number {
    const sum = (this.#a + this.#b + this.#counter) | 0
    this.#counter = (this.#counter + 1) | 0
    this.#a = this.#b ^ (this.#b >>> 9)
    this.#b = (this.#c + (this.#c << 3)) | 0
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0
    return sum >>> 0
  }

  /** True with the given probability, 0 to 1; nothing is drawn for 0. */
  chance(probability: number): boolean {
    return probability > 0 && this.next() < probability * 4294967296
  }

  /** A whole number from 0 to `limit` - 1; `limit` at most 2^32. */
  below(limit: number): number {
    return Math.floor((this.next() / 4294967296) * limit)
  }
}
