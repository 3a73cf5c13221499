/** A measurement in terms of the source: functions, inlined ones included, and lines. */
import type { Program, SourceFrame } from '../debug/symbols/index.ts'
import type { Measurement } from './meter.ts'

/** A function of the source, as profiles show it. */
export interface ProfileFunction {
  readonly name: string
  /** Where it is declared, as asc names it: `firmware/tcp/input.ts`. Undefined for what has no source. */
  readonly file: string | undefined
  readonly line: number | undefined
  readonly column: number | undefined
}

export interface ProfileStack {
  /** Indices of functions, outermost first. */
  readonly frames: readonly number[]
  /** Line that the innermost function is at; 0 if it is not known. */
  readonly line: number
  /** Instructions. */
  readonly weight: number
}

export interface SourceProfile {
  /** The board's name. */
  readonly name: string
  /** Instructions between two samples; 0: all were looked at. */
  readonly period: number
  readonly instructions: number
  readonly slices: number
  readonly lostSamples: number
  readonly functions: readonly ProfileFunction[]
  readonly stacks: readonly ProfileStack[]
  /** Of samples, in the order in which they were taken: numbers of stacks. Empty if all were looked at. */
  readonly order: readonly number[]
}

/** Instructions of a function: in itself, and with all that it calls. */
export interface FunctionCost extends ProfileFunction {
  readonly self: number
  readonly total: number
}

export interface LineCost {
  readonly file: string
  readonly line: number
  /** The function that the line is of. */
  readonly name: string
  readonly self: number
}

/** Puts several measurements of a board's, as of several power-ons, into one profile. */
export class ProfileBuilder {
  readonly #name: string
  readonly #period: number
  readonly #functions: ProfileFunction[] = []
  readonly #indices = new Map<string, number>()
  readonly #stacks: ProfileStack[] = []
  readonly #order: number[] = []
  #instructions = 0
  #slices = 0
  #lostSamples = 0

  /** @param period instructions between two samples; 0: all were looked at */
  constructor(name: string, period: number) {
    this.#name = name
    this.#period = period
  }

  add(measurement: Measurement, program: Program): void {
    const first = this.#stacks.length
    const frames = new Map<number, readonly SourceFrame[]>()
    const framesAt = (pc: number, caller: boolean) => {
      const key = pc * 2 + (caller ? 1 : 0)
      let found = frames.get(key)
      if (found === undefined) {
        found = program.frames(pc, { caller })
        frames.set(key, found)
      }
      return found
    }
    for (const [index, stack] of measurement.stacks.entries()) {
      const all = stack.flatMap((pc, depth) => framesAt(pc, depth < stack.length - 1).toReversed())
      const weight = measurement.weights[index]!
      this.#stacks.push({
        ...{ frames: all.map((frame) => this.#function(frame)), line: all.at(-1)?.source?.line ?? 0, weight },
      })
    }
    for (const stack of measurement.order) this.#order.push(first + stack)
    this.#instructions += measurement.instructions
    this.#slices += measurement.slices
    this.#lostSamples += measurement.lostSamples
  }

  build(): SourceProfile {
    return {
      ...{ name: this.#name, period: this.#period, instructions: this.#instructions, slices: this.#slices },
      ...{ lostSamples: this.#lostSamples, functions: this.#functions, stacks: this.#stacks, order: this.#order },
    }
  }

  #function({ name, declaration, source }: SourceFrame): number {
    const file = declaration?.file ?? source?.file
    const key = `${file}\0${declaration?.line}\0${declaration?.column}\0${name}`
    let index = this.#indices.get(key)
    if (index === undefined) {
      index = this.#functions.length
      this.#indices.set(key, index)
      this.#functions.push({ name, file, line: declaration?.line, column: declaration?.column })
    }
    return index
  }
}

/** Instructions that the stacks stand for. */
export function totalWeight({ stacks }: SourceProfile): number {
  return stacks.reduce((total, { weight }) => total + weight, 0)
}

/** Functions of several profiles, by what they spend themselves, the most first. */
export function functionCosts(profiles: readonly SourceProfile[]): FunctionCost[] {
  const costs = new Map<string, { self: number; total: number } & ProfileFunction>()
  for (const { functions, stacks } of profiles) {
    const entries = functions.map((one) => {
      const key = `${one.file}\0${one.line}\0${one.column}\0${one.name}`
      const entry = costs.get(key) ?? { ...one, self: 0, total: 0 }
      costs.set(key, entry)
      return entry
    })
    for (const { frames, weight } of stacks) {
      const innermost = frames.at(-1)
      if (innermost !== undefined) entries[innermost]!.self += weight
      // Once, however often it stands in a recursion.
      for (const frame of new Set(frames)) entries[frame]!.total += weight
    }
  }
  return [...costs.values()].sort((a, b) => b.self - a.self || b.total - a.total || a.name.localeCompare(b.name))
}

/** Lines of several profiles, the most expensive first. */
export function lineCosts(profiles: readonly SourceProfile[]): LineCost[] {
  const costs = new Map<string, { self: number } & LineCost>()
  for (const { functions, stacks } of profiles) {
    for (const { frames, line, weight } of stacks) {
      const at = frames.at(-1)
      const own = at === undefined ? undefined : functions[at]
      if (own?.file === undefined || line === 0) continue
      const key = `${own.file}:${line}`
      const entry = costs.get(key)
      if (entry !== undefined) entry.self += weight
      else costs.set(key, { file: own.file, line, name: own.name, self: weight })
    }
  }
  return [...costs.values()].sort((a, b) => b.self - a.self || a.file.localeCompare(b.file) || a.line - b.line)
}
