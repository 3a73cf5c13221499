import { DIRECTORY_LISTENERS } from '../../abi/memory.ts'
import { SOCKET_OPTION_TAKES_OVER } from '../../abi/messages.ts'
import { servicesChanged } from '../ipos/service.ts'
import { carve } from '../mem/carve.ts'
import { directoryAdd } from '../mem/directory.ts'
import { state } from '../state.ts'
import { ipv4IsLoopback } from '../wire/ipv4.ts'

/** Listening Sockets table (FIG. 12): **server IP, TCP port** → process. */
@unmanaged
export class Listener {
  /** Own address, 0 = any. */
  address: u32
  port: u16
  inUse: bool
  queueSet: u8
  /** Process id on the main board. */
  process: u32
  /** What the host calls it. */
  cookie: u32
  /** FIRST_SPEAKER_* */
  firstSpeaker: u32
  placeAfterMs: u32
  /** SOCKET_OPTION_* for accepted sockets. */
  options: u32
  /** Next listener of the same bucket, or next free one. */
  next: u32
}

const LISTENER_BYTES: u32 = 32
export const MAXIMUM_LISTENERS: u32 = 1024
const BUCKETS: u32 = 256

export function listenerInitialize(): void {
  const st = state()
  st.listenerBase = carve((MAXIMUM_LISTENERS + 1) * LISTENER_BYTES)
  st.listenerBuckets = carve(BUCKETS * 4)
  st.listenerFree = 1
  for (let i: u32 = 1; i < MAXIMUM_LISTENERS; i++) listenerAt(i).next = i + 1
  directoryAdd(DIRECTORY_LISTENERS, st.listenerBase, LISTENER_BYTES, MAXIMUM_LISTENERS + 1)
}

export function listenerAt(index: u32): Listener {
  return changetype<Listener>(state().listenerBase + index * LISTENER_BYTES)
}

export function listenerIndex(listener: Listener): u32 {
  return (<u32>changetype<usize>(listener) - state().listenerBase) / LISTENER_BYTES
}

function bucket(port: u32): u32 {
  return state().listenerBuckets + (port & (BUCKETS - 1)) * 4
}

/** The listener that takes a connection to `address`:`port`, one for that very address first; null if there is none. */
export function listenerFind(address: u32, port: u32): Listener | null {
  let index = load<u32>(bucket(port))
  let any: u32 = 0
  while (index) {
    const listener = listenerAt(index)
    if (<u32>listener.port == port) {
      if (listener.address == address) return listener
      if (listener.address == 0) any = index
    }
    index = listener.next
  }
  return any ? listenerAt(any) : null
}

/** A listener of `port` that clients of this farm can reach, on whatever address; always the same while none comes or goes. */
export function listenerOfPort(port: u32): Listener | null {
  for (let index = load<u32>(bucket(port)); index; index = listenerAt(index).next) {
    const listener = listenerAt(index)
    if (<u32>listener.port == port && !ipv4IsLoopback(listener.address)) return listener
  }
  return null
}

/** True if an application that listens on `port` takes connections that another one hands over. */
export function listenerTakesOver(port: u32): bool {
  for (let index = load<u32>(bucket(port)); index; index = listenerAt(index).next) {
    const listener = listenerAt(index)
    if (<u32>listener.port != port || ipv4IsLoopback(listener.address)) continue
    if (listener.options & SOCKET_OPTION_TAKES_OVER) return true
  }
  return false
}

/** True if a listener on `address`:`port` would clash with one that exists: same port, same or any address. */
export function listenerClashes(address: u32, port: u32): bool {
  let index = load<u32>(bucket(port))
  while (index) {
    const listener = listenerAt(index)
    if (<u32>listener.port == port && (address == 0 || listener.address == 0 || listener.address == address))
      return true
    index = listener.next
  }
  return false
}

/** A new row, or null if the table is full. */
export function listenerAdd(address: u32, port: u32): Listener | null {
  const st = state()
  const index = st.listenerFree
  if (!index) return null
  const listener = listenerAt(index)
  st.listenerFree = listener.next
  listener.address = address
  listener.port = <u16>port
  listener.inUse = true
  servicesChanged()
  const head = bucket(port)
  listener.next = load<u32>(head)
  store<u32>(head, index)
  return listener
}

export function listenerRemove(listener: Listener): void {
  const st = state()
  const index = listenerIndex(listener)
  let link = bucket(listener.port)
  let found = load<u32>(link)
  while (found != 0 && found != index) {
    link = <u32>changetype<usize>(listenerAt(found)) + <u32>offsetof<Listener>('next')
    found = load<u32>(link)
  }
  if (found) store<u32>(link, listener.next)
  listener.inUse = false
  servicesChanged()
  listener.next = st.listenerFree
  st.listenerFree = index
}

/** The listener that the process calls `cookie`, or null. */
export function listenerOfCookie(set: u32, cookie: u32): Listener | null {
  for (let i: u32 = 1; i <= MAXIMUM_LISTENERS; i++) {
    const listener = listenerAt(i)
    if (listener.inUse && <u32>listener.queueSet == set && listener.cookie == cookie) return listener
  }
  return null
}

/** Removes the listeners of a process that is gone. */
export function listenerQueueSetGone(set: u32): void {
  for (let i: u32 = 1; i <= MAXIMUM_LISTENERS; i++) {
    const listener = listenerAt(i)
    if (listener.inUse && <u32>listener.queueSet == set) listenerRemove(listener)
  }
}
