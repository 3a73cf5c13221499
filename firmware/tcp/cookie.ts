import { sipHash } from '../hal/random.ts'
import { counters, state } from '../state.ts'
import { tablePorts } from './table.ts'

/**
 * SYN cookies (RFC 4987 §3.6): the SYN-ACK's sequence number holds what a SYN-RECEIVED endpoint would.
 *
 *      31       27 26    24 23                       0
 *      ├─time ────┼─mss────┼─keyed hash──────────────┤
 *
 * Time counts in units of 65.5 s. With timestamps the low five bits of TSval hold the peer's window scale and SACK-permitted.
 */
const UNIT_SHIFT: u32 = 16
/** A cookie is good for the unit in which it was made and the next. */
const MAXIMUM_AGE: u32 = 1
const HASH_MASK: u32 = 0xffffff

const MSS_COUNT: u32 = 8

/** The largest MSS in the table that is not above `mss`. */
function mssIndex(mss: u32): u32 {
  let index: u32 = MSS_COUNT - 1
  while (index > 0 && cookieMss(index) > mss) index--
  return index
}

function cookieMss(index: u32): u32 {
  if (index == 0) return 88
  if (index == 1) return 536
  if (index == 2) return 1024
  if (index == 3) return 1220
  if (index == 4) return 1360
  if (index == 5) return 1400
  if (index == 6) return 1440
  return 1460
}

function hash(local: u32, remote: u32, ports: u32, peerSequence: u32, head: u32): u32 {
  const st = state()
  const a = <u64>local | ((<u64>remote) << 32)
  const b = ((<u64>ports) << 32) | peerSequence
  return <u32>sipHash(st.secret0 ^ head, st.secret1, a, b) & HASH_MASK
}

/** The sequence number to answer a SYN with. @param peerSequence of the SYN @param mss its MSS option, 88 at least */
export function cookieMake(local: u32, remote: u32, localPort: u32, remotePort: u32, peerSequence: u32, mss: u32): u32 {
  state().cookieMs = state().nowMs
  const head = (((state().nowMs >>> UNIT_SHIFT) & 31) << 3) | mssIndex(mss)
  return (head << 24) | hash(local, remote, tablePorts(localPort, remotePort), peerSequence, head)
}

/** True while there may be cookies that are still good. */
export function cookiesOut(): bool {
  const st = state()
  return counters().tcpCookiesSent != 0 && st.nowMs - st.cookieMs <= (MAXIMUM_AGE + 1) << UNIT_SHIFT
}

/** The MSS that a returning cookie stands for, or 0 if it is forged or too old. */
export function cookieCheck(
  local: u32,
  remote: u32,
  localPort: u32,
  remotePort: u32,
  peerSequence: u32,
  cookie: u32,
): u32 {
  // Without a flood there are no cookies, and so none to be guessed.
  if (!cookiesOut()) return 0
  const head = cookie >>> 24
  const age = ((state().nowMs >>> UNIT_SHIFT) - (head >>> 3)) & 31
  if (age > MAXIMUM_AGE) return 0
  if ((cookie & HASH_MASK) != hash(local, remote, tablePorts(localPort, remotePort), peerSequence, head)) return 0
  return cookieMss(head & 7)
}

const SCALE_NONE: u32 = 15

/** The TSval of a cookie SYN-ACK: not above `clock`, with the options in its low bits. */
export function cookieTimestamp(clock: u32, hasScale: bool, scale: u32, sack: bool): u32 {
  const bits = (hasScale ? scale : SCALE_NONE) | (sack ? 16 : 0)
  const value = (clock & ~31) | bits
  return value > clock ? value - 32 : value
}

/** Window scale that an echoed TSval stands for, or -1 for none. */
export function cookieScale(echo: u32): i32 {
  const scale = echo & 15
  return scale == SCALE_NONE ? -1 : <i32>scale
}

export function cookieSack(echo: u32): bool {
  return (echo & 16) != 0
}
