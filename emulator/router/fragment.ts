import {
  headerBytesOf,
  IPV4_FRAGMENT,
  IPV4_HEADER_BYTES,
  IPV4_MORE_FRAGMENTS,
  IPV4_OFFSET_MASK,
  IPV4_TOTAL,
  writeHeaderChecksum,
} from './wire.ts'

const OPTION_END = 0
const OPTION_NOP = 1
/** Of an option's type: it goes into every fragment. */
const OPTION_COPIED = 0x80

/**
 * Takes the packet at `at` apart into fragments of at most `mtuBytes` (RFC 791 §3.2). Each is written at `to`, header and all, and
 * handed to `send` with its bytes. A packet that is a fragment itself is taken apart further.
 */
export function fragment(
  bytes: Uint8Array,
  view: DataView,
  at: number,
  mtuBytes: number,
  to: number,
  send: (bytes: number) => void,
): void {
  const headerBytes = headerBytesOf(view, at)
  const payloadBytes = view.getUint16(at + IPV4_TOTAL) - headerBytes
  const field = view.getUint16(at + IPV4_FRAGMENT)
  bytes.copyWithin(to, at, at + headerBytes)
  let ownHeader = headerBytes
  for (let done = 0; done < payloadBytes; ) {
    const room = (mtuBytes - ownHeader) & ~7
    const piece = Math.min(room, payloadBytes - done)
    const more = done + piece < payloadBytes ? IPV4_MORE_FRAGMENTS : field & IPV4_MORE_FRAGMENTS
    const offset = (field & IPV4_OFFSET_MASK) + (done >>> 3)
    view.setUint8(to, 0x40 | (ownHeader >>> 2))
    view.setUint16(to + IPV4_TOTAL, ownHeader + piece)
    view.setUint16(to + IPV4_FRAGMENT, more | offset)
    writeHeaderChecksum(view, to, ownHeader)
    const from = at + headerBytes + done
    bytes.copyWithin(to + ownHeader, from, from + piece)
    send(ownHeader + piece)
    // Later fragments have the options that are to be copied, and no others.
    if (done === 0) ownHeader = copiedOptions(bytes, at, headerBytes, to)
    done += piece
  }
}

/** Writes the options that every fragment has behind the fixed header at `to`; returns the header's bytes. */
function copiedOptions(bytes: Uint8Array, at: number, headerBytes: number, to: number): number {
  let end = IPV4_HEADER_BYTES
  for (let n = IPV4_HEADER_BYTES; n < headerBytes && bytes[at + n] !== OPTION_END; ) {
    const type = bytes[at + n]
    const length = type === OPTION_NOP ? 1 : bytes[at + n + 1]
    // What makes no sense ends the list: there is no telling where the next one begins.
    if (length === 0 || n + length > headerBytes || (type !== OPTION_NOP && length < 2)) break
    if (type & OPTION_COPIED) {
      bytes.copyWithin(to + end, at + n, at + n + length)
      end += length
    }
    n += length
  }
  while (end & 3) bytes[to + end++] = OPTION_END
  return end
}
