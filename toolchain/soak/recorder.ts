import type { Copy, Inspector, Interposer, Passage } from '../../emulator/link/interposer.ts'
import type { FrameSink } from '../../emulator/link/link.ts'
import { PcapngWriter } from '../../emulator/link/pcapng.ts'

/**
 * Stands before another inspector and writes frames into a pcapng file, by the names of their cables: `out` is what a board
 * sends, whatever becomes of it, `in` what is left for it to receive.
 */
export class Recorder implements Inspector {
  readonly #inner: Inspector
  readonly #path: string
  readonly #sinks = new Map<string, FrameSink>()
  #writer: PcapngWriter

  /** Throws what node:fs throws. */
  constructor(inner: Inspector, path: string) {
    this.#inner = inner
    this.#path = path
    this.#writer = new PcapngWriter(path)
  }

  /** Forgets what it has written. Throws what node:fs throws. */
  restart(): void {
    this.#writer.close()
    this.#sinks.clear()
    this.#writer = new PcapngWriter(this.#path)
  }

  close(): void {
    this.#writer.close()
  }

  inspect(interposer: Interposer, passage: Passage, frame: Uint8Array, nowNs: number): readonly Copy[] | null {
    const copies = this.#inner.inspect(interposer, passage, frame, nowNs)
    const isLost = copies !== null && copies.length === 0
    if (passage === 'in') this.#write(`${interposer.name} out`, frame, nowNs)
    else if (!isLost) this.#write(`${interposer.name} in`, frame, nowNs)
    return copies
  }

  #write(name: string, frame: Uint8Array, nowNs: number): void {
    let sink = this.#sinks.get(name)
    if (sink === undefined) {
      sink = this.#writer.interface(name)
      this.#sinks.set(name, sink)
    }
    sink.frame(frame, 0, frame.length, nowNs)
  }
}
