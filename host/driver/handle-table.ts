const INITIAL_ENTRIES = 64
/** 2^32 divided by the golden ratio: spreads numbers that follow each other (Knuth, TAOCP 6.4). */
const SPREAD = 0x9e3779b1

/**
 * Objects by a number of 32 bits: open addressing, linear probing, deletion by shifting back. For what comes and goes thousands of times a
 * second: a Map leaves a whole table behind at every few hundred deletions, and the garbage collector, having moved that table to the
 * old generation, takes everything it held for alive; with sockets in it, that cost more than all other work on a connection.
 */
export class HandleTable<T extends object> {
  size = 0
  #keys = new Uint32Array(INITIAL_ENTRIES)
  #values: (T | null)[] = new Array(INITIAL_ENTRIES).fill(null)
  #shift = 32 - Math.log2(INITIAL_ENTRIES)

  get(key: number): T | undefined {
    const values = this.#values
    const mask = values.length - 1
    for (let i = this.#home(key); ; i = (i + 1) & mask) {
      const value = values[i]!
      if (value === null) return undefined
      if (this.#keys[i] === key) return value
    }
  }

  has(key: number): boolean {
    return this.get(key) !== undefined
  }

  set(key: number, value: T): void {
    if (this.size * 2 >= this.#values.length) this.#grow()
    const values = this.#values
    const mask = values.length - 1
    let i = this.#home(key)
    while (values[i] !== null && this.#keys[i] !== key) i = (i + 1) & mask
    if (values[i] === null) this.size++
    values[i] = value
    this.#keys[i] = key
  }

  /** True if it was there. */
  delete(key: number): boolean {
    const values = this.#values
    const keys = this.#keys
    const mask = values.length - 1
    let hole = this.#home(key)
    while (values[hole] !== null && keys[hole] !== key) hole = (hole + 1) & mask
    if (values[hole] === null) return false
    this.size--
    // Moves back whoever stands behind the hole only because its home was taken.
    for (let i = (hole + 1) & mask; values[i] !== null; i = (i + 1) & mask) {
      const distance = (i - this.#home(keys[i]!)) & mask
      if (distance < ((i - hole) & mask)) continue
      values[hole] = values[i]!
      keys[hole] = keys[i]!
      hole = i
    }
    values[hole] = null
    return true
  }

  /** All of them, in no order. */
  values(): T[] {
    return this.#values.filter((value) => value !== null)
  }

  clear(): void {
    this.#keys = new Uint32Array(INITIAL_ENTRIES)
    this.#values = new Array(INITIAL_ENTRIES).fill(null)
    this.#shift = 32 - Math.log2(INITIAL_ENTRIES)
    this.size = 0
  }

  #home(key: number): number {
    return Math.imul(key, SPREAD) >>> this.#shift
  }

  #grow(): void {
    const keys = this.#keys
    const values = this.#values
    this.#keys = new Uint32Array(values.length * 2)
    this.#values = new Array(values.length * 2).fill(null)
    this.#shift--
    this.size = 0
    for (let i = 0; i < values.length; i++) {
      const value = values[i]
      if (value !== null && value !== undefined) this.set(keys[i]!, value)
    }
  }
}
