import type { Readable } from 'node:stream'
import { nodeError } from './errors.ts'

/** What StringDecoder shows of the character that it holds back. */
interface Decoder {
  readonly lastChar: Uint8Array
  readonly lastNeed: number
  readonly lastTotal: number
}

/** Its text has lost a bit of every byte. */
const LOSSY = 'ascii'
/** Stands for bytes that were no UTF-8. */
const REPLACEMENT = '\ufffd'

/**
 * The bytes that a stream holds and that nobody has read; they stay where they are. Throws ERR_INVALID_STATE if an encoding was set and they
 * cannot be told from their text.
 */
export function unreadBytes(stream: Readable): Uint8Array[] {
  const { readableBuffer, decoder } = internals(stream)
  const encoding = stream.readableEncoding
  // Node 22 leaves what was read behind, as null.
  const chunks = [...readableBuffer].filter((chunk) => chunk !== null)
  if (encoding === null) return chunks as Uint8Array[]
  const bytes = chunks.map((chunk) => (typeof chunk === 'string' ? encode(chunk, encoding) : chunk))
  if (decoder) bytes.push(decoder.lastChar.subarray(0, decoder.lastTotal - decoder.lastNeed))
  return bytes.filter((piece) => piece.length > 0)
}

function encode(text: string, encoding: BufferEncoding): Uint8Array {
  const bytes = Buffer.from(text, encoding)
  const lossy = encoding === LOSSY || (encoding === 'utf8' && text.includes(REPLACEMENT))
  // A character, or a group of BASE64, that was read by half comes out differently.
  if (lossy || bytes.toString(encoding) !== text) {
    throw nodeError(
      Error,
      'ERR_INVALID_STATE',
      `Invalid state: unread ${encoding} text cannot be turned back into the bytes that came`,
    )
  }
  return bytes
}

/** Members that Readable has and its types do not. */
function internals(stream: Readable): {
  readableBuffer: Iterable<Uint8Array | string | null>
  decoder: Decoder | null | undefined
} {
  const { readableBuffer, _readableState } = stream as unknown as {
    readableBuffer: Iterable<Uint8Array | string | null>
    _readableState: { decoder?: Decoder | null }
  }
  return { readableBuffer, decoder: _readableState.decoder }
}
