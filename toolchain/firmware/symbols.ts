/**
 * From a place in the compiled firmware back to its source: what a crash report and a debugger show. A pc is Wasmtime's
 * ModulePC: a byte offset in firmware.wasm, which is also the column that asc's source map counts in.
 */
import { decodedMappings, type SourceMapSegment, TraceMap } from '@jridgewell/trace-mapping'
import type { Layouts } from './layouts.ts'
import { functionName, readWasmModule, type WasmModule } from './wasm-module.ts'

export interface SourcePosition {
  /** Path from the firmware project's folder, as asc names its sources. */
  readonly file: string
  /** From 1. */
  readonly line: number
  /** From 1. */
  readonly column: number
}

export interface CodePosition {
  /** Name of the wasm function; of the caller, where the optimizer put a callee's code into it. */
  readonly functionName: string
  readonly source: SourcePosition | undefined
}

export class Symbols {
  /** Undefined if nothing tells them. */
  readonly layouts: Layouts | undefined
  readonly #module: WasmModule
  readonly #mapText: string | undefined
  #map: TraceMap | undefined

  constructor(wasm: Uint8Array, sourceMap?: string, layouts?: Layouts) {
    this.#module = readWasmModule(wasm)
    this.#mapText = sourceMap
    this.layouts = layouts
  }

  /** What lies at `pc`, or undefined if it is in no function. */
  resolveSource(pc: number): CodePosition | undefined {
    const range = this.#module.code.find(({ start, end }) => pc >= start && pc < end)
    if (range === undefined) return undefined
    const name = functionName(this.#module, range.functionIndex)
    return { functionName: name, source: this.#sourceAt(pc, range.start, range.end) }
  }

  /**
   * Source of the instruction at `pc` in the function from `start` to `end`. The compiler leaves instructions of its own without
   * a source (a loop's head, a check); they count to what stands before them, or else behind.
   */
  #sourceAt(pc: number, start: number, end: number): SourcePosition | undefined {
    const map = this.#sourceMap()
    if (map === undefined) return undefined
    // The map has one line, whose segments ascend by column.
    const segments = decodedMappings(map)[0] ?? []
    const after = upperBound(segments, pc)
    for (let index = after - 1; index >= 0 && segments[index][0] >= start; index--) {
      const position = sourceOf(map, segments[index])
      if (position) return position
    }
    for (let index = after; index < segments.length && segments[index][0] < end; index++) {
      const position = sourceOf(map, segments[index])
      if (position) return position
    }
    return undefined
  }

  /** Parsed when first asked for: megabytes that only a crash or a debugger needs. */
  #sourceMap(): TraceMap | undefined {
    // asc sets a sourceRoot for browsers to find the sources under; its `sources` alone are the real paths.
    if (this.#mapText !== undefined) this.#map ??= new TraceMap({ ...JSON.parse(this.#mapText), sourceRoot: '' })
    return this.#map
  }
}

/** Index of the first segment whose column is beyond `column`. */
function upperBound(segments: readonly SourceMapSegment[], column: number): number {
  let [low, high] = [0, segments.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    if (segments[middle][0] <= column) low = middle + 1
    else high = middle
  }
  return low
}

function sourceOf(map: TraceMap, segment: SourceMapSegment): SourcePosition | undefined {
  if (segment.length === 1) return undefined
  const file = map.sources[segment[1]]
  return file === null ? undefined : { file, line: segment[2] + 1, column: segment[3] + 1 }
}
