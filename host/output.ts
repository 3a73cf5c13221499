/** Where a process's output goes: a line at a time, without its end. */
export type OutputListener = (line: string, stream: 'stdout' | 'stderr') => void

/** A line longer than this is cut into several, characters: a program that never ends its line must not fill our memory. */
const MAXIMUM_LINE = 65536

/** Cuts what a program prints into lines. */
export class LineSplitter {
  readonly #emit: (line: string) => void
  #rest = ''

  constructor(emit: (line: string) => void) {
    this.#emit = emit
  }

  write(text: string): void {
    const lines = (this.#rest + text).split('\n')
    this.#rest = lines.pop()!
    for (const line of lines) this.#emit(line.endsWith('\r') ? line.slice(0, -1) : line)
    while (this.#rest.length >= MAXIMUM_LINE) {
      this.#emit(this.#rest.slice(0, MAXIMUM_LINE))
      this.#rest = this.#rest.slice(MAXIMUM_LINE)
    }
  }

  /** The program is gone: what it left without an end of line is a line too. */
  end(): void {
    if (this.#rest !== '') this.#emit(this.#rest)
    this.#rest = ''
  }
}
