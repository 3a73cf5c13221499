/** Cuts a byte stream into lines. */
export class LineReader {
  readonly #maximumBytes: number
  readonly #onLine: (line: string) => void
  #pending: Buffer = Buffer.alloc(0)

  constructor(maximumBytes: number, onLine: (line: string) => void) {
    this.#maximumBytes = maximumBytes
    this.#onLine = onLine
  }

  /** False if a line is too long: nothing more can be read then. */
  push(chunk: Buffer): boolean {
    let rest = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk])
    for (let end = rest.indexOf(0x0a); end >= 0; end = rest.indexOf(0x0a)) {
      if (end > this.#maximumBytes) return false
      const line = rest.toString('utf8', 0, end)
      rest = rest.subarray(end + 1)
      if (line.trim() !== '') this.#onLine(line)
    }
    this.#pending = rest
    return rest.length <= this.#maximumBytes
  }
}
