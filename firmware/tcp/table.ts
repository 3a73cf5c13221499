import { FORWARD_TAG, forwardAt } from '../ipos/forward.ts'
import { carve } from '../mem/carve.ts'
import { state } from '../state.ts'
import { Tcb, tcbAt, tcbIndex } from './tcb.ts'
import { TIME_WAIT_TAG, timeWaitAt } from './timewait.ts'

/**
 * Connection table: local and remote address and port → TCB, TIME-WAIT record or Forward row, by chained hashing under a key
 * that no peer knows. An entry is a TCB's index, or the index of another kind with its tag; all kinds begin with the same
 * 16 bytes (addresses, ports, next), so a look-up does not ask which it has.
 */
/** Bits of an entry that is no TCB. */
export const ENTRY_TAGS: u32 = TIME_WAIT_TAG | FORWARD_TAG

const KEY_ADDRESSES: u32 = 0
const KEY_PORTS: u32 = 8
const KEY_NEXT: u32 = 12

/** Carves at least `entries` buckets, a power of two. */
export function tableInitialize(entries: u32): void {
  const st = state()
  let buckets: u32 = 1024
  while (buckets < entries) buckets <<= 1
  st.connectionBuckets = carve(buckets * 4)
  st.connectionMask = buckets - 1
}

/** The ports of a key as they stand in memory. */
export function tablePorts(localPort: u32, remotePort: u32): u32 {
  return localPort | (remotePort << 16)
}

function bucketOf(addresses: u64, ports: u32): u32 {
  const st = state()
  let x = (addresses ^ st.hashKey0) * 0x9e3779b97f4a7c15
  x ^= x >> 32
  x = (x + (<u64>ports ^ st.hashKey1)) * 0xd6e8feb86659fd93
  x ^= x >> 32
  return st.connectionBuckets + (<u32>x & st.connectionMask) * 4
}

function entryAddress(entry: u32): u32 {
  if ((entry & ENTRY_TAGS) == 0) return <u32>changetype<usize>(tcbAt(entry))
  return entry & TIME_WAIT_TAG
    ? <u32>changetype<usize>(timeWaitAt(entry & ~TIME_WAIT_TAG))
    : <u32>changetype<usize>(forwardAt(entry & ~FORWARD_TAG))
}

/** The entry for the connection, or 0. */
export function tableFind(localAddress: u32, remoteAddress: u32, localPort: u32, remotePort: u32): u32 {
  const addresses = <u64>localAddress | ((<u64>remoteAddress) << 32)
  const ports = tablePorts(localPort, remotePort)
  let entry = load<u32>(bucketOf(addresses, ports))
  while (entry) {
    const at = entryAddress(entry)
    if (load<u64>(at + KEY_ADDRESSES) == addresses && load<u32>(at + KEY_PORTS) == ports) return entry
    entry = load<u32>(at + KEY_NEXT)
  }
  return 0
}

function insert(entry: u32): void {
  const at = entryAddress(entry)
  const bucket = bucketOf(load<u64>(at + KEY_ADDRESSES), load<u32>(at + KEY_PORTS))
  store<u32>(at + KEY_NEXT, load<u32>(bucket))
  store<u32>(bucket, entry)
}

function remove(entry: u32): void {
  const at = entryAddress(entry)
  let link = bucketOf(load<u64>(at + KEY_ADDRESSES), load<u32>(at + KEY_PORTS))
  while (true) {
    const found = load<u32>(link)
    if (!found) return
    if (found == entry) {
      store<u32>(link, load<u32>(at + KEY_NEXT))
      return
    }
    link = entryAddress(found) + KEY_NEXT
  }
}

export function tableInsertTcb(tcb: Tcb): void {
  insert(tcbIndex(tcb))
}

export function tableRemoveTcb(tcb: Tcb): void {
  remove(tcbIndex(tcb))
}

export function tableInsertTimeWait(index: u32): void {
  insert(index | TIME_WAIT_TAG)
}

export function tableRemoveTimeWait(index: u32): void {
  remove(index | TIME_WAIT_TAG)
}

/** @param index of a Forward row for TCP */
export function tableInsertForward(index: u32): void {
  insert(index | FORWARD_TAG)
}

export function tableRemoveForward(index: u32): void {
  remove(index | FORWARD_TAG)
}
