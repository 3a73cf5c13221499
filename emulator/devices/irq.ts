import { REGISTER_BASE } from '../../abi/memory.ts'
import { IRQ_ALL, IRQ_ENABLE, IRQ_PENDING } from '../../abi/registers.ts'
import type { InicMemory } from './memory.ts'

const PENDING = (REGISTER_BASE + IRQ_PENDING) >>> 2
const ENABLE = (REGISTER_BASE + IRQ_ENABLE) >>> 2

/**
 * Interrupt controller: collects IRQ_* bits between polls and hands those that are enabled to the next one. Edge
 * triggered: a bit is taken back as it is handed over, and a device raises it again for something new.
 */
export class InterruptController {
  /** IRQ_* bits raised and not yet handed over. */
  pending = 0
  #enabled = 0
  #words: Uint32Array = new Uint32Array(0)
  readonly #wake: () => void

  /** `wake` is called when an enabled interrupt becomes pending. */
  constructor(wake: () => void) {
    this.#wake = wake
  }

  powerOn(memory: InicMemory): void {
    this.#words = memory.words
    this.pending = 0
    this.#enabled = 0
  }

  /** Raises IRQ_* bits. */
  raise(bits: number): void {
    const fresh = bits & ~this.pending
    if (fresh === 0) return
    this.pending |= fresh
    if ((fresh & this.#enabled) !== 0) this.#wake()
  }

  /** True if a poll has an interrupt to serve. */
  get active(): boolean {
    return (this.pending & this.#enabled) !== 0
  }

  /** Before a poll: the bits it is called with. */
  take(): number {
    const bits = this.pending & this.#enabled
    this.#words[PENDING] = this.pending
    this.pending &= ~bits
    return bits
  }

  /** After a poll. */
  settle(): void {
    this.#enabled = this.#words[ENABLE] & IRQ_ALL
  }
}
