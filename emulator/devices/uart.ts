import { UART_BASE, UART_BYTES, UART_HEAD, UART_TAIL } from '../../abi/registers.ts'
import { type FaultLine, hex, type InicMemory } from './memory.ts'

/** A longer line is cut into pieces of this many bytes. */
export const CONSOLE_LINE_BYTES = 256
/** Lines remembered for the crash report. */
export const CONSOLE_HISTORY_LINES = 32
/** Control characters (Unicode category Cc) but the tabulator. */
const UNPRINTABLE = /(?!\t)\p{Cc}/gu

/**
 * UART: takes the bytes that the firmware put into its ring and hands them on as lines. Bytes that are no printable text are
 * shown as `\xNN`, so that a frame printed by the firmware cannot drive the terminal.
 */
export class Uart {
  #memory: InicMemory | null = null
  #tail = 0
  readonly #line = Buffer.alloc(CONSOLE_LINE_BYTES)
  #length = 0
  readonly #history: string[] = []
  readonly #onLine: (line: string) => void
  readonly #fault: FaultLine

  constructor(onLine: (line: string) => void, fault: FaultLine) {
    this.#onLine = onLine
    this.#fault = fault
  }

  powerOn(memory: InicMemory): void {
    this.#memory = memory
    this.#tail = 0
    this.#length = 0
    this.#history.length = 0
  }

  /** Before a poll. */
  show(): void {
    this.#memory!.setRegister(UART_TAIL, this.#tail)
  }

  /** After a poll: takes what is in the ring. */
  settle(): void {
    const memory = this.#memory!
    const head = memory.register(UART_HEAD)
    if (head === this.#tail) return
    const base = memory.register(UART_BASE)
    const ringBytes = memory.register(UART_BYTES)
    if (ringBytes === 0 || (ringBytes & (ringBytes - 1)) !== 0 || !memory.holds(base, ringBytes)) {
      this.#tail = head
      this.#fault(`UART: no ring of ${ringBytes} bytes at ${hex(base)}`)
      return
    }
    let waiting = (head - this.#tail) >>> 0
    if (waiting > ringBytes) {
      this.drain()
      this.#emit(`[${waiting - ringBytes} bytes of console output lost]`)
      waiting = ringBytes
    }
    const bytes = memory.bytes
    for (let at = (head - waiting) >>> 0; waiting > 0; waiting--, at = (at + 1) >>> 0)
      this.#take(bytes[base + (at & (ringBytes - 1))])
    this.#tail = head
  }

  /** Hands on a line that was not ended; for a board that stops. */
  drain(): void {
    if (this.#length > 0) this.#flush()
  }

  /** The last lines, oldest first. */
  history(): string[] {
    return [...this.#history]
  }

  #take(byte: number): void {
    if (byte === 0x0a) {
      this.#flush()
      return
    }
    if (byte === 0x0d) return
    if (this.#length === CONSOLE_LINE_BYTES) this.#flush()
    this.#line[this.#length++] = byte
  }

  #flush(): void {
    const text = this.#line.toString('utf8', 0, this.#length)
    this.#length = 0
    this.#emit(text.replace(UNPRINTABLE, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`))
  }

  #emit(line: string): void {
    if (this.#history.length === CONSOLE_HISTORY_LINES) this.#history.shift()
    this.#history.push(line)
    this.#onLine(line)
  }
}
