/** Data flow of one function's wasm locals: which stores may have given a local its value at an instruction. */
import type { DecodedInstruction } from '../../firmware/wasm-instructions.ts'

/** What a local holds on entry counts as a store before the first instruction. */
export interface LocalStore {
  readonly local: number
  /** Index of the instruction, -1 on entry. */
  readonly at: number
}

/** Most memory for one function's flow, bytes: hundreds of times what any function takes that somebody wrote. */
const LIMIT_BYTES = 0x1000000

/** False for functions so large that nobody wrote them: nothing is to be known of their locals then. */
export function isAnalysable(instructions: readonly DecodedInstruction[], locals: number): boolean {
  const stores = instructions.filter(({ opcode }) => setsLocal(opcode.name)).length + locals
  return (instructions.length * stores) / 8 <= LIMIT_BYTES
}

export class LocalFlow {
  readonly instructions: readonly DecodedInstruction[]
  /** Those on entry first, by local. */
  readonly stores: readonly LocalStore[]
  readonly #successors: readonly (readonly number[])[]
  readonly #storeAt = new Map<number, number>()
  readonly #storesOf: readonly (readonly number[])[]
  /** Stores that may reach each instruction, as bits; found by instruction of a block's start. */
  readonly #reaching: readonly Uint32Array[]

  constructor(instructions: readonly DecodedInstruction[], locals: number) {
    this.instructions = instructions
    this.#successors = findSuccessors(instructions)
    const stores: LocalStore[] = Array.from({ length: locals }, (_, local) => ({ local, at: -1 }))
    const storesOf: number[][] = stores.map((_, index) => [index])
    for (const [at, { opcode, index }] of instructions.entries()) {
      if (!setsLocal(opcode.name)) continue
      this.#storeAt.set(at, stores.length)
      storesOf[index].push(stores.length)
      stores.push({ local: index, at })
    }
    this.stores = stores
    this.#storesOf = storesOf
    this.#reaching = this.#solve(locals)
  }

  /** Index of the store that an instruction is, or undefined. */
  storeAt(at: number): number | undefined {
    return this.#storeAt.get(at)
  }

  /** Indices of the stores that may have given `local` the value that it has before instruction `at`; none in dead code. */
  reaching(at: number, local: number): readonly number[] {
    const bits = this.#reaching[at]
    return this.#storesOf[local].filter((store) => (bits[store >>> 5] >>> (store & 31)) & 1)
  }

  /** True if one of `uses` (instructions) can be come to from `at` on without a store to `local` before it. */
  leadsTo(at: number, local: number, uses: ReadonlySet<number>): boolean {
    const seen = new Set<number>()
    const open = [at]
    for (let next = open.pop(); next !== undefined; next = open.pop()) {
      if (seen.has(next)) continue
      seen.add(next)
      if (uses.has(next)) return true
      const store = this.#storeAt.get(next)
      if (store !== undefined && this.stores[store].local === local) continue
      open.push(...this.#successors[next])
    }
    return false
  }

  #solve(locals: number): Uint32Array[] {
    const words = (this.stores.length + 31) >>> 5
    const before = this.instructions.map(() => new Uint32Array(words))
    const kills = this.#storesOf.map((stores) => {
      const mask = new Uint32Array(words)
      for (const store of stores) mask[store >>> 5] |= 1 << (store & 31)
      return mask
    })
    if (before.length === 0) return before
    for (let local = 0; local < locals; local++) before[0][local >>> 5] |= 1 << (local & 31)
    const after = new Uint32Array(words)
    const reached = new Uint8Array(before.length)
    reached[0] = 1
    const open = [0]
    for (let at = open.pop(); at !== undefined; at = open.pop()) {
      after.set(before[at])
      const store = this.#storeAt.get(at)
      if (store !== undefined) {
        const mask = kills[this.stores[store].local]
        for (let word = 0; word < words; word++) after[word] &= ~mask[word]
        after[store >>> 5] |= 1 << (store & 31)
      }
      for (const next of this.#successors[at]) {
        let changed = reached[next] === 0
        reached[next] = 1
        const target = before[next]
        for (let word = 0; word < words; word++) {
          const joined = (target[word] | after[word]) >>> 0
          if (joined === target[word]) continue
          target[word] = joined
          changed = true
        }
        if (changed) open.push(next)
      }
    }
    return before
  }
}

function setsLocal(name: string): boolean {
  return name === 'local.set' || name === 'local.tee'
}

/** By instruction: those that may come next. */
function findSuccessors(instructions: readonly DecodedInstruction[]): number[][] {
  const { ends, elses } = matchBlocks(instructions)
  // Where a branch to each open label goes, outermost first; the outermost is the function itself.
  const labels: number[] = [instructions.length - 1]
  return instructions.map(({ opcode: { name }, index, list }, at) => {
    const target = (depth: number) => labels[labels.length - 1 - depth] ?? instructions.length - 1
    switch (name) {
      case 'block':
      case 'if':
        labels.push(ends.get(at) ?? at)
        return name === 'block' ? [at + 1] : [at + 1, (elses.get(at) ?? (ends.get(at) ?? at) - 1) + 1]
      case 'loop':
        labels.push(at)
        return [at + 1]
      case 'else':
        return [ends.get(at) ?? at]
      case 'end':
        labels.pop()
        return at + 1 < instructions.length ? [at + 1] : []
      case 'br':
        return [target(index)]
      case 'br_if':
        return [at + 1, target(index)]
      case 'br_table':
        return [...new Set(list.map(target))]
      case 'return':
      case 'unreachable':
      case 'return_call':
      case 'return_call_indirect':
        return []
      default:
        return [at + 1]
    }
  })
}

/** Ends of blocks, also by their `else`; and the `else` of each `if`. */
function matchBlocks(instructions: readonly DecodedInstruction[]) {
  const ends = new Map<number, number>()
  const elses = new Map<number, number>()
  const open: number[] = []
  for (const [at, { opcode }] of instructions.entries()) {
    if (opcode.immediates === 'block') open.push(at)
    else if (opcode.name === 'else') elses.set(open[open.length - 1], at)
    else if (opcode.name === 'end') {
      const start = open.pop()
      if (start === undefined) continue
      ends.set(start, at)
      const otherwise = elses.get(start)
      if (otherwise !== undefined) ends.set(otherwise, at)
    }
  }
  return { ends, elses }
}
