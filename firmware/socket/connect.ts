import {
  COMMAND_A,
  COMMAND_B,
  COMMAND_SOCKET,
  CONNECT_LOCAL_ADDRESS,
  CONNECT_OPTIONS,
  EVENT_CONNECT_FAILED,
  EVENT_COOKIE,
  EVENT_REMOTE_ADDRESS,
  EVENT_REMOTE_PORT,
  EVENT_STATUS,
  EVENT_TYPE,
} from '../../abi/messages.ts'
import {
  STATUS_EADDRINUSE,
  STATUS_EADDRNOTAVAIL,
  STATUS_EINVAL,
  STATUS_ENETUNREACH,
  STATUS_ENOBUFS,
  STATUS_OK,
} from '../../abi/status.ts'
import { TCP_CLOSED, TCP_SYN_SENT } from '../../abi/tcp.ts'
import { sipHash } from '../hal/random.ts'
import { LOOPBACK_PORT } from '../hal/state.ts'
import { isLocalAddress, netInterface } from '../net/interface.ts'
import { routeTo } from '../net/route.ts'
import { counters, state } from '../state.ts'
import { tcpAbandon } from '../tcp/close.ts'
import { openPath, openWindows, setOptions } from '../tcp/handshake.ts'
import { initialSequence } from '../tcp/isn.ts'
import { seqLt } from '../tcp/sequence.ts'
import { tableFind, tableInsertTcb } from '../tcp/table.ts'
import {
  F_ACTIVE,
  F_CONNECTED_OWED,
  F_HOST,
  F_TIMESTAMPS,
  setState,
  Tcb,
  TIMER_RETRANSMIT,
  tcbAllocate,
  tcbAt,
  wantOutput,
} from '../tcp/tcb.ts'
import { timerStart } from '../tcp/timer.ts'
import { TIME_WAIT_TAG, timeWaitAt, timeWaitRemove } from '../tcp/timewait.ts'
import { deliverAnswer } from './answer.ts'
import { eventScratch } from './deliver.ts'

/** Ephemeral ports (RFC 6056 §3.2 asks for a range as large as possible). */
const FIRST_EPHEMERAL_PORT: u32 = 1024
const EPHEMERAL_PORTS: u32 = 64512
/** Ports that one connect looks at before it gives up. */
const PORT_TRIES: u32 = 4096

/** OP_CONNECT: an active open (RFC 9293 §3.10.1). */
export function connectCommand(set: u32, record: u32): void {
  const status = connect(set, record)
  if (status == STATUS_OK) return
  const event = eventScratch()
  store<u16>(event + EVENT_TYPE, <u16>EVENT_CONNECT_FAILED)
  store<u16>(event + EVENT_STATUS, <u16>status)
  store<u32>(event + EVENT_COOKIE, load<u32>(record + COMMAND_SOCKET))
  store<u32>(event + EVENT_REMOTE_ADDRESS, load<u32>(record + COMMAND_A))
  store<u16>(event + EVENT_REMOTE_PORT, <u16>load<u32>(record + COMMAND_B))
  deliverAnswer(set, event)
}

function connect(set: u32, record: u32): u32 {
  const remote = load<u32>(record + COMMAND_A)
  const remotePort = load<u32>(record + COMMAND_B) & 0xffff
  const givenPort = load<u32>(record + COMMAND_B) >>> 16
  const givenAddress = load<u32>(record + CONNECT_LOCAL_ADDRESS)
  if (remote == 0 || remote >>> 28 >= 14 || remotePort == 0) return STATUS_EINVAL // no multicast, no broadcast
  if (givenAddress != 0 && !isLocalAddress(givenAddress)) return STATUS_EADDRNOTAVAIL
  const index = routeTo(remote, givenAddress)
  if (index < 0) return STATUS_ENETUNREACH
  // Towards ourselves the source is the very address that is called.
  const local = givenAddress ? givenAddress : <u32>index == LOOPBACK_PORT ? remote : netInterface(index).address
  const port = givenPort ? givenPort : choosePort(local, remote, remotePort)
  if (port == 0) return STATUS_EADDRNOTAVAIL
  if (!portUsable(local, remote, port, remotePort)) return STATUS_EADDRINUSE
  const tcb = tcbAllocate()
  if (tcb == null) return STATUS_ENOBUFS
  tcb.localAddress = local
  tcb.remoteAddress = remote
  tcb.localPort = <u16>port
  tcb.remotePort = <u16>remotePort
  tcb.queueSet = <u8>set
  tcb.cookie = load<u32>(record + COMMAND_SOCKET)
  tcb.flags = F_ACTIVE | F_HOST
  openPath(tcb)
  openWindows(tcb, state().receiveCredit)
  setOptions(tcb, load<u32>(record + CONNECT_OPTIONS))
  tcb.iss = startSequence(tcb)
  tcb.sndUna = tcb.sndNxt = tcb.sndMax = tcb.iss
  tcb.sndEnd = tcb.iss + 1
  tableInsertTcb(tcb)
  counters().tcpActiveOpens++
  // "Set SND.UNA to ISS, SND.NXT to ISS+1, enter SYN-SENT state, and return."
  setState(tcb, TCP_SYN_SENT)
  // The timer also bounds the wait for the neighbour.
  timerStart(tcb, TIMER_RETRANSMIT, tcb.rtoMs)
  wantOutput(tcb)
  return STATUS_OK
}

/** ISS; above what the port's last connection used, if that is in TIME-WAIT, which then ends (RFC 6191). */
function startSequence(tcb: Tcb): u32 {
  const iss = initialSequence(tcb.localAddress, tcb.remoteAddress, tcb.localPort, tcb.remotePort)
  const entry = tableFind(tcb.localAddress, tcb.remoteAddress, tcb.localPort, tcb.remotePort)
  if ((entry & TIME_WAIT_TAG) == 0) return iss
  const index = entry & ~TIME_WAIT_TAG
  const above = timeWaitAt(index).sndNxt + 65536
  timeWaitRemove(index)
  return seqLt(iss, above) ? above : iss
}

/** Hash-based port selection (RFC 6056 §3.3.3), one counter for all. Returns 0 if no port was found. */
function choosePort(local: u32, remote: u32, remotePort: u32): u32 {
  const st = state()
  const offset = <u32>sipHash(st.secret0, st.secret1, <u64>local | ((<u64>remote) << 32), remotePort)
  for (let i: u32 = 0; i < PORT_TRIES; i++) {
    const port = FIRST_EPHEMERAL_PORT + ((offset + st.ephemeralCounter++) % EPHEMERAL_PORTS)
    if (portUsable(local, remote, port, remotePort)) return port
  }
  return 0
}

/** True if no connection has these ports, or one in TIME-WAIT whose timestamps make its successor safe (RFC 6191 §2, RFC 7323 §5). */
function portUsable(local: u32, remote: u32, port: u32, remotePort: u32): bool {
  const entry = tableFind(local, remote, port, remotePort)
  if (entry == 0) return true
  if ((entry & TIME_WAIT_TAG) == 0) return false
  const record = timeWaitAt(entry & ~TIME_WAIT_TAG)
  return (record.flags & F_TIMESTAMPS) != 0 && seqLt(record.lastSentMs, state().nowMs)
}

/** OP_CANCEL: the host has lost interest in a connect that is not answered yet. */
export function cancelConnect(set: u32, cookie: u32): void {
  const st = state()
  for (let i: u32 = 1; i <= st.tcbCount; i++) {
    const tcb = tcbAt(i)
    if (tcb.cookie != cookie || <u32>tcb.queueSet != set || (tcb.flags & F_ACTIVE) == 0 || (tcb.flags & F_HOST) == 0)
      continue
    if (tcb.state == TCP_SYN_SENT) tcpAbandon(tcb, false)
    else if ((tcb.flags & F_CONNECTED_OWED) != 0 && tcb.state != TCP_CLOSED) tcpAbandon(tcb, true)
    else continue
    return
  }
}
