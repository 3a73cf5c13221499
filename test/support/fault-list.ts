import type { Fault, Outcome } from './fault-run.ts'

/** Milliseconds by which a frame comes again: at once with what follows, when the move is long over, when its endpoint may be gone. */
const AGAIN_MS = [1, 300, 2500, 20_000]
/** By which it comes late: within the first repetitions, after the last, after the client's own, beyond a lease. */
const DELAY_MS = [1, 20, 300, 3000]
/** For which the hub carries nothing: within a lease, and beyond two. */
const CUT_MS = [100, 900, 5000]
/** After which a server is on again: before anybody has missed it, before and after it was given up. */
const ON_AGAIN_MS = [0, 1000, 10_000]

/** Every fault at every frame and slice of a run. */
export function everyFault({ frames, slices }: Outcome): Fault[] {
  const faults: Fault[] = []
  for (let at = 0; at < frames.length; at++) {
    for (const kind of ['drop', 'twice', 'swap', 'corrupt'] as const) faults.push({ kind, at })
    for (const ms of AGAIN_MS) faults.push({ kind: 'again', at, ms })
    for (const ms of DELAY_MS) faults.push({ kind: 'delay', at, ms })
    for (const ms of CUT_MS) faults.push({ kind: 'cut', at, ms })
    faults.push({ kind: 'cut', at })
    if (frames[at]!.startsWith('hub')) for (const ms of AGAIN_MS) faults.push({ kind: 'replay', at, ms })
  }
  slices.forEach((count, n) => {
    for (let at = 0; at <= count; at++) {
      faults.push({ kind: 'off', server: n + 1, at })
      for (const ms of ON_AGAIN_MS) faults.push({ kind: 'off', server: n + 1, at, ms })
    }
  })
  return faults
}
