/** Thrown for bytes that are no wasm module, or one that uses what the toolchain does not know. */
export class WasmFormatError extends Error {
  override readonly name = 'WasmFormatError'
}

/** A place in a module, and what can be read from there on. @throws WasmFormatError, naming the byte */
export abstract class WasmCursor {
  protected readonly bytes: Uint8Array
  protected readonly view: DataView
  /** What is read next; nothing behind `end` is. */
  protected at: number
  protected readonly end: number

  constructor(bytes: Uint8Array, start: number, end: number) {
    this.bytes = bytes
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.at = start
    this.end = end
  }

  /** What is wrong if `count` bytes were to come and the end does. */
  protected abstract shortage(count: number): string

  protected need(count: number): void {
    if (this.at + count > this.end) throw this.error(this.shortage(count))
  }

  protected byte(): number {
    this.need(1)
    return this.bytes[this.at++]
  }

  /** LEB128, unsigned, at most 32 bits. */
  protected u32(): number {
    let value = 0
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.byte()
      value += (byte & 0x7f) * 2 ** shift
      if (byte < 0x80) return value
    }
    throw this.error('a number of more than 5 bytes')
  }

  /** LEB128, signed, at most 64 bits. */
  protected signed(): bigint {
    let low = 0
    // Nearly all are short: no BigInt until it takes one.
    for (let shift = 0; shift < 28; shift += 7) {
      const byte = this.byte()
      low |= (byte & 0x7f) << shift
      if (byte < 0x80) return BigInt((low << (25 - shift)) >> (25 - shift))
    }
    let value = BigInt(low)
    for (let shift = 28n; shift < 70n; shift += 7n) {
      const byte = this.byte()
      value |= BigInt(byte & 0x7f) << shift
      if (byte < 0x80) return BigInt.asIntN(Math.min(64, Number(shift) + 7), value)
    }
    throw this.error('a number of more than 10 bytes')
  }

  protected error(what: string): WasmFormatError {
    return new WasmFormatError(`malformed WebAssembly at byte ${this.at}: ${what}`)
  }
}
