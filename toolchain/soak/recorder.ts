import type { Passage } from '../../emulator/link/interposer.ts'
import type { FrameSink } from '../../emulator/link/link.ts'
import { PcapngWriter } from '../../emulator/link/pcapng.ts'

/**
 * Writes frames into a pcapng file, by the names of their cables: `out` is what a board sends, whatever becomes of it, `in` what is left
 * for it to receive.
 */
export class Recorder {
  readonly #path: string
  readonly #sinks = new Map<string, FrameSink>()
  #writer: PcapngWriter

  /** Throws what node:fs throws. */
  constructor(path: string) {
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

  /** @param passage into the switch, or out of it */
  write(cable: string, passage: Passage, frame: Uint8Array, nowNs: number): void {
    const name = `${cable} ${passage === 'in' ? 'out' : 'in'}`
    let sink = this.#sinks.get(name)
    if (sink === undefined) {
      sink = this.#writer.interface(name)
      this.#sinks.set(name, sink)
    }
    sink.frame(frame, 0, frame.length, nowNs)
  }
}
