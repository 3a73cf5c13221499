/** QEMU's framing of a byte stream (net/stream.c): a 32-bit big-endian length, then the frame. */

/** Bytes before each frame. */
export const LENGTH_BYTES = 4
/** QEMU's NET_BUFSIZE (include/net/net.h), the longest frame that its peers may send. */
export const MAXIMUM_STREAM_FRAME = 4096 + 65536

/** Takes a byte stream apart into frames. Keeps at most one frame that is not complete yet. */
export class FrameParser {
  readonly #partial = Buffer.alloc(LENGTH_BYTES + MAXIMUM_STREAM_FRAME)
  #partialBytes = 0
  readonly #onFrame: (memory: Uint8Array, offset: number, length: number) => void

  /** `onFrame` gets each complete frame, valid during the call. */
  constructor(onFrame: (memory: Uint8Array, offset: number, length: number) => void) {
    this.#onFrame = onFrame
  }

  /**
   * Takes the next bytes of the stream. Returns -1, or a length in the stream that no frame can have: the stream makes no sense from
   * there on.
   */
  push(chunk: Buffer): number {
    let at = 0
    if (this.#partialBytes > 0) {
      at = this.#complete(chunk)
      if (at < 0) return this.#partial.readUInt32BE(0)
    }
    while (chunk.length - at >= LENGTH_BYTES) {
      const length = chunk.readUInt32BE(at)
      if (!isFrameLength(length)) return length
      if (chunk.length - at < LENGTH_BYTES + length) break
      this.#onFrame(chunk, at + LENGTH_BYTES, length)
      at += LENGTH_BYTES + length
    }
    if (at < chunk.length) this.#partialBytes += chunk.copy(this.#partial, this.#partialBytes, at)
    return -1
  }

  /** Forgets a frame that is not complete: the stream ended. */
  reset(): void {
    this.#partialBytes = 0
  }

  /** Fills up the frame that was begun. Returns how many bytes of the chunk it took, or -1 for a bad length. */
  #complete(chunk: Buffer): number {
    let at = 0
    if (this.#partialBytes < LENGTH_BYTES) {
      at = chunk.copy(this.#partial, this.#partialBytes, 0, LENGTH_BYTES - this.#partialBytes)
      this.#partialBytes += at
      if (this.#partialBytes < LENGTH_BYTES) return at
    }
    const length = this.#partial.readUInt32BE(0)
    if (!isFrameLength(length)) return -1
    const wanted = LENGTH_BYTES + length - this.#partialBytes
    const got = chunk.copy(this.#partial, this.#partialBytes, at, Math.min(chunk.length, at + wanted))
    this.#partialBytes += got
    if (got === wanted) {
      this.#partialBytes = 0
      this.#onFrame(this.#partial, LENGTH_BYTES, length)
    }
    return at + got
  }
}

function isFrameLength(length: number): boolean {
  return length > 0 && length <= MAXIMUM_STREAM_FRAME
}
