/**
 * The framing of the Debug Adapter Protocol: a header with the length, an empty line, JSON.
 *
 *   Content-Length: 119\r\n\r\n{"seq":1,"type":"request", …}
 */
import { errorMessage } from '../../errors.ts'

const SEPARATOR = '\r\n\r\n'
const LENGTH_HEADER = 'Content-Length:'
/** Longest header that is waited for the end of, bytes. */
const MAXIMUM_HEADER_BYTES = 4096
/** Longest message, bytes: a client's largest is a page of memory to write. */
export const MAXIMUM_MESSAGE_BYTES = 16 * 1024 * 1024

export interface MessageSink {
  message(message: unknown): void
  /** Bytes that are no message; reading goes on with the next header. */
  nonsense(reason: string): void
}

export class MessageReader {
  readonly #sink: MessageSink
  #pending: Buffer[] = []
  #pendingBytes = 0
  /** Bytes of the message that is under way; undefined while the header is read. */
  #length: number | undefined

  constructor(sink: MessageSink) {
    this.#sink = sink
  }

  push(chunk: Buffer): void {
    this.#pending.push(chunk)
    this.#pendingBytes += chunk.length
    while (this.#length === undefined ? this.#readHeader() : this.#readBody(this.#length)) {
      // the next one may be there, too
    }
  }

  /** True if a header was there, or nonsense that was thrown away. */
  #readHeader(): boolean {
    if (this.#pendingBytes === 0) return false
    const bytes = this.#joined()
    const end = bytes.indexOf(SEPARATOR)
    if (end > MAXIMUM_HEADER_BYTES || (end < 0 && bytes.length > MAXIMUM_HEADER_BYTES))
      return this.#resynchronise(bytes)
    if (end < 0) return false
    const match = /^content-length: *(\d+) *$/im.exec(bytes.toString('latin1', 0, end))
    const length = match === null ? Number.NaN : Number(match[1])
    if (!(length <= MAXIMUM_MESSAGE_BYTES)) return this.#resynchronise(bytes)
    this.#length = length
    this.#keep(bytes.subarray(end + SEPARATOR.length))
    return true
  }

  #readBody(length: number): boolean {
    if (this.#pendingBytes < length) return false
    const bytes = this.#joined()
    this.#length = undefined
    this.#keep(bytes.subarray(length))
    let message: unknown
    try {
      message = JSON.parse(bytes.toString('utf8', 0, length))
    } catch (error) {
      this.#sink.nonsense(`a message is no JSON: ${errorMessage(error)}`)
      return true
    }
    this.#sink.message(message)
    return true
  }

  /** Throws away what stands before the next header. */
  #resynchronise(bytes: Buffer): boolean {
    const next = bytes.indexOf(LENGTH_HEADER, 1)
    // What may be the beginning of a header stays.
    const from = next >= 0 ? next : Math.max(1, bytes.length - LENGTH_HEADER.length)
    this.#keep(bytes.subarray(from))
    this.#sink.nonsense(`${from} bytes are no header with a Content-Length up to ${MAXIMUM_MESSAGE_BYTES}`)
    return next >= 0
  }

  #joined(): Buffer {
    const bytes = this.#pending.length === 1 ? this.#pending[0] : Buffer.concat(this.#pending)
    this.#keep(bytes)
    return bytes
  }

  #keep(bytes: Buffer): void {
    this.#pending = bytes.length > 0 ? [bytes] : []
    this.#pendingBytes = bytes.length
  }
}

export function encodeMessage(message: object): Buffer {
  const json = Buffer.from(JSON.stringify(message))
  return Buffer.concat([Buffer.from(`${LENGTH_HEADER} ${json.length}${SEPARATOR}`), json])
}
