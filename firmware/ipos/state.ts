import { MAXIMUM_PEERS } from '../../abi/boot.ts'
import {
  HEARD_ADDRESS,
  HEARD_BYTES,
  HEARD_INCARNATION,
  HEARD_SEQUENCE,
  IPOS_STATE,
  SERVICE_BYTES,
  STATE_BANDWIDTH_AVAILABLE,
  STATE_BANDWIDTH_TOTAL,
  STATE_CONNECTIONS,
  STATE_CONNECTIONS_MAXIMUM,
  STATE_CPU,
  STATE_FLAG_DRAINING,
  STATE_FLAGS,
  STATE_HEARD,
  STATE_HEARD_COUNT,
  STATE_INCARNATION,
  STATE_LEASE,
  STATE_MAXIMUM_SERVICES,
  STATE_MEMORY_AVAILABLE,
  STATE_MEMORY_TOTAL,
  STATE_SEQUENCE,
  STATE_SERVICE_COUNT,
} from '../../abi/ipos.ts'
import {
  BOARD_STATE_BANDWIDTH_AVAILABLE,
  BOARD_STATE_BANDWIDTH_TOTAL,
  BOARD_STATE_CONNECTIONS,
  BOARD_STATE_CPU,
  BOARD_STATE_MEMORY_AVAILABLE,
  BOARD_STATE_MEMORY_TOTAL,
  COMMAND_A,
} from '../../abi/messages.ts'
import { random32 } from '../hal/random.ts'
import { uartIpv4, uartLine, uartNumber, uartText } from '../hal/uart.ts'
import { carve } from '../mem/carve.ts'
import { counters, state } from '../state.ts'
import { iposHeader, iposLoad16, iposLoad32, iposStore16, iposStore32 } from '../wire/ipos.ts'
import { IPV4_LIMITED_BROADCAST } from '../wire/ipv4.ts'
import { iposClaim, iposCommit } from './frame.ts'
import { leaseOver, peerGone } from './loss.ts'
import { loadOf } from './placement.ts'
import { inFarm, portOfServer, SELF, SERVER_KNOWN, SERVER_LEASED, SERVER_UP, Server, serverAt } from './server.ts'
import { serviceList, servicesForget, servicesReplace, servicesUpdate } from './service.ts'

/**
 * State messages (IPOS_STATE): each server says how it is, on what ports it serves, and whom it hears.
 *
 *     last message heard        + lease             + 2 leases
 *     ──┬───────────────────────┬───────────────────┬──────────▶
 *       │ UP: gets new work     │ KNOWN: no more    │ gone: what was forwarded to it is lost (`peerGone`)
 *
 * What we hold for a peer we hold on a lease from it. It runs from when we *sent* the last message that the peer says it has heard, so
 * it is over (`leaseOver`) a whole lease before that peer can give us up: never do both of us speak to a client.
 */

/** Messages about what others should know at once keep this distance, ms. */
const SOON_MS: u32 = 10
/** Messages whose time of sending is remembered; a power of two. */
const SENT_TIMES: u32 = 64
const NEVER: u32 = 0xffffffff

export function stateInitialize(): void {
  if (!inFarm()) return
  state().stateSentBase = carve(SENT_TIMES * 4)
  serverAt(SELF).incarnation = max<u32>(random32(), 1)
}

/** Others should know soon what has changed. */
export function stateSoon(): void {
  const st = state()
  if (!inFarm() || serverAt(SELF).sequence == 0) return
  const earliest = serverAt(SELF).heardMs + SOON_MS
  sendAt(<i32>(earliest - st.nowMs) > 0 ? earliest : st.nowMs)
}

/** As `stateSoon`, and once more: a message lost on the hub does not keep others from a service until the next one, an interval later. */
export function stateNews(): void {
  state().stateNews = 1
  stateSoon()
}

/** The next message leaves at `deadlineMs`, unless one leaves before. */
function sendAt(deadlineMs: u32): void {
  const st = state()
  if (<i32>(deadlineMs - st.stateSendMs) < 0) st.stateSendMs = deadlineMs
  timerAt(deadlineMs)
}

function timerAt(deadlineMs: u32): void {
  const st = state()
  if (<i32>(deadlineMs - st.stateNextMs) < 0) st.stateNextMs = deadlineMs
}

/** Ends what has run out, and sends what is due. Returns milliseconds until the next is due, 0xffffffff = never. */
export function stateTimers(): u32 {
  if (!inFarm()) return NEVER
  const st = state()
  // The clock need not be latched at reset: the first message leaves in the first poll, whatever the time.
  const first = serverAt(SELF).sequence == 0
  if (!first && <i32>(st.stateNextMs - st.nowMs) > 0) return st.stateNextMs - st.nowMs
  if (first) {
    st.newcomer = 1
    st.newcomerEndMs = st.nowMs + st.leaseMs
  } else if (<i32>(st.newcomerEndMs - st.nowMs) <= 0) st.newcomer = 0
  const due = first || <i32>(st.stateSendMs - st.nowMs) <= 0
  if (due) {
    st.stateSendMs = st.nowMs + (st.stateNews ? min<u32>(SOON_MS, st.stateIntervalMs) : st.stateIntervalMs)
    st.stateNews = 0
  }
  st.stateNextMs = st.stateSendMs
  for (let row: u32 = 1; row < st.serverCount; row++) age(row)
  if (due && !send()) sendAt(st.nowMs + 1)
  return st.stateNextMs - st.nowMs
}

/** Takes from a peer what it has no more. */
function age(row: u32): void {
  const st = state()
  const server = serverAt(row)
  if (server.status & SERVER_LEASED) {
    if (<i32>(server.leaseMs - st.nowMs) > 0) timerAt(server.leaseMs)
    else {
      server.status &= ~SERVER_LEASED
      leaseOver(row)
    }
  }
  if ((server.status & SERVER_KNOWN) == 0) return
  const silentMs = st.nowMs - server.heardMs
  if (silentMs < st.leaseMs) timerAt(server.heardMs + st.leaseMs)
  else if (silentMs < 2 * st.leaseMs) {
    server.status &= ~SERVER_UP
    timerAt(server.heardMs + 2 * st.leaseMs)
  } else forget(row)
}

/** The peer is silent for too long, or began anew: neither is there what it had. */
function forget(row: u32): void {
  const server = serverAt(row)
  const was = server.status
  server.status = 0
  server.share = 0
  servicesForget(row)
  if (was & SERVER_LEASED) leaseOver(row)
  if (was & SERVER_KNOWN) peerGone(row)
}

// ── sending ──

/** False if the ring is full. */
function send(): bool {
  const header = iposClaim()
  if (!header) return false
  const st = state()
  const self = serverAt(SELF)
  refreshSelf()
  servicesUpdate()
  self.sequence++
  self.heardMs = st.nowMs
  store<u32>(sentTime(self.sequence), st.nowMs)
  iposHeader(header, IPOS_STATE, 0, self.address, 0, IPV4_LIMITED_BROADCAST, 0)
  iposStore32(header, STATE_INCARNATION, self.incarnation)
  iposStore32(header, STATE_SEQUENCE, self.sequence)
  iposStore16(header, STATE_FLAGS, self.flags)
  iposStore16(header, STATE_CPU, self.cpu)
  iposStore32(header, STATE_CONNECTIONS, self.connections)
  iposStore32(header, STATE_CONNECTIONS_MAXIMUM, self.connectionsMaximum)
  iposStore32(header, STATE_MEMORY_AVAILABLE, self.memoryAvailable)
  iposStore32(header, STATE_MEMORY_TOTAL, self.memoryTotal)
  iposStore32(header, STATE_BANDWIDTH_AVAILABLE, self.bandwidthAvailable)
  iposStore32(header, STATE_BANDWIDTH_TOTAL, self.bandwidthTotal)
  iposStore32(header, STATE_LEASE, st.leaseMs)
  let end: u32 = STATE_HEARD
  let heard: u32 = 0
  for (let row: u32 = 1; row < st.serverCount; row++) {
    const server = serverAt(row)
    if ((server.status & SERVER_KNOWN) == 0) continue
    iposStore32(header, end + HEARD_ADDRESS, server.address)
    iposStore32(header, end + HEARD_INCARNATION, server.incarnation)
    iposStore32(header, end + HEARD_SEQUENCE, server.sequence)
    end += HEARD_BYTES
    heard++
  }
  iposStore16(header, STATE_HEARD_COUNT, heard)
  iposStore16(header, STATE_SERVICE_COUNT, self.services)
  const bytes = <u32>self.services * SERVICE_BYTES
  memory.copy(header + end, serviceList(SELF), bytes)
  iposCommit(header, SELF, end + bytes)
  return true
}

/** Where it stands when message `sequence` of ours was sent. */
function sentTime(sequence: u32): u32 {
  return state().stateSentBase + (sequence & (SENT_TIMES - 1)) * 4
}

/** Brings row SELF up to date in what the card itself knows. */
export function refreshSelf(): void {
  const st = state()
  const self = serverAt(SELF)
  self.connections = st.connectionsPinned ? st.connectionsPinned - 1 : st.established
  self.connectionsMaximum = st.tcbCount
  self.load = loadOf(self)
}

// ── receiving ──

/**
 * Takes a state message, its checksum verified. One whose counts do not fit into the frame changes nothing.
 *
 * @param row of the peer whose MAC address it came from
 * @param bytes from the ipOS header to the end of the frame
 */
export function stateInput(row: u32, header: u32, bytes: u32): void {
  const st = state()
  const server = serverAt(row)
  if (!isWhole(header, bytes)) {
    counters().iposRefused++
    return
  }
  const incarnation = iposLoad32(header, STATE_INCARNATION)
  const sequence = iposLoad32(header, STATE_SEQUENCE)
  if (incarnation != server.incarnation) {
    if ((server.status & SERVER_KNOWN) != 0 && !hasHeardSince(header, server.metSequence)) {
      // It began anew, and is asked by our next message; or this is from before, and late.
      stateSoon()
      return
    }
    forget(row)
    server.incarnation = incarnation
    server.metSequence = serverAt(SELF).sequence
  } else if (<i32>(sequence - server.sequence) <= 0) return
  const lease = iposLoad32(header, STATE_LEASE)
  if (lease != st.leaseMs) {
    counters().iposRefused++
    remarkLease(server, lease)
    return
  }
  // One that has just come wants to know who is here, and may serve only once it knows that we hear it.
  if ((server.status & SERVER_KNOWN) == 0) stateSoon()
  server.sequence = sequence
  server.heardMs = st.nowMs
  server.status |= SERVER_KNOWN | SERVER_UP
  timerAt(st.nowMs + st.leaseMs)
  take(server, header)
  const services = servicesIn(header)
  for (let entry = header + STATE_HEARD; entry < services; entry += HEARD_BYTES)
    if (isOurs(entry)) renewLease(server, iposLoad32(entry, HEARD_SEQUENCE))
  servicesReplace(row, services, iposLoad16(header, STATE_SERVICE_COUNT))
}

/** Where the SERVICE entries of a whole message begin, and its HEARD entries end. */
function servicesIn(header: u32): u32 {
  return header + STATE_HEARD + iposLoad16(header, STATE_HEARD_COUNT) * HEARD_BYTES
}

/** True if a HEARD entry is about a message of ours, of this life. */
function isOurs(entry: u32): bool {
  const address = iposLoad32(entry, HEARD_ADDRESS)
  if (address == 0 || portOfServer(SELF, address) < 0) return false
  return iposLoad32(entry, HEARD_INCARNATION) == serverAt(SELF).incarnation
}

/** True if who sent the message had heard one of ours with a number above `sequence`: so it was sent after that. */
function hasHeardSince(header: u32, sequence: u32): bool {
  const end = servicesIn(header)
  for (let entry = header + STATE_HEARD; entry < end; entry += HEARD_BYTES)
    if (isOurs(entry) && <i32>(iposLoad32(entry, HEARD_SEQUENCE) - sequence) > 0) return true
  return false
}

/** Times that differ would let two servers speak to one client: such a peer is as one that is not there. Its console line says so once. */
function remarkLease(server: Server, lease: u32): void {
  if (server.otherLease == server.incarnation) return
  server.otherLease = server.incarnation
  uartText('ipOS: ')
  uartIpv4(server.address)
  uartText(' has a lease of ')
  uartNumber(lease)
  uartText(' ms, this server one of ')
  uartNumber(state().leaseMs)
  uartText(' ms: they do not work together')
  uartLine()
}

/** True if all that the message counts is in the frame, and nobody could have more. */
function isWhole(header: u32, bytes: u32): bool {
  if (bytes < <u32>STATE_HEARD || iposLoad32(header, STATE_INCARNATION) == 0) return false
  const heard = iposLoad16(header, STATE_HEARD_COUNT)
  const services = iposLoad16(header, STATE_SERVICE_COUNT)
  if (heard > <u32>MAXIMUM_PEERS || services > <u32>STATE_MAXIMUM_SERVICES) return false
  return heard * HEARD_BYTES + services * SERVICE_BYTES <= bytes - STATE_HEARD
}

/** What the server says of its main board. */
function take(server: Server, header: u32): void {
  server.flags = <u16>iposLoad16(header, STATE_FLAGS)
  server.cpu = <u16>min<u32>(iposLoad16(header, STATE_CPU), 1000)
  server.connections = iposLoad32(header, STATE_CONNECTIONS)
  server.connectionsMaximum = iposLoad32(header, STATE_CONNECTIONS_MAXIMUM)
  server.memoryAvailable = iposLoad32(header, STATE_MEMORY_AVAILABLE)
  server.memoryTotal = iposLoad32(header, STATE_MEMORY_TOTAL)
  server.bandwidthAvailable = iposLoad32(header, STATE_BANDWIDTH_AVAILABLE)
  server.bandwidthTotal = iposLoad32(header, STATE_BANDWIDTH_TOTAL)
  server.load = loadOf(server)
}

/** The peer has heard our message `sequence`. */
function renewLease(server: Server, sequence: u32): void {
  const st = state()
  const sent = serverAt(SELF).sequence
  if (sent - sequence >= min<u32>(sent, SENT_TIMES)) return
  const leaseMs = load<u32>(sentTime(sequence)) + st.leaseMs
  if (<i32>(leaseMs - st.nowMs) <= 0) return
  if ((server.status & SERVER_LEASED) != 0 && <i32>(leaseMs - server.leaseMs) <= 0) return
  server.status |= SERVER_LEASED
  server.leaseMs = leaseMs
  timerAt(leaseMs)
}

// ── the main board ──

/** OP_BOARD_STATE. */
export function boardStateCommand(record: u32): void {
  const self = serverAt(SELF)
  self.cpu = <u16>min<u32>(load<u32>(record + BOARD_STATE_CPU), 1000)
  self.memoryAvailable = load<u32>(record + BOARD_STATE_MEMORY_AVAILABLE)
  self.memoryTotal = load<u32>(record + BOARD_STATE_MEMORY_TOTAL)
  self.bandwidthAvailable = load<u32>(record + BOARD_STATE_BANDWIDTH_AVAILABLE)
  self.bandwidthTotal = load<u32>(record + BOARD_STATE_BANDWIDTH_TOTAL)
  state().connectionsPinned = load<u32>(record + BOARD_STATE_CONNECTIONS)
}

/** OP_DRAIN. */
export function drainCommand(record: u32): void {
  const draining = load<u32>(record + COMMAND_A)
  if (draining > 1) {
    counters().commandsBad++
    return
  }
  if ((draining != 0) == isDraining()) return
  serverAt(SELF).flags ^= <u16>STATE_FLAG_DRAINING
  stateNews()
}

/** True while this server takes nothing new that another one can take. */
export function isDraining(): bool {
  return (serverAt(SELF).flags & STATE_FLAG_DRAINING) != 0
}
