/** From counts of instructions to counts of the source's lines and functions. */
import type { Program, SourceFrame } from '../debug/symbols/index.ts'

/** What was executed of one source file. */
export interface FileCoverage {
  /** As asc names it. */
  readonly name: string
  /** Absolute path, or undefined where the project folder is not known. */
  readonly path: string | undefined
  /** Lines with code, and how often each was executed. Lines that no code comes from are not there. */
  readonly lines: Map<number, number>
  /** By name; those that the compiler left out are not there. */
  readonly functions: Map<string, FunctionCoverage>
}

export interface FunctionCoverage {
  readonly line: number
  calls: number
}

/** How often code of one source function ran at one place where it stands in the module. */
interface Copy {
  /** Greatest count of each line's instructions. */
  readonly lines: Map<number, number>
  readonly frame: SourceFrame
  /** Count of its first instruction. */
  readonly entries: number
}

/** Sums what several modules, and several runs of each, have executed. */
export class Coverage {
  readonly #files = new Map<string, FileCoverage>()

  /** By file name. asc's library is left out. */
  get files(): readonly FileCoverage[] {
    return [...this.#files.values()].sort((a, b) => a.name.localeCompare(b.name))
  }

  /** @param counts offset in the module, and how often the instruction there ran */
  add(program: Program, counts: Iterable<readonly [number, number]>): void {
    const executed = new Map(counts)
    for (const { range } of program.functions) {
      const copies = new Map<string, Copy>()
      for (const { pc } of program.instructions(range.start, range.end)) {
        collect(copies, program.frames(pc), executed.get(pc) ?? 0)
      }
      for (const copy of copies.values()) this.#addCopy(program, copy)
    }
  }

  #addCopy(program: Program, { lines, frame, entries }: Copy): void {
    const { declaration, source } = frame
    const file = declaration?.file ?? source?.file
    if (file === undefined || file.startsWith('~')) return
    const coverage = this.#file(program, file)
    for (const [line, count] of lines) coverage.lines.set(line, (coverage.lines.get(line) ?? 0) + count)
    if (declaration === undefined) return
    const known = coverage.functions.get(frame.name)
    // Two of one name in one file: told apart by their lines.
    const name =
      known !== undefined && known.line !== declaration.line ? `${frame.name}:${declaration.line}` : frame.name
    const entry = coverage.functions.get(name) ?? { line: declaration.line, calls: 0 }
    coverage.functions.set(name, entry)
    entry.calls += entries
  }

  #file(program: Program, name: string): FileCoverage {
    const path = program.files.find((file) => file.name === name)?.path
    const key = path ?? name
    let file = this.#files.get(key)
    if (file === undefined) {
      file = { name, path, lines: new Map(), functions: new Map() }
      this.#files.set(key, file)
    }
    return file
  }
}

/**
 * Counts an instruction for the function that it is of. Where a function was put inline, its first instruction counts for the lines that
 * call it, too: they may have no other code.
 */
function collect(copies: Map<string, Copy>, frames: readonly SourceFrame[], count: number): void {
  for (const [level, frame] of frames.entries()) {
    const key = frames
      .slice(level + 1)
      .map(({ name, source }) => `${name} ${source?.line}:${source?.column}`)
      .concat(frame.name, String(frame.declaration?.line))
      .join('\n')
    let copy = copies.get(key)
    const isNew = copy === undefined
    if (copy === undefined) {
      copy = { lines: new Map(), frame, entries: count }
      copies.set(key, copy)
    }
    const line = frame.source?.line
    // The declaration of another file's constant is no line of this function.
    if (line !== undefined && (frame.declaration === undefined || frame.source?.file === frame.declaration.file))
      copy.lines.set(line, Math.max(copy.lines.get(line) ?? 0, count))
    if (!isNew) return
  }
}

/**
 * lcov's trace file format, version 1 (geninfo(1)), which genhtml, editors and coverage services read: for each file its functions (FN,
 * FNDA) and lines (DA) with their counts.
 */
export function lcovText(files: readonly FileCoverage[], testName = 'inic'): string {
  const text: string[] = []
  for (const { name, path, lines, functions } of files) {
    text.push(`TN:${testName}`, `SF:${path ?? name}`)
    const ordered = [...functions].sort(([, a], [, b]) => a.line - b.line)
    for (const [functionName, { line }] of ordered) text.push(`FN:${line},${functionName}`)
    for (const [functionName, { calls }] of ordered) text.push(`FNDA:${calls},${functionName}`)
    text.push(`FNF:${ordered.length}`, `FNH:${ordered.filter(([, { calls }]) => calls > 0).length}`)
    const counted = [...lines].sort(([a], [b]) => a - b)
    for (const [line, count] of counted) text.push(`DA:${line},${count}`)
    text.push(`LF:${counted.length}`, `LH:${counted.filter(([, count]) => count > 0).length}`, 'end_of_record')
  }
  return text.length === 0 ? '' : `${text.join('\n')}\n`
}
