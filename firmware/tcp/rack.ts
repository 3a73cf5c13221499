import { state } from '../state.ts'
import { doubtfulBytes, scoreboardOf, threeHeld } from './scoreboard.ts'
import { seqLt } from './sequence.ts'
import { F_RECOVERY, Tcb } from './tcb.ts'

/**
 * RACK (RFC 8985 §6): what left before something that has arrived, and has not arrived itself a reordering window later, is lost. It needs a
 * scoreboard (tcp/scoreboard.ts).
 */

/** RFC 8985 §6.2: recoveries that a wider window lasts. */
const WINDOW_LASTS: u8 = 16
/** Window before a round trip was measured, microseconds. */
const UNMEASURED_US: u32 = 1000

/** How long a segment may come after one that left later, microseconds (RFC 8985 §6.2, step 4). */
export function reorderWindowUs(tcb: Tcb): u32 {
  if (tcb.reorderSteps == 0 && ((tcb.flags & F_RECOVERY) != 0 || threeHeld(tcb))) return 0
  // Of a connection that has come from another server the shortest is not known yet.
  const rttUs = tcb.minRttUs ? tcb.minRttUs : tcb.srttUs
  if (rttUs == 0) return UNMEASURED_US
  const steps = max<u32>(tcb.reorderSteps, 1)
  return max<u32>(min<u32>((steps * rttUs) >>> 2, tcb.srttUs), 1)
}

/** An ACK was taken, or the window has passed: decides what is lost. */
export function rackJudge(tcb: Tcb): void {
  const board = scoreboardOf(tcb)
  const now = state().nowUs
  const windowUs = reorderWindowUs(tcb)
  const passed = now - board.waitUs >= windowUs
  if (windowUs == 0) {
    board.waitEnd = board.rackEnd
    board.waitSentUs = board.rackUs
  }
  if (passed) {
    board.lostEnd = board.waitEnd
    board.lostUs = board.waitSentUs
  }
  // What arrives while something waits opens a window of its own once that one has passed.
  if (board.waitEnd == board.lostEnd && board.waitSentUs == board.lostUs) {
    board.waitEnd = board.rackEnd
    board.waitSentUs = board.rackUs
    board.waitUs = now
  }
}

/** True if something is late, and the window will tell whether it is lost. */
export function rackWaits(tcb: Tcb): bool {
  if (!tcb.scoreboard) return false
  const board = scoreboardOf(tcb)
  return (board.waitEnd != board.lostEnd || board.waitSentUs != board.lostUs) && doubtfulBytes(tcb) != 0
}

/** The peer had a segment twice that was repeated as lost: it was late, the window is too narrow (RFC 8985 §6.2, step 4). */
export function reorderWindowWiden(tcb: Tcb): void {
  if (tcb.reorderKept != 0 && seqLt(tcb.sndUna, tcb.reorderRound)) return
  if (tcb.reorderSteps < 255) tcb.reorderSteps = <u8>(max<u32>(tcb.reorderSteps, 1) + 1)
  tcb.reorderRound = tcb.sndNxt
  tcb.reorderKept = WINDOW_LASTS
}

/** A recovery is over. */
export function reorderWindowAge(tcb: Tcb): void {
  if (tcb.reorderKept == 0) return
  tcb.reorderKept--
  if (tcb.reorderKept == 0) tcb.reorderSteps = 1
}
