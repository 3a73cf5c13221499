import { CHUNK_BYTES, chunkAddress, chunkAllocate, chunkMeta, chunkRelease } from '../mem/chunk.ts'
import { seqLeq, seqLt } from './sequence.ts'
import { Tcb } from './tcb.ts'

/**
 * SACK scoreboard of the sender (RFC 6675): what the peer holds above sndUna, as sorted, disjoint ranges of sequence
 * numbers in one chunk that exists only while there is such a range. chunkMeta.length counts the ranges, chunkMeta.word the
 * bytes in them. A range that does not fit any more is forgotten, which costs a needless retransmission and no more.
 */
const RANGE_BYTES: u32 = 8
const MAXIMUM_RANGES: u32 = CHUNK_BYTES / RANGE_BYTES - 1
/** RFC 6675 §2: DupThresh. */
export const DUP_THRESHOLD: u32 = 3

export function rangeCount(tcb: Tcb): u32 {
  return tcb.scoreboard ? <u32>chunkMeta(tcb.scoreboard).length : 0
}

function rangeAt(tcb: Tcb, i: u32): u32 {
  return chunkAddress(tcb.scoreboard) + i * RANGE_BYTES
}

export function rangeStart(tcb: Tcb, i: u32): u32 {
  return load<u32>(rangeAt(tcb, i))
}

export function rangeEnd(tcb: Tcb, i: u32): u32 {
  return load<u32>(rangeAt(tcb, i) + 4)
}

/** Bytes that the peer holds above sndUna. */
export function sackedBytes(tcb: Tcb): u32 {
  return tcb.scoreboard ? chunkMeta(tcb.scoreboard).word : 0
}

/** Notes that the peer holds [start, end), which lies within what was sent. Returns the bytes that are news. */
export function scoreboardAdd(tcb: Tcb, start: u32, end: u32): u32 {
  if (!tcb.scoreboard) {
    tcb.scoreboard = chunkAllocate()
    if (!tcb.scoreboard) return 0
    chunkMeta(tcb.scoreboard).word = 0
  }
  const meta = chunkMeta(tcb.scoreboard)
  const count: u32 = meta.length
  let first: u32 = 0
  while (first < count && seqLt(rangeEnd(tcb, first), start)) first++
  // Ranges first..last-1 touch the new one and melt into it.
  let last = first
  let covered: u32 = 0
  let from = start
  let to = end
  while (last < count && seqLeq(rangeStart(tcb, last), end)) {
    const s = rangeStart(tcb, last)
    const e = rangeEnd(tcb, last)
    covered += e - s
    if (seqLt(s, from)) from = s
    if (seqLt(to, e)) to = e
    last++
  }
  if (last == first) {
    if (count == MAXIMUM_RANGES) return 0
    memory.copy(rangeAt(tcb, first + 1), rangeAt(tcb, first), (count - first) * RANGE_BYTES)
    meta.length = <u16>(count + 1)
  } else if (last > first + 1) {
    memory.copy(rangeAt(tcb, first + 1), rangeAt(tcb, last), (count - last) * RANGE_BYTES)
    meta.length = <u16>(count - (last - first - 1))
  }
  store<u32>(rangeAt(tcb, first), from)
  store<u32>(rangeAt(tcb, first) + 4, to)
  const news = to - from - covered
  meta.word += news
  return news
}

/** Forgets what lies below the new sndUna, and the chunk once nothing is left. */
export function scoreboardAdvance(tcb: Tcb, una: u32): void {
  if (!tcb.scoreboard) return
  const meta = chunkMeta(tcb.scoreboard)
  const count: u32 = meta.length
  let gone: u32 = 0
  while (gone < count && seqLeq(rangeEnd(tcb, gone), una)) {
    meta.word -= rangeEnd(tcb, gone) - rangeStart(tcb, gone)
    gone++
  }
  if (gone == count) {
    scoreboardClear(tcb)
    return
  }
  if (gone) {
    memory.copy(rangeAt(tcb, 0), rangeAt(tcb, gone), (count - gone) * RANGE_BYTES)
    meta.length = <u16>(count - gone)
  }
  if (seqLt(rangeStart(tcb, 0), una)) {
    meta.word -= una - rangeStart(tcb, 0)
    store<u32>(rangeAt(tcb, 0), una)
  }
}

export function scoreboardClear(tcb: Tcb): void {
  if (!tcb.scoreboard) return
  chunkRelease(tcb.scoreboard)
  tcb.scoreboard = 0
}

/** Bytes below `sequence` that the peer holds; `sequence` lies in none of its ranges. */
export function sackedBelow(tcb: Tcb, sequence: u32): u32 {
  const count = rangeCount(tcb)
  let bytes: u32 = 0
  for (let i: u32 = 0; i < count && seqLt(rangeStart(tcb, i), sequence); i++)
    bytes += rangeEnd(tcb, i) - rangeStart(tcb, i)
  return bytes
}

/** First sequence number at or after `from` that the peer does not hold. */
export function skipSacked(tcb: Tcb, from: u32): u32 {
  const count = rangeCount(tcb)
  for (let i: u32 = 0; i < count; i++) {
    if (seqLt(from, rangeStart(tcb, i))) return from
    if (seqLt(from, rangeEnd(tcb, i))) return rangeEnd(tcb, i)
  }
  return from
}

/** Start of the first range above `from`, or `otherwise`. */
export function holeEnd(tcb: Tcb, from: u32, otherwise: u32): u32 {
  const count = rangeCount(tcb)
  for (let i: u32 = 0; i < count; i++) {
    if (seqLt(from, rangeStart(tcb, i))) return rangeStart(tcb, i)
  }
  return otherwise
}

/** RFC 6675 §4 IsLost: more than (DupThresh - 1) segments' worth above `sequence` is SACKed. */
export function isLost(tcb: Tcb, sequence: u32): bool {
  const count = rangeCount(tcb)
  let above: u32 = 0
  for (let i: u32 = count; i > 0; i--) {
    if (seqLt(rangeStart(tcb, i - 1), sequence)) break
    above += rangeEnd(tcb, i - 1) - rangeStart(tcb, i - 1)
  }
  return (
    above > (DUP_THRESHOLD - 1) * <u32>tcb.mss ||
    (count >= DUP_THRESHOLD && seqLeq(sequence, rangeStart(tcb, count - DUP_THRESHOLD)))
  )
}

/** Bytes at or above `sequence` that the peer holds. */
export function sackedAbove(tcb: Tcb, sequence: u32): u32 {
  let above: u32 = 0
  for (let i = rangeCount(tcb); i > 0 && seqLt(sequence, rangeEnd(tcb, i - 1)); i--) {
    const start = rangeStart(tcb, i - 1)
    above += rangeEnd(tcb, i - 1) - (seqLt(start, sequence) ? sequence : start)
  }
  return above
}

/** RFC 6675 §4 SetPipe: bytes that are thought to be in the network. */
export function pipeBytes(tcb: Tcb): u32 {
  const count = rangeCount(tcb)
  let pipe: u32 = 0
  let from = tcb.sndUna
  let above = sackedBytes(tcb)
  const limit = (DUP_THRESHOLD - 1) * <u32>tcb.mss
  for (let i: u32 = 0; i <= count; i++) {
    const end = i < count ? rangeStart(tcb, i) : tcb.sndMax
    if (seqLt(from, end)) {
      const lost = above > limit || count - i >= DUP_THRESHOLD
      if (!lost) pipe += end - from
      if (seqLt(from, tcb.highRxt)) pipe += (seqLt(tcb.highRxt, end) ? tcb.highRxt : end) - from
    }
    if (i < count) {
      above -= rangeEnd(tcb, i) - rangeStart(tcb, i)
      from = rangeEnd(tcb, i)
    }
  }
  return pipe
}
