import { IPOS_TCP } from '../../abi/ipos.ts'
import { STATUS_EHOSTUNREACH } from '../../abi/status.ts'
import { TCP_CLOSED, TCP_TIME_WAIT } from '../../abi/tcp.ts'
import { counters, state } from '../state.ts'
import { tcpFail } from '../tcp/close.ts'
import { sendBare } from '../tcp/reset.ts'
import { F_FROZEN, F_GUEST, Tcb, tcbAt } from '../tcp/tcb.ts'
import { timeWaitAt, timeWaitForget } from '../tcp/timewait.ts'
import { TCP_ACK, TCP_RST } from '../wire/tcp.ts'
import { flowRemove } from './flow.ts'
import {
  FORWARD_FREE,
  FORWARD_GUEST,
  FORWARD_LOCAL,
  FORWARD_RESERVED,
  FORWARDING,
  Forward,
  forwardAt,
} from './forward.ts'
import { givePeerGone } from './give.ts'
import {
  migrationOf,
  PHASE_ARRIVED,
  PHASE_ARRIVING,
  PHASE_COMMITTED,
  PHASE_OFFERED,
  PHASE_PREPARED,
} from './migration.ts'
import { forwardEvict } from './release.ts'
import { SERVER_KNOWN, SERVER_LEASED, serverAt } from './server.ts'
import { arrivalLost, preparedLost, takeForget } from './take.ts'

/**
 * What is lost with a peer. Tables are gone through a piece a poll, and each row is judged as things stand when its turn comes: by the
 * life of the peer that it belongs to.
 */
const ROWS_PER_POLL: u32 = 4096
/** Resets leave by a ring of bounded length. */
const RESETS_PER_POLL: u32 = 64

/**
 * Peer `row` was silent for two leases, or began anew. What was forwarded to it is lost, its clients are to be reset; it
 * has itself stopped speaking to them a lease ago (`leaseOver` there).
 */
export function peerGone(_row: u32): void {
  begin()
}

/** Our lease from peer `row` is over, or the peer began anew: what we hold for it stops, silently. */
export function leaseOver(_row: u32): void {
  begin()
}

/** Looks at every row, from the first on. */
function begin(): void {
  state().lossNext = 1
}

/** Goes on looking, if there is reason to; once a poll, before any frame. */
export function lossServe(): void {
  const st = state()
  if (!st.lossNext) return
  const count = max<u32>(max<u32>(st.tcbCount, st.timeWaitCount), st.forwardCount)
  let resets: u32 = 0
  for (let n: u32 = 0; n < ROWS_PER_POLL && resets < RESETS_PER_POLL; n++) {
    const i = st.lossNext
    if (i > count) {
      st.lossNext = 0
      return
    }
    if (i <= st.tcbCount && tcbAt(i).migration != 0 && endpoint(tcbAt(i))) resets++
    if (i <= st.timeWaitCount) {
      const record = timeWaitAt(i)
      if (record.thread != 0 && !leased(record.entry, record.entryIncarnation)) timeWaitForget(i)
    }
    if (i <= st.forwardCount && forward(i)) resets++
    st.lossNext++
  }
}

/** True while the server is in the life that `incarnation` names, and not given up. */
function lives(row: u32, incarnation: u32): bool {
  const server = serverAt(row)
  return (server.status & SERVER_KNOWN) != 0 && server.incarnation == incarnation
}

/** True while we may go on with what we hold for the server. */
function leased(row: u32, incarnation: u32): bool {
  return lives(row, incarnation) && (serverAt(row).status & SERVER_LEASED) != 0
}

/** True if a client was reset. */
function endpoint(tcb: Tcb): bool {
  const m = migrationOf(tcb)
  if (tcb.state == TCP_CLOSED || tcb.state == TCP_TIME_WAIT) return false
  if (tcb.flags & F_GUEST && !leased(m.entry, m.entryIncarnation)) {
    if (m.phase == PHASE_PREPARED) takeForget(tcb)
    else {
      tcb.flags &= ~(F_FROZEN | F_GUEST)
      tcpFail(tcb, STATUS_EHOSTUNREACH)
    }
    return false
  }
  // Whether one that is all here is ours is the entry INIC's word.
  if (m.phase == PHASE_ARRIVED || lives(m.peer, m.peerIncarnation)) return false
  if (m.phase == PHASE_PREPARED) preparedLost(tcb, m)
  else if (m.phase == PHASE_ARRIVING) {
    arrivalLost(tcb)
    return true
  } else if (m.phase == PHASE_OFFERED || m.phase == PHASE_COMMITTED) {
    givePeerGone(tcb, m)
    return true
  }
  return false
}

/** True for a conversation that can go on. */
function serves(row: Forward): bool {
  if (row.kind == FORWARD_LOCAL) return true
  return row.kind == FORWARD_GUEST ? leased(row.peer, row.incarnation) : lives(row.peer, row.incarnation)
}

/** True if a client was reset. */
function forward(index: u32): bool {
  const row = forwardAt(index)
  const kind: u32 = row.kind
  if (kind == FORWARD_FREE || kind == FORWARD_RESERVED) return false
  if (<u32>row.protocol != IPOS_TCP) {
    if (!serves(row)) flowRemove(index)
    return false
  }
  if (lives(row.peer, row.incarnation)) return false
  if (kind == FORWARDING) {
    counters().migrationsLost++
    forwardReset(row)
  }
  forwardEvict(index)
  return kind == FORWARDING
}

/** Resets the client of a connection that is lost: with what it acknowledged last as our sequence number, it believes it. */
export function forwardReset(row: Forward): void {
  counters().tcpResetsOut++
  sendBare(
    row.localAddress,
    row.remoteAddress,
    row.localPort,
    row.remotePort,
    row.acknowledgement,
    row.sequence,
    TCP_RST | TCP_ACK,
    0,
    0,
    0,
  )
}
