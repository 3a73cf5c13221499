import {
  NULL_GUARD_BASE,
  NULL_GUARD_BYTES,
  REGISTER_BASE,
  REGISTER_PAGE_BYTES,
  UNMAPPED_BASE,
  UNMAPPED_BYTES,
} from '../../abi/memory.ts'
import { REGISTER_END } from '../../abi/registers.ts'
import type { InicMemory } from './memory.ts'
import { REGISTERS } from './registers.ts'

/** Words looked at in one step of the slow round. */
const STEP_WORDS = 8

/**
 * Finds stores to addresses where nothing is mapped: such words stay 0, because no device writes them.
 *
 * The holes between the registers are looked at after every poll. They are summed as float64, two words at a time, which is
 * four times as fast as reading them as words: any bit pattern but those of 0 and -0 is another number or no number. What a sum
 * cannot see (-0, numbers that cancel out), and the rest of the register page, is found by a slow round that looks at
 * STEP_WORDS words after each poll. The null guard and the unmapped range belong to the slow round unless the CPU traps on
 * them (CpuOptions.guard).
 */
export class BusMonitor {
  #words: Uint32Array = new Uint32Array(0)
  /** The used part of the register page. */
  #doubles: Float64Array = new Float64Array(0)
  /** Indices into #doubles, of those that lie in holes; as many as a multiple of four. */
  readonly #pairs: Uint16Array
  /** Indices into #words, of those in holes that share their float64 with a register. */
  readonly #singles: Uint16Array
  /** The slow round: starts and ends of stretches of words, at most STEP_WORDS each. */
  #stretches: Uint16Array = new Uint16Array(0)
  #next = 0

  constructor() {
    const holes = holeWords()
    const pairs = holes.filter((word) => (word & 1) === 0 && !isRegister(word + 1)).map((word) => word >>> 1)
    while ((pairs.length & 3) !== 0) pairs.push(pairs[0])
    this.#pairs = Uint16Array.from(pairs)
    this.#singles = Uint16Array.from(
      holes.filter((word) => isRegister(word ^ 1)).map((word) => (REGISTER_BASE >>> 2) + word),
    )
  }

  /** `guarded`: the CPU itself traps on stores below REGISTER_BASE and in the unmapped range. */
  powerOn(memory: InicMemory, guarded: boolean): void {
    this.#words = memory.words
    this.#doubles = new Float64Array(memory.bytes.buffer, REGISTER_BASE, REGISTER_END >>> 3)
    const first = REGISTER_BASE >>> 2
    const ranges = holeRanges().map(([start, end]) => [first + start, first + end])
    ranges.push([(REGISTER_BASE + REGISTER_END) >>> 2, (REGISTER_BASE + REGISTER_PAGE_BYTES) >>> 2])
    if (!guarded) {
      ranges.push([NULL_GUARD_BASE >>> 2, (NULL_GUARD_BASE + NULL_GUARD_BYTES) >>> 2])
      ranges.push([UNMAPPED_BASE >>> 2, (UNMAPPED_BASE + UNMAPPED_BYTES) >>> 2])
    }
    const stretches: number[] = []
    for (const [start, end] of ranges) {
      for (let word = start; word < end; word += STEP_WORDS) stretches.push(word, Math.min(word + STEP_WORDS, end))
    }
    this.#stretches = Uint16Array.from(stretches)
    this.#next = 0
  }

  /** After a poll: the address that was stored to, or -1. `stored`: the firmware may have stored into the used part of the page. */
  check(stored: boolean): number {
    return (stored && !this.#holesAreEmpty()) || !this.#nextStretchIsEmpty() ? this.checkAll() : -1
  }

  #holesAreEmpty(): boolean {
    const doubles = this.#doubles
    const pairs = this.#pairs
    let a = 0
    let b = 0
    let c = 0
    let d = 0
    for (let n = 0; n < pairs.length; n += 4) {
      a += doubles[pairs[n]]
      b += doubles[pairs[n + 1]]
      c += doubles[pairs[n + 2]]
      d += doubles[pairs[n + 3]]
    }
    const words = this.#words
    const singles = this.#singles
    let bits = 0
    for (let n = 0; n < singles.length; n++) bits |= words[singles[n]]
    return a + b + c + d === 0 && bits === 0
  }

  #nextStretchIsEmpty(): boolean {
    const words = this.#words
    const next = this.#next
    const stretches = this.#stretches
    this.#next = next + 2 === stretches.length ? 0 : next + 2
    const end = stretches[next + 1]
    let bits = 0
    for (let word = stretches[next]; word < end; word++) bits |= words[word]
    return bits === 0
  }

  /** Looks at everything at once: the first address that was stored to, or -1. */
  checkAll(): number {
    const stretches = this.#stretches
    for (let n = 0; n < stretches.length; n += 2) {
      for (let word = stretches[n]; word < stretches[n + 1]; word++) if (this.#words[word] !== 0) return word * 4
    }
    return -1
  }
}

const registerWords = new Set(REGISTERS.map((register) => register.offset >>> 2))

function isRegister(word: number): boolean {
  return registerWords.has(word)
}

/** Word offsets in the used part of the register page where no register is. */
function holeWords(): number[] {
  return Array.from({ length: REGISTER_END >>> 2 }, (_, word) => word).filter((word) => !isRegister(word))
}

/** The same as ranges [start, end). */
function holeRanges(): [number, number][] {
  const ranges: [number, number][] = []
  for (const word of holeWords()) {
    const last = ranges.at(-1)
    if (last !== undefined && last[1] === word) last[1] = word + 1
    else ranges.push([word, word + 1])
  }
  return ranges
}
