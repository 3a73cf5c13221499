/** The other end of gdb-remote: packets as text, without a debugger behind it. */
import { type Duplex, duplexPair } from 'node:stream'
import { encodePacket, PacketReader } from '../../toolchain/debug/gdb/packet.ts'

export class GdbClient {
  /** For the server. */
  readonly far: Duplex
  readonly #near: Duplex
  readonly #reader = new PacketReader()
  /** Everything that came, as text. */
  received = ''
  readonly #answers: string[] = []
  #waiting: ((answer: string) => void)[] = []
  #ended: Promise<void>

  constructor() {
    const [near, far] = duplexPair()
    this.#near = near
    this.far = far
    near.on('error', () => {})
    near.on('data', (chunk: Buffer) => this.#take(chunk))
    this.#ended = new Promise((resolve) => near.once('end', resolve))
  }

  /** Sends bytes as they are. */
  write(bytes: Uint8Array | string): void {
    this.#near.write(bytes)
  }

  send(packet: string): void {
    this.write(encodePacket(Buffer.from(packet, 'latin1')))
  }

  /** The next packet that comes. */
  answer(): Promise<string> {
    const there = this.#answers.shift()
    if (there !== undefined) return Promise.resolve(there)
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  ask(packet: string): Promise<string> {
    this.send(packet)
    return this.answer()
  }

  /** Hears nothing any more. */
  stopListening(): void {
    this.#near.pause()
  }

  /** Hangs up. */
  close(): void {
    this.#near.end()
  }

  /** Is gone, as when its process is killed. */
  destroy(): void {
    this.far.destroy(Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' }))
  }

  /** The server hung up. */
  get ended(): Promise<void> {
    return this.#ended
  }

  #take(chunk: Buffer): void {
    this.received += chunk.toString('latin1')
    for (const incoming of this.#reader.feed(chunk)) {
      if (incoming.kind !== 'packet') continue
      const text = incoming.data.toString('latin1')
      const waiting = this.#waiting.shift()
      if (waiting) waiting(text)
      else this.#answers.push(text)
    }
  }
}
