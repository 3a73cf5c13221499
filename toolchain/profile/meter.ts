/**
 * Measures what a CPU under the debugger executes, call by call. All is counted in instructions and nothing in time, so that the same
 * slices give the same numbers.
 */
import type { DebugCall, DebugCpu, DebugOutcome } from '../../emulator/cpu/index.ts'
import type { Sites } from '../debug/session/walk.ts'
import { usageError } from '../errors.ts'
import { type CallNode, type CallStack, CallTree } from './call-tree.ts'

/** How often each instruction runs; the call stack each so many; or the call stack of every single one. */
export type MeterHow =
  | { readonly mode: 'count' }
  | { readonly mode: 'sample'; readonly period: number }
  | { readonly mode: 'exact' }

/** What a meter found. */
export interface Measurement {
  /** Executed, all of them counted whatever the mode. */
  readonly instructions: number
  /** Calls of the firmware. */
  readonly slices: number
  /** Offset in the module, and how often the instruction there ran; ascending. */
  readonly counts: readonly (readonly [number, number])[]
  /** Empty if only counted. */
  readonly stacks: readonly CallStack[]
  /** Instructions that each stack stands for. */
  readonly weights: readonly number[]
  /** Of samples, in the order in which they were taken: numbers of stacks. */
  readonly order: readonly number[]
  /** Samples that there was no room for. */
  readonly lostSamples: number
}

export interface Meter {
  /**
   * Runs a call, or on from a stop, to its end; or until it stands before instruction number `until` of the call. Whatever else it
   * stops at, it goes on from.
   */
  run(call: DebugCall, until?: number): DebugOutcome
  /** Measures no longer. The CPU may be gone by then. */
  end(): Measurement
}

/** Instructions from one sample to the next, at least: a sample costs as much as some instructions. */
export const MINIMUM_PERIOD = 10
/** A prime: a loop whose length divides the period would be met at one and the same instruction. */
export const DEFAULT_PERIOD = 997
const MAXIMUM_PERIOD = 2 ** 31
/** Samples that are kept. */
export const MAXIMUM_SAMPLES = 1 << 20
/** Numbers of the samples of one slice. */
const SAMPLE_WORDS = 1 << 24
/** Instructions that are traced at a time. */
const TRACE_INSTRUCTIONS = 1 << 20

/** @throws CommandError for what cannot be a period */
export function checkPeriod(period: number): number {
  if (Number.isSafeInteger(period) && period >= MINIMUM_PERIOD && period <= MAXIMUM_PERIOD) return period
  throw usageError(`a sample each ${period} instructions cannot be taken`, `give a number from ${MINIMUM_PERIOD} on`)
}

export function createMeter(twin: DebugCpu, how: MeterHow, sites: () => Sites): Meter {
  switch (how.mode) {
    case 'count':
      return new CountMeter(twin, 0)
    case 'sample':
      return new CountMeter(twin, how.period)
    case 'exact':
      return new ExactMeter(twin, sites())
  }
}

/** Counts in the addon, and notes call stacks there. */
class CountMeter implements Meter {
  readonly #twin: DebugCpu
  readonly #period: number
  readonly #histogram: Uint32Array
  readonly #tree = new CallTree()
  readonly #order: number[] = []
  #slices = 0

  /** @param period instructions from one sample to the next; 0 for none */
  constructor(twin: DebugCpu, period: number) {
    this.#twin = twin
    this.#period = period
    this.#histogram = twin.histogram
    this.#histogram.fill(0)
    twin.startProfile({ samplePeriod: period, sampleWords: SAMPLE_WORDS })
  }

  run(call: DebugCall, until?: number): DebugOutcome {
    const twin = this.#twin
    let outcome = until === undefined ? start(twin, call) : twin.runTo(call, until)
    while (outcome.state === 'stopped' && !(until !== undefined && outcome.reason === 'step')) outcome = twin.resume()
    if (outcome.state !== 'stopped') this.#slices++
    if (this.#period > 0) this.#take(twin.takeSamples())
    return outcome
  }

  end(): Measurement {
    if (!this.#twin.disposed) this.#twin.stopProfile()
    const counts = sparse(this.#histogram)
    const instructions = sum(counts)
    const taken = this.#order.length
    const lostSamples = this.#period === 0 ? 0 : Math.floor(instructions / this.#period) - taken
    const stacks = this.#tree.stacks()
    return {
      ...{ instructions, slices: this.#slices, counts, stacks },
      ...{ weights: this.#tree.counts(), order: this.#order, lostSamples },
    }
  }

  #take(samples: Uint32Array): void {
    for (let at = 0; at < samples.length && this.#order.length < MAXIMUM_SAMPLES; ) {
      const depth = samples[at]!
      // Innermost first: function and offset of each frame.
      const pcOf = (frame: number) => samples[at + 2 + 2 * frame]!
      let node = this.#tree.root
      for (let frame = depth - 1; frame > 0; frame--) node = this.#tree.callee(node, pcOf(frame))
      if (depth > 0) this.#order.push(this.#tree.count(node, pcOf(0), this.#period))
      at += 1 + 2 * depth
    }
  }
}

/** Has every instruction noted in the addon, and follows calls and returns through them. */
class ExactMeter implements Meter {
  readonly #twin: DebugCpu
  readonly #sites: Sites
  readonly #tree = new CallTree()
  readonly #counts = new Map<number, number>()
  readonly #stack: CallNode[] = [this.#tree.root]
  #before: ReturnType<Sites['at']> | undefined
  #instructions = 0
  #slices = 0

  constructor(twin: DebugCpu, sites: Sites) {
    this.#twin = twin
    this.#sites = sites
  }

  run(call: DebugCall, until?: number): DebugOutcome {
    const twin = this.#twin
    if (call !== 'resume') {
      this.#stack.length = 1
      this.#before = undefined
      if (until === 0) return twin.runTo(call, 0)
    }
    let next = call
    for (;;) {
      const done = next === 'resume' ? twin.steps! : 0
      const limit = until === undefined ? TRACE_INSTRUCTIONS : Math.min(TRACE_INSTRUCTIONS, until - done)
      const { outcome, pcs } = twin.trace(next, limit)
      for (const pc of pcs) this.#follow(pc)
      if (outcome.state !== 'stopped') {
        this.#slices++
        return outcome
      }
      if (outcome.reason === 'step' && twin.steps === until) return outcome
      next = 'resume'
    }
  }

  end(): Measurement {
    const counts = [...this.#counts].sort(([a], [b]) => a - b)
    return {
      ...{ instructions: this.#instructions, slices: this.#slices, counts, stacks: this.#tree.stacks() },
      ...{ weights: this.#tree.counts(), order: [], lostSamples: 0 },
    }
  }

  #follow(pc: number): void {
    const site = this.#sites.at(pc)
    const before = this.#before
    const stack = this.#stack
    if (before !== undefined) {
      const top = stack[stack.length - 1]!
      if (before.isCall && pc !== before.next) stack.push(this.#tree.callee(top, before.next))
      else if (stack.length > 1 && pc === top.returnPc && (before.ends || before.functionIndex !== site.functionIndex))
        stack.pop()
    }
    this.#before = site
    this.#instructions++
    this.#counts.set(pc, (this.#counts.get(pc) ?? 0) + 1)
    this.#tree.count(stack[stack.length - 1]!, pc, 1)
  }
}

function start(twin: DebugCpu, call: DebugCall): DebugOutcome {
  if (call === 'resume') return twin.resume()
  return call === 'reset' ? twin.reset() : twin.poll(call)
}

/** Entries that are not 0. */
export function sparse(histogram: Uint32Array | Float64Array): [number, number][] {
  const counts: [number, number][] = []
  for (const [pc, count] of histogram.entries()) if (count !== 0) counts.push([pc, count])
  return counts
}

function sum(counts: readonly (readonly [number, number])[]): number {
  return counts.reduce((total, [, count]) => total + count, 0)
}
