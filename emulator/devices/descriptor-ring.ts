import { DESCRIPTOR_BYTES } from '../../abi/rings.ts'
import { type FaultLine, hex, type InicMemory } from './memory.ts'

/** Most entries of a ring: 1 MiB of descriptors. */
const MAXIMUM_ENTRIES = 65536

/**
 * The device's end of a descriptor ring (abi/rings.ts): where the ring is, checked whenever the firmware moves it, and the device's
 * own index. A ring that is moved, resized or switched on again starts at its first descriptor.
 */
export class DescriptorRing {
  /** 0 = off. */
  entries = 0
  /** Word index, in INIC memory, of the descriptor that the device looks at next. */
  at = 0
  #first = 0
  #end = 0
  #base = 0
  #memory: InicMemory | null = null
  #words: Uint32Array = new Uint32Array(0)
  readonly #what: string
  readonly #baseRegister: number
  readonly #entriesRegister: number
  readonly #fault: FaultLine

  /** `baseRegister` and `entriesRegister` are word indices in INIC memory. */
  constructor(what: string, baseRegister: number, entriesRegister: number, fault: FaultLine) {
    this.#what = what
    this.#baseRegister = baseRegister
    this.#entriesRegister = entriesRegister
    this.#fault = fault
  }

  powerOn(memory: InicMemory): void {
    this.#memory = memory
    this.#words = memory.words
    this.#base = 0
    this.entries = 0
  }

  /** After a poll: follows the two registers. */
  settle(): void {
    const base = this.#words[this.#baseRegister]
    const entries = this.#words[this.#entriesRegister]
    if (base !== this.#base || entries !== this.entries) this.#move(base, entries)
  }

  /** Steps to the next descriptor. */
  advance(): void {
    const next = this.at + DESCRIPTOR_BYTES / 4
    this.at = next === this.#end ? this.#first : next
  }

  #move(base: number, entries: number): void {
    this.#base = base
    this.entries = entries
    if (entries === 0) return
    const fits = entries <= MAXIMUM_ENTRIES && (entries & (entries - 1)) === 0 && (base & 3) === 0
    if (!fits || !this.#memory!.holds(base, entries * DESCRIPTOR_BYTES)) {
      this.entries = 0
      this.#fault(`${this.#what} ring: no ring of ${entries} descriptors can lie at ${hex(base)}`)
      return
    }
    this.#first = base >>> 2
    this.#end = this.#first + (entries * DESCRIPTOR_BYTES) / 4
    this.at = this.#first
  }
}
