/** The `onread` option of net.Socket: data goes into a buffer of the application's own, and to its callback, instead of into the stream. */
export interface OnReadOptions {
  /** One buffer for all data, or a function that gives one for each piece. */
  readonly buffer: Uint8Array | (() => Uint8Array)
  /** False stops it until the socket is resumed. */
  readonly callback: (bytes: number, buffer: Uint8Array) => boolean | undefined
}

/** True for what Node takes as `onread`; anything else it ignores. */
export function isOnRead(value: unknown): value is OnReadOptions {
  if (typeof value !== 'object' || value === null) return false
  const { buffer, callback } = value as Partial<OnReadOptions>
  return (buffer instanceof Uint8Array || typeof buffer === 'function') && typeof callback === 'function'
}

/** Feeds an `onread` callback, and keeps what it does not want yet; the card's credit bounds how much that can be. */
export class OnRead {
  readonly #options: OnReadOptions
  readonly #held: Buffer[] = []
  #paused = false

  constructor(options: OnReadOptions) {
    this.#options = options
  }

  /** Bytes that wait for `resume`. */
  get heldBytes(): number {
    return this.#held.reduce((sum, data) => sum + data.length, 0)
  }

  /** Those bytes. */
  get held(): readonly Buffer[] {
    return this.#held
  }

  push(data: Buffer): void {
    this.#held.push(data)
    if (!this.#paused) this.resume()
  }

  pause(): void {
    this.#paused = true
  }

  /** Goes on with what is held, until the callback says stop. */
  resume(): void {
    this.#paused = false
    const { buffer, callback } = this.#options
    while (this.#held.length > 0 && !this.#paused) {
      const data = this.#held[0]!
      const target = typeof buffer === 'function' ? buffer() : buffer
      const bytes = data.copy(target, 0, 0, Math.min(data.length, target.length))
      if (bytes === data.length) this.#held.shift()
      else this.#held[0] = data.subarray(bytes)
      if (callback(bytes, target) === false) this.#paused = true
      if (bytes === 0) return
    }
  }
}
