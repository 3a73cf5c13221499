/**
 * Steps through a slice that is known from its first to its last instruction: forward and back, by line or instruction. A slice runs to
 * completion and is a function of what it was given, so its trace is known at every stop within it, the rest of it included.
 */
import type { Program } from '../symbols/index.ts'
import type { StepKind } from './api.ts'

/** What a step needs to know of an instruction. */
interface Site {
  readonly functionIndex: number
  readonly isCall: boolean
  /** A return, or the function's last `end`. */
  readonly ends: boolean
  /** Where a call comes back to. */
  readonly next: number
  /** Source functions that stand here, inlined ones included. */
  readonly frames: number
  /** How many of them begin with this very instruction: a step that comes here stops before their calls. */
  readonly entering: number
  readonly isLineStart: boolean
  /** Equal for instructions of one line in one source function, by the number of innermost functions left out; undefined without source. */
  readonly lines: readonly (string | undefined)[]
}

/** Sites of a program, made when first met. */
export class Sites {
  readonly #program: Program
  readonly #sites = new Map<number, Site>()

  constructor(program: Program) {
    this.#program = program
  }

  at(pc: number): Site {
    let site = this.#sites.get(pc)
    if (site === undefined) {
      site = this.#make(pc)
      this.#sites.set(pc, site)
    }
    return site
  }

  #make(pc: number): Site {
    const program = this.#program
    const instruction = program.instructionAt(pc)
    const frames = program.frames(pc)
    const entering = program.entering(pc)
    return {
      functionIndex: program.functionAt(pc)?.index ?? -1,
      isCall: instruction?.kind === 'call' || instruction?.kind === 'call_indirect',
      ends: instruction?.kind === 'return' || instruction?.kind === 'end of function',
      next: pc + (instruction?.bytes ?? 0),
      frames: frames.length,
      entering,
      isLineStart: entering > 0 || (frames[0]?.source !== undefined && program.isLineStart(pc)),
      lines: frames
        .slice(0, entering + 1)
        .map(({ name, source }) => source && `${name}\0${source.file}\0${source.line}`),
    }
  }
}

/** Before the first and behind the last instruction of a slice. */
export type Walked = number | 'before' | 'after'

export class Walk {
  /** Of each instruction, in the order of execution. */
  readonly pcs: Uint32Array
  readonly #sites: Sites
  /** Wasm frames at each instruction, and source functions in them but for those that are about to be entered. */
  readonly #physical: Uint16Array
  readonly #logical: Uint16Array

  constructor(pcs: Uint32Array, sites: Sites) {
    this.pcs = pcs
    this.#sites = sites
    this.#physical = new Uint16Array(pcs.length)
    this.#logical = new Uint16Array(pcs.length)
    this.#measure()
  }

  /** Where a step from instruction `from` ends. `entered`: of the functions that begin there, how many were stepped into. */
  step(from: number, kind: StepKind, entered = 0): Walked {
    const { pcs } = this
    const found = (test: (at: number) => boolean): Walked => {
      for (let at = from + 1; at < pcs.length; at++) if (test(at)) return at
      return 'after'
    }
    const depth = this.#logical[from] + entered
    const line = this.#line(from, entered)
    switch (kind) {
      case 'instruction':
        return from + 1 < pcs.length ? from + 1 : 'after'
      case 'instruction-over':
        return found((at) => this.#physical[at] <= this.#physical[from])
      case 'out':
        return found((at) => this.#logical[at] < depth)
      case 'in':
        return found((at) => this.#beginsLine(at) && (this.#logical[at] !== depth || this.#line(at) !== line))
      case 'over':
        return found(
          (at) =>
            this.#logical[at] < depth ||
            (this.#logical[at] === depth && this.#beginsLine(at) && this.#line(at) !== line),
        )
    }
  }

  /** The same, backwards; `from` may be the slice's length, its end. */
  stepBack(from: number, kind: StepKind): Walked {
    const found = (test: (at: number) => boolean): Walked => {
      for (let at = from - 1; at >= 0; at--) if (test(at)) return at
      return 'before'
    }
    const depth = from < this.pcs.length ? this.#logical[from] : 1
    switch (kind) {
      case 'instruction':
        return found(() => true)
      case 'instruction-over':
        return found((at) => this.#physical[at] <= (from < this.pcs.length ? this.#physical[from] : 1))
      case 'out':
        return found((at) => this.#logical[at] < depth)
      case 'in':
        return this.#lineBefore(from, Number.POSITIVE_INFINITY)
      case 'over':
        return this.#lineBefore(from, depth)
    }
  }

  /** The first instruction with a line from `from` on. */
  firstLine(from = 0): Walked {
    for (let at = from; at < this.pcs.length; at++) if (this.#beginsLine(at)) return at
    return 'after'
  }

  /** First instruction of the stretch of one line that lies before `from`, no deeper than `depth`. */
  #lineBefore(from: number, depth: number): Walked {
    let at = from - 1
    while (at >= 0 && (this.#logical[at] > depth || this.#line(at) === undefined)) at--
    if (at < 0) return 'before'
    const line = this.#line(at)
    const level = this.#logical[at]
    // Calls that the line makes belong to it.
    let first = at
    for (let before = at - 1; before >= 0; before--) {
      if (this.#logical[before] > level) {
        if (depth === Number.POSITIVE_INFINITY) break
        continue
      }
      if (this.#logical[before] < level || this.#line(before) !== line) break
      first = before
    }
    return first
  }

  #line(at: number, entered = 0): string | undefined {
    const { lines, entering } = this.#sites.at(this.pcs[at])
    return lines[entering - entered]
  }

  #beginsLine(at: number): boolean {
    return this.#sites.at(this.pcs[at]).isLineStart
  }

  #measure(): void {
    const returns: number[] = []
    const callers: number[] = []
    let above = 0
    let before: Site | undefined
    for (const [at, pc] of this.pcs.entries()) {
      const site = this.#sites.at(pc)
      if (before !== undefined) {
        if (before.isCall && pc !== before.next) {
          returns.push(before.next)
          callers.push(before.frames)
          above += before.frames
        } else if (pc === returns[returns.length - 1] && (before.ends || before.functionIndex !== site.functionIndex)) {
          returns.pop()
          above -= callers.pop()!
        }
      }
      this.#physical[at] = returns.length + 1
      this.#logical[at] = above + site.frames - site.entering
      before = site
    }
  }
}
