import { copyBytes } from '../mem/bytes.ts'
import { CHUNK_BYTES, ChunkMeta, chunkAddress, chunkMeta, chunkRelease } from '../mem/chunk.ts'
import { checksumCopy, checksumOdd } from '../wire/checksum.ts'
import { seqLeq, seqLt } from './sequence.ts'
import { Tcb } from './tcb.ts'

/**
 * Send queue: a list of chunks from sndUna to sndEnd; each knows the sequence number of its first byte. Bytes stay where DMA put
 * them until they are acknowledged.
 */

/** Small writes are gathered into the tail chunk up to this size, so that they do not take a chunk each. */
const GATHER_BYTES: u32 = 512

/** Appends a list of chunks, which the queue now owns. */
export function sendQueueAppend(tcb: Tcb, head: u32): void {
  const first = chunkMeta(head)
  if (tcb.sndTail && !first.next && first.length <= <u16>GATHER_BYTES) {
    const tail = chunkMeta(tcb.sndTail)
    const end: u32 = <u32>tail.offset + tail.length
    if (end + first.length <= CHUNK_BYTES) {
      copyBytes(chunkAddress(tcb.sndTail) + end, chunkAddress(head) + first.offset, first.length)
      tail.length += first.length
      tcb.sndEnd += first.length
      chunkRelease(head)
      return
    }
  }
  if (tcb.sndTail) chunkMeta(tcb.sndTail).next = head
  else tcb.sndHead = head
  let chunk = head
  let sequence = tcb.sndEnd
  while (true) {
    const meta = chunkMeta(chunk)
    meta.sequence = sequence
    sequence += meta.length
    if (!meta.next) break
    chunk = meta.next
  }
  tcb.sndTail = chunk
  tcb.sndEnd = sequence
}

/** Frees what lies below `una`. */
export function sendQueueAdvance(tcb: Tcb, una: u32): void {
  while (tcb.sndHead) {
    const chunk = tcb.sndHead
    const meta = chunkMeta(chunk)
    const end = meta.sequence + meta.length
    if (seqLt(una, end)) {
      if (seqLt(meta.sequence, una)) {
        const gone = <u16>(una - meta.sequence)
        meta.offset += gone
        meta.length -= gone
        meta.sequence = una
      }
      return
    }
    tcb.sndHead = meta.next
    if (!tcb.sndHead) tcb.sndTail = 0
    if (tcb.sndCursor == chunk) tcb.sndCursor = 0
    chunkRelease(chunk)
  }
}

function locate(tcb: Tcb, sequence: u32): u32 {
  let chunk = tcb.sndCursor && seqLeq(chunkMeta(tcb.sndCursor).sequence, sequence) ? tcb.sndCursor : tcb.sndHead
  let meta: ChunkMeta = chunkMeta(chunk)
  while (sequence - meta.sequence >= meta.length) {
    chunk = meta.next
    meta = chunkMeta(chunk)
  }
  tcb.sndCursor = chunk
  return chunk
}

/** Copies queued bytes into a segment. Returns their unfolded checksum. @param bytes > 0, all within the queue */
export function sendQueueCopy(tcb: Tcb, sequence: u32, target: u32, bytes: u32): u32 {
  let chunk = locate(tcb, sequence)
  let sum: u32 = 0
  let done: u32 = 0
  while (done < bytes) {
    const meta = chunkMeta(chunk)
    const skip = sequence + done - meta.sequence
    const piece = min<u32>(bytes - done, <u32>meta.length - skip)
    const part = checksumCopy(target + done, chunkAddress(chunk) + meta.offset + skip, piece, 0)
    sum += done & 1 ? checksumOdd(part) : part
    done += piece
    chunk = meta.next
  }
  return sum
}
