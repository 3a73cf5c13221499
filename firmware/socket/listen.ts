import {
  COMMAND_A,
  COMMAND_B,
  COMMAND_SOCKET,
  EVENT_COOKIE,
  EVENT_LISTENING,
  EVENT_LOCAL_PORT,
  EVENT_STATUS,
  EVENT_TYPE,
  EVENT_UNLISTENED,
  LISTEN_FIRST_SPEAKER,
  LISTEN_OPTIONS,
  LISTEN_PLACE_AFTER_MS,
  LISTEN_PROCESS,
} from '../../abi/messages.ts'
import { STATUS_EADDRINUSE, STATUS_EADDRNOTAVAIL, STATUS_EINVAL, STATUS_ENOBUFS, STATUS_OK } from '../../abi/status.ts'
import { TCP_CLOSED } from '../../abi/tcp.ts'
import { random32 } from '../hal/random.ts'
import { servicesChanged } from '../ipos/service.ts'
import { isLocalAddress } from '../net/interface.ts'
import { counters, state } from '../state.ts'
import { tcpAbandon } from '../tcp/close.ts'
import { F_ACTIVE, F_ATTACHED, F_FROZEN, tcbAt } from '../tcp/tcb.ts'
import { deliverAnswer } from './answer.ts'
import { eventScratch } from './deliver.ts'
import { listenerAdd, listenerClashes, listenerIndex, listenerOfCookie, listenerRemove } from './listener.ts'

/** Port range that is chosen from when the host asks for port 0 (RFC 6335 §6: dynamic ports). */
const FIRST_DYNAMIC_PORT: u32 = 49152
const DYNAMIC_PORTS: u32 = 16384

/** OP_LISTEN. */
export function listenCommand(set: u32, record: u32): void {
  const cookie = load<u32>(record + COMMAND_SOCKET)
  const address = load<u32>(record + COMMAND_A)
  const port = load<u32>(record + COMMAND_B) & 0xffff
  const chosen = port ? port : freePort(address)
  const status = listen(set, cookie, address, chosen, record)
  answer(set, EVENT_LISTENING, cookie, status, chosen)
}

function listen(set: u32, cookie: u32, address: u32, port: u32, record: u32): u32 {
  if (address != 0 && !isLocalAddress(address)) return STATUS_EADDRNOTAVAIL
  if (port == 0 || listenerClashes(address, port)) return STATUS_EADDRINUSE
  if (load<u32>(record + LISTEN_FIRST_SPEAKER) > 2 || listenerOfCookie(set, cookie) != null) return STATUS_EINVAL
  const listener = listenerAdd(address, port)
  if (listener == null) return STATUS_ENOBUFS
  listener.queueSet = <u8>set
  listener.cookie = cookie
  listener.process = load<u32>(record + LISTEN_PROCESS)
  listener.firstSpeaker = load<u32>(record + LISTEN_FIRST_SPEAKER)
  listener.placeAfterMs = load<u32>(record + LISTEN_PLACE_AFTER_MS)
  listener.options = load<u32>(record + LISTEN_OPTIONS)
  return STATUS_OK
}

/** A dynamic port that nobody listens on, or 0. */
function freePort(address: u32): u32 {
  const start = random32()
  for (let i: u32 = 0; i < DYNAMIC_PORTS; i++) {
    const port = FIRST_DYNAMIC_PORT + ((start + i) & (DYNAMIC_PORTS - 1))
    if (!listenerClashes(address, port)) return port
  }
  return 0
}

/** OP_UNLISTEN: unattached endpoints of the listener are reset, attached ones go on (as close() of a listening socket does). */
export function unlistenCommand(set: u32, cookie: u32): void {
  const listener = listenerOfCookie(set, cookie)
  if (listener == null) {
    counters().commandsBad++
    answer(set, EVENT_UNLISTENED, cookie, STATUS_EINVAL, 0)
    return
  }
  const st = state()
  const index = listenerIndex(listener)
  for (let i: u32 = 1; i <= st.tcbCount; i++) {
    const tcb = tcbAt(i)
    if (tcb.state != TCP_CLOSED && tcb.listener == index && (tcb.flags & (F_ATTACHED | F_ACTIVE | F_FROZEN)) == 0)
      tcpAbandon(tcb, true)
  }
  const port = listener.port
  listenerRemove(listener)
  answer(set, EVENT_UNLISTENED, cookie, STATUS_OK, port)
}

/** OP_LISTENER_OPTIONS: connections accepted from now on. */
export function listenerOptionsCommand(set: u32, cookie: u32, options: u32): void {
  const listener = listenerOfCookie(set, cookie)
  if (listener == null) {
    counters().commandsBad++
    return
  }
  listener.options = options
  servicesChanged()
}

function answer(set: u32, type: u32, cookie: u32, status: u32, port: u32): void {
  const event = eventScratch()
  store<u16>(event + EVENT_TYPE, <u16>type)
  store<u16>(event + EVENT_STATUS, <u16>status)
  store<u32>(event + EVENT_COOKIE, cookie)
  store<u16>(event + EVENT_LOCAL_PORT, <u16>port)
  deliverAnswer(set, event)
}
