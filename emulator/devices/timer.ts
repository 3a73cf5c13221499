import { REGISTER_BASE } from '../../abi/memory.ts'
import { IRQ_TIMER, TIMER_NOW_HIGH, TIMER_NOW_LOW } from '../../abi/registers.ts'
import { NO_TIME } from '../clock.ts'
import { POLL_IDLE } from '../cpu/cpu.ts'
import type { InterruptController } from './irq.ts'
import type { InicMemory } from './memory.ts'

const LOW = (REGISTER_BASE + TIMER_NOW_LOW) >>> 2
const HIGH = (REGISTER_BASE + TIMER_NOW_HIGH) >>> 2

/** Timer: shows the time since power-on and keeps the wake time that the last poll asked for. */
export class Timer {
  /** Farm time at which the firmware wants to run, nanoseconds; Infinity = only when interrupted. */
  wakeNs = Number.POSITIVE_INFINITY
  /** Farm time of power-on, nanoseconds. */
  powerOnNs = NO_TIME
  #words: Uint32Array = new Uint32Array(0)
  readonly #irq: InterruptController

  constructor(irq: InterruptController) {
    this.#irq = irq
  }

  powerOn(memory: InicMemory, nowNs: number): void {
    this.#words = memory.words
    this.powerOnNs = nowNs
    this.wakeNs = nowNs
  }

  /** Before a poll: shows the time, and raises IRQ_TIMER if the wake time has come. */
  show(nowNs: number): void {
    const elapsedNs = nowNs - this.powerOnNs
    this.#words[LOW] = elapsedNs
    this.#words[HIGH] = Math.floor(elapsedNs / 4294967296)
    if (this.wakeNs <= nowNs) this.#irq.raise(IRQ_TIMER)
  }

  /** After the poll that began at `startNs`: `delayUs` is what it returned, microseconds from the time that it was shown. */
  sleep(startNs: number, delayUs: number): void {
    this.wakeNs = delayUs === POLL_IDLE ? Number.POSITIVE_INFINITY : startNs + delayUs * 1000
  }
}
