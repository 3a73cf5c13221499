import { CONGESTION_NEWRENO } from '../../abi/boot.ts'
import { state } from '../state.ts'
import { F_LOSS, Tcb } from './tcb.ts'

/**
 * Congestion control: NewReno (RFC 5681, RFC 6582) and CUBIC (RFC 9438). cwnd and ssthresh are bytes.
 */

/** cwnd never grows beyond this: the most that can be queued. */
const MAXIMUM_CWND: u32 = 16 << 20
/** RFC 9438 §5: C, and §4.6 β. */
const CUBIC_C: f32 = 0.4
const CUBIC_BETA: f32 = 0.7

/** Initial window of ten segments (RFC 6928). */
export function congestionStart(tcb: Tcb): void {
  const mss: u32 = tcb.mss
  tcb.cwnd = min<u32>(10 * mss, max<u32>(2 * mss, 14600))
  tcb.ssthresh = MAXIMUM_CWND
  tcb.cubicEpochMs = 0
  tcb.cubicWMax = 0
}

/** An endpoint goes on that has come from another server. */
export function congestionResume(tcb: Tcb, cwnd: u32, ssthresh: u32, cubicWMax: f32): void {
  tcb.cwnd = min<u32>(max<u32>(cwnd, tcb.mss), MAXIMUM_CWND)
  tcb.ssthresh = min<u32>(max<u32>(ssthresh, 2 * <u32>tcb.mss), MAXIMUM_CWND)
  // No number, or one that no window reaches, starts the curve anew.
  tcb.cubicWMax = cubicWMax >= 0 && cubicWMax <= <f32>MAXIMUM_CWND ? cubicWMax : 0
  tcb.cubicEpochMs = 0
}

/** New data was acknowledged outside recovery. @param bytes newly acknowledged @param flight bytes outstanding before */
export function congestionAcked(tcb: Tcb, bytes: u32, flight: u32): void {
  const mss: u32 = tcb.mss
  // An application that does not fill the window learns nothing about the path (RFC 7661 §1).
  if (flight + 2 * mss < tcb.cwnd && flight * 2 < tcb.cwnd) return
  if (tcb.cwnd < tcb.ssthresh) {
    // Slow start by bytes (RFC 3465, L = what one delayed or coalesced ACK covers; after a timeout L = 1, §2.3).
    const grown = tcb.cwnd + (tcb.flags & F_LOSS ? min<u32>(bytes, mss) : bytes)
    tcb.cwnd = min<u32>(grown, min<u32>(max<u32>(tcb.ssthresh, tcb.cwnd + mss), MAXIMUM_CWND))
    return
  }
  tcb.cwndAcked += bytes
  if (state().congestionControl == CONGESTION_NEWRENO) {
    if (tcb.cwndAcked >= tcb.cwnd) {
      tcb.cwndAcked -= tcb.cwnd
      tcb.cwnd = min<u32>(tcb.cwnd + mss, MAXIMUM_CWND)
    }
    return
  }
  cubicAcked(tcb, bytes, mss)
}

/** RFC 9438 §4.2-4.5, in segments and seconds. */
function cubicAcked(tcb: Tcb, bytes: u32, mss: u32): void {
  const now = state().nowMs
  const cwnd = <f32>tcb.cwnd / <f32>mss
  if (!tcb.cubicEpochMs) {
    tcb.cubicEpochMs = now ? now : 1
    if (tcb.cubicWMax < cwnd) tcb.cubicWMax = cwnd
    // K = cbrt((Wmax - cwnd) / C) (§4.2, figure 2)
    tcb.cubicK = <f32>Math.cbrt(<f64>((tcb.cubicWMax - cwnd) / CUBIC_C))
    tcb.cubicWEst = cwnd
  }
  const rtt: f32 = <f32>tcb.srttUs / 1000000
  const t: f32 = <f32>max<i32>(<i32>(now - tcb.cubicEpochMs), 0) / 1000
  const d = t + rtt - tcb.cubicK
  let target = CUBIC_C * d * d * d + tcb.cubicWMax
  // §4.2: between cwnd and 1.5 cwnd.
  if (target < cwnd) target = cwnd
  if (target > <f32>1.5 * cwnd) target = <f32>1.5 * cwnd
  // §4.3: the Reno-friendly estimate, α = 3 (1 - β) / (1 + β).
  tcb.cubicWEst += (<f32>0.5294 * (<f32>bytes / <f32>mss)) / cwnd
  let grow: u32
  if (tcb.cubicWEst > target) {
    grow = <u32>((tcb.cubicWEst - cwnd) * <f32>mss)
    if (<i32>grow < 0) grow = 0
  } else {
    // (target - cwnd) / cwnd for each segment acknowledged.
    grow = <u32>(((target - cwnd) / cwnd) * <f32>bytes)
  }
  tcb.cwnd = min<u32>(tcb.cwnd + grow, MAXIMUM_CWND)
}

/** A loss was found by duplicate ACKs or SACK: the multiplicative decrease. @param outstanding bytes */
export function congestionLoss(tcb: Tcb, outstanding: u32): void {
  const mss: u32 = tcb.mss
  // What limited transmit or a recovery has sent beyond cwnd does not count (RFC 5681 §3.2 (2), RFC 9438 §4.6).
  const flight = min<u32>(outstanding, tcb.cwnd)
  if (state().congestionControl == CONGESTION_NEWRENO) {
    tcb.ssthresh = max<u32>(flight >>> 1, 2 * mss) // RFC 5681 (4)
  } else {
    const cwnd = <f32>tcb.cwnd / <f32>mss
    // §4.7 fast convergence: another flow is growing, leave it room.
    tcb.cubicWMax = cwnd < tcb.cubicWMax ? (cwnd * (1 + CUBIC_BETA)) / 2 : cwnd
    tcb.ssthresh = max<u32>(<u32>(<f32>flight * CUBIC_BETA), 2 * mss) // §4.6
    tcb.cubicEpochMs = 0
  }
  tcb.cwndAcked = 0
}

/** The retransmission timer expired (RFC 5681 (5), RFC 9438 §4.8): back to one segment. */
export function congestionTimeout(tcb: Tcb, flight: u32): void {
  congestionLoss(tcb, flight)
  tcb.cwnd = tcb.mss
}

/** After an idle time of more than an RTO the window starts again (RFC 5681 §4.1). */
export function congestionIdle(tcb: Tcb): void {
  const restart = min<u32>(10 * <u32>tcb.mss, tcb.cwnd)
  tcb.cwnd = restart
  tcb.cubicEpochMs = 0
}
