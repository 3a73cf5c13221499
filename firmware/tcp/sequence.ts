/** Sequence numbers are modulo 2^32 (RFC 9293 §3.4); they compare only through these. */

export function seqLt(a: u32, b: u32): bool {
  return <i32>(a - b) < 0
}

export function seqLeq(a: u32, b: u32): bool {
  return <i32>(a - b) <= 0
}

export function seqMax(a: u32, b: u32): u32 {
  return seqLt(a, b) ? b : a
}

/** True if `sequence` lies in [`start`, `start` + `bytes`). */
export function inWindow(sequence: u32, start: u32, bytes: u32): bool {
  return sequence - start < bytes
}
