/**
 * What `inic bench` asks of the benchmarks. They live in bench/, export an `engine` from bench/index.ts, and are loaded when
 * they are asked for: nothing else of the toolchain depends on them.
 */

/** One benchmark that can be asked for by name. */
export interface BenchCase {
  readonly name: string
  readonly summary: string
}

export interface BenchOptions {
  /** Names of the cases to run, in this order; each is one of `cases`. */
  readonly cases: readonly string[]
  /** Shorter runs, for a look rather than for a comparison. */
  readonly quick: boolean
  /** Shell commands that print another stack's figures (bench/peer.ts). */
  readonly peers: readonly string[]
  /** Called with what is being measured, before it is. */
  readonly onProgress: (text: string) => void
}

/** One figure, with what it is compared with. */
export interface BenchFigure {
  readonly case: string
  /** `connections a second`, `round trip`, ... */
  readonly name: string
  readonly value: number
  readonly unit: string
  /** The same figure of somebody else, measured in the same run. */
  readonly reference?: { readonly name: string; readonly value: number }
  /** What the figure has to reach, in words: `at least 5 times the kernel's`. */
  readonly bar?: string
  /** Whether it does; undefined where there is no bar. */
  readonly reached?: boolean
}

export interface BenchReport {
  readonly figures: readonly BenchFigure[]
  /** Machine, versions, settings: whatever a reader needs to judge the figures. */
  readonly environment: Readonly<Record<string, string | number>>
}

export interface BenchEngine {
  readonly cases: readonly BenchCase[]
  run(options: BenchOptions): Promise<BenchReport>
}
