import { CHUNK_BYTES, chunkAddress, chunkAllocate, chunkMeta, chunkRelease } from '../mem/chunk.ts'
import { state } from '../state.ts'
import { seqLeq, seqLt, seqMax } from './sequence.ts'
import { Tcb } from './tcb.ts'

/**
 * What the sender knows of the bytes between sndUna and sndMax, in one chunk that exists only while there is something to know:
 *
 *      chunk ├─Scoreboard─┬─Run─┬─Run─┬─...─┬─free─┤
 *
 * Runs are sorted and disjoint. Those with `sentUs` = 0 are held by the peer (SACK, RFC 2018), the others were repeated; what lies in no run was
 * sent once. chunkMeta.length counts the runs, chunkMeta.word the bytes held.
 *
 * RACK (RFC 8985 §6.2) asks which of two transmissions left later. No time is kept for each segment: bytes that were sent once left in the
 * order of their numbers; a repetition left after every byte below its `mark`, which was sndMax then, and before every byte from it on; and
 * of two repetitions the one with the greater `sentUs` left later.
 */
@unmanaged
export class Scoreboard {
  /** The latest transmission known to have arrived: all bytes below `rackEnd` left before it, and all repetitions before `rackUs`. */
  rackEnd: u32
  rackUs: u32
  /** As `rackEnd` and `rackUs`: what left before that and has not arrived is lost. */
  lostEnd: u32
  lostUs: u32
  /** What will be lost at `waitUs` + the reordering window: it left before what has arrived, but may just be late. */
  waitEnd: u32
  waitSentUs: u32
  waitUs: u32
  /** When the last repetition left, microseconds; no two have one time. */
  repeatedUs: u32
  /** Highest sequence number known to have arrived before this ACK (RFC 8985: RACK.fack). */
  highest: u32
}

@unmanaged
class Run {
  start: u32
  end: u32
  mark: u32
  sentUs: u32
}

const RUN_BYTES: u32 = 16
const RUNS_OFFSET: u32 = 48
const MAXIMUM_RUNS: u32 = (CHUNK_BYTES - RUNS_OFFSET) / RUN_BYTES
/** Room that SACK blocks leave for repetitions. */
const KEPT_RUNS: u32 = 16

export function scoreboardOf(tcb: Tcb): Scoreboard {
  return changetype<Scoreboard>(chunkAddress(tcb.scoreboard))
}

function runAt(tcb: Tcb, i: u32): Run {
  return changetype<Run>(chunkAddress(tcb.scoreboard) + RUNS_OFFSET + i * RUN_BYTES)
}

function runCount(tcb: Tcb): u32 {
  return tcb.scoreboard ? <u32>chunkMeta(tcb.scoreboard).length : 0
}

/** Bytes that the peer holds above sndUna. */
export function heldBytes(tcb: Tcb): u32 {
  return tcb.scoreboard ? chunkMeta(tcb.scoreboard).word : 0
}

/** True if `a` is before `b` on the wrapping microsecond clock. */
function earlier(a: u32, b: u32): bool {
  return <i32>(a - b) < 0
}

/** Opens the scoreboard. False if there is no chunk for it. */
export function scoreboardOpen(tcb: Tcb): bool {
  if (tcb.scoreboard) return true
  tcb.scoreboard = chunkAllocate()
  if (!tcb.scoreboard) return false
  chunkMeta(tcb.scoreboard).word = 0
  const board = scoreboardOf(tcb)
  board.rackEnd = board.lostEnd = board.waitEnd = board.highest = tcb.sndUna
  board.rackUs = board.lostUs = board.waitSentUs = board.repeatedUs = state().nowUs
  board.waitUs = state().nowUs
  return true
}

export function scoreboardClose(tcb: Tcb): void {
  if (!tcb.scoreboard) return
  chunkRelease(tcb.scoreboard)
  tcb.scoreboard = 0
}

/** Notes that the peer holds [start, end), which lies within what was sent. Returns the bytes that are news. */
export function scoreboardHold(tcb: Tcb, start: u32, end: u32): u32 {
  if (!scoreboardOpen(tcb)) return 0
  let news = end - start
  let from = start
  let to = end
  const count = runCount(tcb)
  for (let i: u32 = 0; i < count; i++) {
    const run = runAt(tcb, i)
    if (run.sentUs != 0 || seqLt(run.end, start) || seqLt(end, run.start)) continue
    news -= (seqLt(end, run.end) ? end : run.end) - seqMax(start, run.start)
    if (seqLt(run.start, from)) from = run.start
    to = seqMax(to, run.end)
  }
  if (news == 0 || (count >= MAXIMUM_RUNS - KEPT_RUNS && from == start && to == end)) return 0
  arrived(tcb, start, end)
  if (!paint(tcb, from, to, 0, 0)) return 0
  chunkMeta(tcb.scoreboard).word += news
  return news
}

/** Notes that [start, end) has just been sent once more. False if there is no room for that. */
export function scoreboardRepeat(tcb: Tcb, start: u32, end: u32): bool {
  if (!scoreboardOpen(tcb)) return false
  const board = scoreboardOf(tcb)
  const now = state().nowUs
  let time = earlier(board.repeatedUs, now) ? now : board.repeatedUs + 1
  if (time == 0) time = 1
  if (!paint(tcb, start, end, tcb.sndMax, time)) return false
  board.repeatedUs = time
  return true
}

/** [sndUna, una) has arrived: forgets it, before sndUna moves there. */
export function scoreboardAdvance(tcb: Tcb, una: u32): void {
  if (!tcb.scoreboard) return
  arrived(tcb, tcb.sndUna, una)
  const meta = chunkMeta(tcb.scoreboard)
  const count: u32 = meta.length
  let gone: u32 = 0
  while (gone < count && seqLt(runAt(tcb, gone).start, una)) {
    const run = runAt(tcb, gone)
    const whole = seqLeq(run.end, una)
    if (run.sentUs == 0) meta.word -= (whole ? run.end : una) - run.start
    if (!whole) {
      run.start = una
      break
    }
    gone++
  }
  if (gone) {
    memory.copy(changetype<usize>(runAt(tcb, 0)), changetype<usize>(runAt(tcb, gone)), (count - gone) * RUN_BYTES)
    meta.length = <u16>(count - gone)
  }
  const board = scoreboardOf(tcb)
  board.highest = seqMax(board.highest, una)
  if (gone == count && seqLeq(board.rackEnd, una)) scoreboardClose(tcb)
}

/** True if a repetition might find no room. */
export function scoreboardFull(tcb: Tcb): bool {
  return runCount(tcb) + 2 > MAXIMUM_RUNS
}

/** After a timeout: repetitions are forgotten, what the peer holds stays. */
export function scoreboardForgetRepeated(tcb: Tcb): void {
  const count = runCount(tcb)
  if (count == 0) return
  let kept: u32 = 0
  for (let i: u32 = 0; i < count; i++) {
    if (runAt(tcb, i).sentUs != 0) continue
    if (kept != i) {
      memory.copy(changetype<usize>(runAt(tcb, kept)), changetype<usize>(runAt(tcb, i)), RUN_BYTES)
    }
    kept++
  }
  chunkMeta(tcb.scoreboard).length = <u16>kept
  if (kept == 0) scoreboardClose(tcb)
}

/** Takes note of the ACK whose blocks were all added. */
export function scoreboardSettle(tcb: Tcb): void {
  const count = runCount(tcb)
  if (count == 0) return
  const board = scoreboardOf(tcb)
  for (let i = count; i > 0; i--) {
    const run = runAt(tcb, i - 1)
    if (run.sentUs != 0) continue
    board.highest = seqMax(board.highest, run.end)
    return
  }
}

/** [start, end) has arrived, at least in part for the first time: moves the marks of RACK, and tells reordering (RFC 8985 §6.2, steps 2 and 3). */
function arrived(tcb: Tcb, start: u32, end: u32): void {
  const board = scoreboardOf(tcb)
  const count = runCount(tcb)
  let at = start
  for (let i: u32 = 0; i < count; i++) {
    const run = runAt(tcb, i)
    if (seqLeq(run.end, at)) continue
    if (!seqLt(run.start, end)) break
    if (seqLt(at, run.start) && seqLt(at, board.highest)) reordered(tcb, at)
    at = run.end
    // Sooner than ever an answer came, it is the one to the first transmission.
    if (run.sentUs == 0 || state().nowUs - run.sentUs < tcb.minRttUs) continue
    board.rackEnd = seqMax(board.rackEnd, run.mark)
    if (earlier(board.rackUs, run.sentUs)) board.rackUs = run.sentUs
  }
  if (seqLt(at, end) && seqLt(at, board.highest)) reordered(tcb, at)
  board.rackEnd = seqMax(board.rackEnd, end)
}

/** The byte at `sequence` arrived after later ones, though it was sent once: the network reorders. */
function reordered(tcb: Tcb, sequence: u32): void {
  // Of what a timeout or a server before this one has repeated there is no note: it lies below `recover`.
  if (tcb.reorderSteps == 0 && !seqLt(sequence, tcb.recover)) tcb.reorderSteps = 1
}

/** Makes [start, end) one run, over whatever was there. False, with nothing changed, if there is no room. */
function paint(tcb: Tcb, start: u32, end: u32, mark: u32, sentUs: u32): bool {
  const count = runCount(tcb)
  let first: u32 = 0
  while (first < count && seqLeq(runAt(tcb, first).end, start)) first++
  let last = first
  while (last < count && seqLt(runAt(tcb, last).start, end)) last++
  // Runs first..last-1 lie under the new one; what stands out on either side stays.
  const left: u32 = first < last && seqLt(runAt(tcb, first).start, start) ? 1 : 0
  let right: u32 = 0
  let rightEnd: u32 = 0
  let rightMark: u32 = 0
  let rightUs: u32 = 0
  if (first < last) {
    const run = runAt(tcb, last - 1)
    if (seqLt(end, run.end)) {
      right = 1
      rightEnd = run.end
      rightMark = run.mark
      rightUs = run.sentUs
    }
  }
  const next = first + left + 1 + right
  if (next + (count - last) > MAXIMUM_RUNS) return false
  if (next != last) {
    memory.copy(changetype<usize>(runAt(tcb, next)), changetype<usize>(runAt(tcb, last)), (count - last) * RUN_BYTES)
  }
  chunkMeta(tcb.scoreboard).length = <u16>(next + (count - last))
  if (left) runAt(tcb, first).end = start
  write(tcb, first + left, start, end, mark, sentUs)
  if (right) write(tcb, first + left + 1, end, rightEnd, rightMark, rightUs)
  return true
}

function write(tcb: Tcb, i: u32, start: u32, end: u32, mark: u32, sentUs: u32): void {
  const run = runAt(tcb, i)
  run.start = start
  run.end = end
  run.mark = mark
  run.sentUs = sentUs
}

/** True if the run was repeated before the transmission that the two marks stand for. */
function repeatedBefore(run: Run, markEnd: u32, markUs: u32): bool {
  return run.sentUs != 0 && (seqLt(run.mark, markEnd) || earlier(run.sentUs, markUs))
}

/** Bytes that left before the marks and have not arrived. */
function missingBefore(tcb: Tcb, markEnd: u32, markUs: u32): u32 {
  const count = runCount(tcb)
  let bytes: u32 = 0
  let at = tcb.sndUna
  for (let i: u32 = 0; i < count; i++) {
    const run = runAt(tcb, i)
    if (seqLt(at, markEnd)) bytes += (seqLt(run.start, markEnd) ? run.start : markEnd) - at
    if (repeatedBefore(run, markEnd, markUs)) bytes += run.end - run.start
    at = run.end
  }
  return seqLt(at, markEnd) ? bytes + (markEnd - at) : bytes
}

/** Bytes that count as lost and were not repeated since. */
export function lostBytes(tcb: Tcb): u32 {
  if (!tcb.scoreboard) return 0
  const board = scoreboardOf(tcb)
  return missingBefore(tcb, board.lostEnd, board.lostUs)
}

/** Bytes that may be late or lost: the reordering window decides. */
export function doubtfulBytes(tcb: Tcb): u32 {
  if (!tcb.scoreboard) return 0
  const board = scoreboardOf(tcb)
  return missingBefore(tcb, board.waitEnd, board.waitSentUs)
}

/** First byte that counts as lost and was not repeated since; sndMax if there is none. */
export function firstLost(tcb: Tcb): u32 {
  if (!tcb.scoreboard) return tcb.sndMax
  const board = scoreboardOf(tcb)
  const count = runCount(tcb)
  let at = tcb.sndUna
  for (let i: u32 = 0; i < count; i++) {
    const run = runAt(tcb, i)
    if (seqLt(at, run.start) && seqLt(at, board.lostEnd)) return at
    if (repeatedBefore(run, board.lostEnd, board.lostUs)) return run.start
    at = run.end
  }
  return seqLt(at, board.lostEnd) ? at : tcb.sndMax
}

/** End of the lost bytes that begin at `from`, which left together. */
export function lostEndFrom(tcb: Tcb, from: u32): u32 {
  const end = scoreboardOf(tcb).lostEnd
  const count = runCount(tcb)
  for (let i: u32 = 0; i < count; i++) {
    const run = runAt(tcb, i)
    if (seqLt(from, run.start)) return seqLt(run.start, end) ? run.start : end
    if (seqLt(from, run.end)) return run.end
  }
  return end
}

/** True if the peer holds three segments, or pieces in three places, beyond something that is missing (RFC 5681: DupThresh). */
export function threeHeld(tcb: Tcb): bool {
  if (heldBytes(tcb) > 2 * <u32>tcb.mss) return true
  let places = 0
  for (let i: u32 = 0; i < runCount(tcb); i++) {
    if (runAt(tcb, i).sentUs == 0) places++
  }
  return places >= 3
}

/** Bytes held below `sequence`, which lies in no held run. */
export function heldBelow(tcb: Tcb, sequence: u32): u32 {
  const count = runCount(tcb)
  let bytes: u32 = 0
  for (let i: u32 = 0; i < count && seqLt(runAt(tcb, i).start, sequence); i++) {
    const run = runAt(tcb, i)
    if (run.sentUs == 0) bytes += run.end - run.start
  }
  return bytes
}

/** First sequence number at or after `from` that the peer does not hold. */
export function skipHeld(tcb: Tcb, from: u32): u32 {
  const count = runCount(tcb)
  for (let i: u32 = 0; i < count; i++) {
    const run = runAt(tcb, i)
    if (run.sentUs == 0 && seqLeq(run.start, from) && seqLt(from, run.end)) return run.end
  }
  return from
}

/** Start of the first held run above `from`, or `otherwise`. */
export function nextHeld(tcb: Tcb, from: u32, otherwise: u32): u32 {
  const count = runCount(tcb)
  for (let i: u32 = 0; i < count; i++) {
    const run = runAt(tcb, i)
    if (run.sentUs == 0 && seqLt(from, run.start)) return run.start
  }
  return otherwise
}
