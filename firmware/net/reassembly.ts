import { DROP_FRAGMENT } from '../../abi/trace.ts'
import { PANIC_POOL, panic } from '../hal/panic.ts'
import { drop } from '../hal/trace.ts'
import { carve } from '../mem/carve.ts'
import { counters, state } from '../state.ts'
import { ICMP_CODE_REASSEMBLY, ICMP_TIME_EXCEEDED } from '../wire/icmp.ts'
import {
  IPV4_DONT_FRAGMENT,
  IPV4_MAXIMUM_BYTES,
  IPV4_MORE_FRAGMENTS,
  IPV4_OFFSET_MASK,
  ipv4Destination,
  ipv4Fragment,
  ipv4HeaderBytes,
  ipv4Identification,
  ipv4Protocol,
  ipv4Resize,
  ipv4Source,
  ipv4TotalBytes,
} from '../wire/ipv4.ts'
import { icmpError } from './icmp.ts'
import { ipv4Deliver } from './ipv4.ts'
import { netTimerAt } from './timers.ts'

/**
 * Reassembly of IPv4 datagrams (RFC 791 §3.2, RFC 815). A buffer is a fixed piece of memory, so that no number of
 * fragments takes more:
 *
 *      ├─Reassembly─┬─bitmap, a bit for 8 bytes─┬─header, ends here ┤─data ─────────────────┤
 *      0            64                          1088                1152                    66688
 *
 * The first fragment's header is put directly in front of the data, so the finished datagram is one packet in a row. A
 * fragment that overlaps another one is either its exact repetition and ignored, or an attack: then the whole datagram is
 * lost, with what is still to come of it (the attitude of RFC 5722 §3).
 */
const BUFFERS: u32 = 16
/** Datagrams of one source at a time. */
const BUFFERS_PER_SOURCE: u32 = 8
const BITMAP: u32 = 64
const BITMAP_BYTES: u32 = 1024
const DATA: u32 = 1152
const STRIDE: u32 = DATA + 65536
/** RFC 1122 §3.3.2 asks for a fixed value and suggests 60 s or more; 30 s is what hosts use today. Milliseconds. */
const TIMEOUT_MS: u32 = 30000

const FREE: u32 = 0
const COLLECTING: u32 = 1
/** A fragment broke the rules: the rest is swallowed until the timeout. */
const POISONED: u32 = 2

@unmanaged
export class Reassembly {
  source: u32
  destination: u32
  /** identification << 16 | protocol */
  key: u32
  /** Arrival of the first fragment that came. */
  startedMs: u32
  /** Payload of the whole datagram, bytes; 0 until its last fragment is there. */
  totalBytes: u32
  receivedBytes: u32
  /** End of the fragment that reaches farthest. */
  reach: u32
  /** Length of the first fragment's header, 0 until it is there. */
  headerBytes: u32
  status: u32
  netInterface: u32
}

function buffer(index: u32): Reassembly {
  return changetype<Reassembly>(state().reassemblyBase + index * STRIDE)
}

export function reassemblyInitialize(): void {
  if (offsetof<Reassembly>() > BITMAP) panic(PANIC_POOL, offsetof<Reassembly>())
  state().reassemblyBase = carve(BUFFERS * STRIDE)
}

/** Takes a fragment of which header and destination are checked; hands the datagram on if it is whole now. */
export function reassemblyInput(port: u32, packet: u32): void {
  const fragment = ipv4Fragment(packet)
  const headerBytes = ipv4HeaderBytes(packet)
  const bytes = ipv4TotalBytes(packet) - headerBytes
  const offset = (fragment & IPV4_OFFSET_MASK) << 3
  const more = (fragment & IPV4_MORE_FRAGMENTS) != 0
  // All but the last end on 8 bytes, and nothing may reach beyond the largest datagram.
  if (bytes == 0 || (more && (bytes & 7) != 0) || headerBytes + offset + bytes > IPV4_MAXIMUM_BYTES) {
    drop(DROP_FRAGMENT, ipv4Source(packet), fragment)
    return
  }
  const r = find(port, packet)
  if (r.status == POISONED) {
    drop(DROP_FRAGMENT, r.source, fragment)
    return
  }
  const end = offset + bytes
  const data = changetype<u32>(r) + DATA
  const firstBlock = offset >>> 3
  const lastBlock = (end + 7) >>> 3
  const taken = bitmapCount(r, firstBlock, lastBlock)
  if (taken) {
    const whole = taken == lastBlock - firstBlock && end <= r.reach && (more || end == r.totalBytes)
    if (!whole || memory.compare(data + offset, packet + headerBytes, bytes) != 0) poison(r, fragment)
    return
  }
  const ends = r.totalBytes != 0
  if (more ? ends && end > r.totalBytes : ends || r.reach > end) {
    poison(r, fragment)
    return
  }
  bitmapSet(r, firstBlock, lastBlock)
  memory.copy(data + offset, packet + headerBytes, bytes)
  r.receivedBytes += bytes
  r.reach = max<u32>(r.reach, end)
  if (!more) r.totalBytes = end
  if (!offset) {
    r.headerBytes = headerBytes
    memory.copy(data - headerBytes, packet, headerBytes)
  }
  if (r.totalBytes == 0 || r.receivedBytes != r.totalBytes) return
  if (r.headerBytes + r.totalBytes > IPV4_MAXIMUM_BYTES) {
    poison(r, fragment)
    return
  }
  finish(r)
}

function finish(r: Reassembly): void {
  const packet = changetype<u32>(r) + DATA - r.headerBytes
  ipv4Resize(packet, r.headerBytes + r.totalBytes, ipv4Fragment(packet) & IPV4_DONT_FRAGMENT)
  counters().ipv4Reassembled++
  ipv4Deliver(r.netInterface, packet, true)
  release(r)
}

function poison(r: Reassembly, fragment: u32): void {
  drop(DROP_FRAGMENT, r.source, fragment)
  counters().ipv4ReassemblyFailed++
  r.status = POISONED
}

function release(r: Reassembly): void {
  r.status = FREE
  state().reassemblyUsed--
}

/** The buffer of the fragment's datagram, a new one if need be. */
function find(port: u32, packet: u32): Reassembly {
  const st = state()
  const source = ipv4Source(packet)
  const destination = ipv4Destination(packet)
  const key = (ipv4Identification(packet) << 16) | ipv4Protocol(packet)
  let free: i32 = -1
  let oldest: i32 = -1
  let oldestOfSource: i32 = -1
  let ofSource: u32 = 0
  for (let i: u32 = 0; i < BUFFERS; i++) {
    const r = buffer(i)
    if (r.status == FREE) {
      free = i
      continue
    }
    if (r.source == source) {
      if (r.key == key && r.destination == destination && r.netInterface == port) return r
      ofSource++
      if (oldestOfSource < 0 || age(r) > age(buffer(oldestOfSource))) oldestOfSource = i
    }
    if (oldest < 0 || age(r) > age(buffer(oldest))) oldest = i
  }
  // One source must not push out the others; without a free buffer the oldest goes, whosever it is.
  let index = free
  if (ofSource >= BUFFERS_PER_SOURCE) index = oldestOfSource
  else if (free < 0) index = oldest
  const r = buffer(index)
  if (r.status != FREE) {
    if (r.status == COLLECTING) counters().ipv4ReassemblyFailed++
    release(r)
  }
  memory.fill(changetype<u32>(r), 0, BITMAP + BITMAP_BYTES)
  r.source = source
  r.destination = destination
  r.key = key
  r.startedMs = st.nowMs
  r.status = COLLECTING
  r.netInterface = port
  st.reassemblyUsed++
  netTimerAt(st.nowMs + TIMEOUT_MS)
  return r
}

function age(r: Reassembly): u32 {
  return state().nowMs - r.startedMs
}

/** Gives up datagrams that have not become whole in time (RFC 792: code 1 if the first fragment is there). */
export function reassemblyTimers(): void {
  const st = state()
  if (!st.reassemblyUsed) return
  for (let i: u32 = 0; i < BUFFERS; i++) {
    const r = buffer(i)
    if (r.status == FREE) continue
    if (age(r) < TIMEOUT_MS) {
      netTimerAt(r.startedMs + TIMEOUT_MS)
      continue
    }
    if (r.status == COLLECTING) {
      counters().ipv4ReassemblyFailed++
      const packet = changetype<u32>(r) + DATA - r.headerBytes
      if (r.headerBytes) icmpError(r.netInterface, packet, ICMP_TIME_EXCEEDED, ICMP_CODE_REASSEMBLY, 0)
    }
    release(r)
  }
}

/** Bits `from`..`to` - 1 of the word that holds bit `from`, as a mask; at most to the word's end. */
function wordMask(from: u32, to: u32): u64 {
  const low = from & 63
  const count = min<u32>(to - from, 64 - low)
  return (u64.MAX_VALUE >> (64 - count)) << low
}

/** How many blocks of from..to - 1 have been received. */
function bitmapCount(r: Reassembly, from: u32, to: u32): u32 {
  const map = changetype<u32>(r) + BITMAP
  let count: u32 = 0
  while (from < to) {
    count += <u32>popcnt<u64>(load<u64>(map + (from >>> 6) * 8) & wordMask(from, to))
    from = (from | 63) + 1
  }
  return count
}

function bitmapSet(r: Reassembly, from: u32, to: u32): void {
  const map = changetype<u32>(r) + BITMAP
  while (from < to) {
    const word = map + (from >>> 6) * 8
    store<u64>(word, load<u64>(word) | wordMask(from, to))
    from = (from | 63) + 1
  }
}
