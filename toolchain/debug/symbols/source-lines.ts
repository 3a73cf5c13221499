/** The source map by pc, as parallel arrays: a firmware has tens of thousands of segments, and stepping asks for each pc. */
import { decodedMappings, TraceMap } from '@jridgewell/trace-mapping'

export class SourceLines {
  /** As asc names them. */
  readonly files: readonly string[]
  readonly count: number
  /** Ascending; a segment goes to the next one's pc. */
  readonly pc: Uint32Array
  /** Index in `files`, or -1: made by the compiler. */
  readonly file: Int32Array
  /** From 1. */
  readonly line: Uint32Array
  /** From 1. */
  readonly column: Uint32Array

  /** @throws Error for a text that is no source map */
  constructor(mapText: string | undefined) {
    // asc sets a sourceRoot for browsers to find the sources under; its `sources` alone are the real paths.
    const map = mapText === undefined ? undefined : new TraceMap({ ...JSON.parse(mapText), sourceRoot: '' })
    const segments = map === undefined ? [] : (decodedMappings(map)[0] ?? [])
    this.files = map?.sources.map((source) => source ?? '') ?? []
    this.count = segments.length
    this.pc = new Uint32Array(this.count)
    this.file = new Int32Array(this.count).fill(-1)
    this.line = new Uint32Array(this.count)
    this.column = new Uint32Array(this.count)
    for (const [index, segment] of segments.entries()) {
      this.pc[index] = segment[0]
      if (segment.length === 1) continue
      this.file[index] = segment[1]
      this.line[index] = segment[2] + 1
      this.column[index] = segment[3] + 1
    }
  }

  /** Index of the first segment at or behind `pc`. */
  firstFrom(pc: number): number {
    return lowerBound(this.pc, pc)
  }
}

/** Index of the first element that is not below `value`, of an ascending array. */
export function lowerBound(ascending: Uint32Array, value: number): number {
  let [low, high] = [0, ascending.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    if (ascending[middle] < value) low = middle + 1
    else high = middle
  }
  return low
}
