import {
  BOOT_CONGESTION_CONTROL,
  BOOT_FLAGS,
  BOOT_IPOS_ETHERTYPE,
  BOOT_LEASE_MS,
  BOOT_LOAD_LIMIT,
  BOOT_LOCAL_LIMIT,
  BOOT_MAXIMUM_CONNECTIONS,
  BOOT_MSL_MS,
  BOOT_PLACE_AFTER_MS,
  BOOT_PLACEMENT,
  BOOT_RECEIVE_CREDIT,
  BOOT_RTO_MINIMUM_MS,
  BOOT_SEND_CREDIT,
  BOOT_STATE_INTERVAL_MS,
  BOOT_SYN_BACKLOG,
  BOOT_UNATTACHED_TIMEOUT_MS,
  BOOT_USER_TIMEOUT_MS,
  BOOT_WEIGHT_BANDWIDTH,
  BOOT_WEIGHT_CONNECTIONS,
  BOOT_WEIGHT_CPU,
  BOOT_WEIGHT_MEMORY,
  CONGESTION_CUBIC,
  DEFAULT_LEASE_MS,
  PLACEMENT_LEAST_LOADED,
} from '../abi/boot.ts'
import {
  BOOT_BASE,
  CARVE_BASE,
  DIRECTORY_CHUNKS,
  DIRECTORY_COUNTERS,
  DIRECTORY_STATE,
  DIRECTORY_TCBS,
  DIRECTORY_TIME_WAITS,
  MINIMUM_MEMORY_BYTES,
} from '../abi/memory.ts'
import { IRQ_ALL, IRQ_ENABLE, IRQ_LINK, IRQ_QUEUE, MAC_PORTS, SYS_MEMORY_BYTES, SYS_READY } from '../abi/registers.ts'
import { DESCRIPTOR_ADDRESS, DESCRIPTOR_LENGTH } from '../abi/rings.ts'
import { TRACE_BOOT } from '../abi/trace.ts'
import { receiveDone, receiveNext } from './hal/mac.ts'
import { PANIC_MEMORY, panic } from './hal/panic.ts'
import { halInitialize } from './hal/power.ts'
import { readRegister, writeRegister } from './hal/registers.ts'
import { COUNTERS_BASE, LOOPBACK_PORT } from './hal/state.ts'
import { timerLatch } from './hal/timer.ts'
import { trace } from './hal/trace.ts'
import { uartIpv4, uartLine, uartNumber, uartText } from './hal/uart.ts'
import { applicationInitialize } from './ipos/application.ts'
import { flowInitialize } from './ipos/flow.ts'
import { forwardInitialize, forwardNextMs } from './ipos/forward.ts'
import { lossServe } from './ipos/loss.ts'
import { migrationInitialize } from './ipos/migration.ts'
import { pastInitialize } from './ipos/past.ts'
import { forwardServe } from './ipos/serve.ts'
import { serversInitialize } from './ipos/server.ts'
import { serviceInitialize } from './ipos/service.ts'
import { stateInitialize, stateTimers } from './ipos/state.ts'
import { threadInitialize } from './ipos/thread.ts'
import { CHUNK_BYTES, chunkInitialize } from './mem/chunk.ts'
import { directoryAdd } from './mem/directory.ts'
import { wheelInitialize, wheelNextMs, wheelTake } from './mem/wheel.ts'
import { ethernetInput } from './net/ethernet.ts'
import { netInterface } from './net/interface.ts'
import { netInitialize, netLinkChanged, netTimers } from './net/timers.ts'
import { answersServe } from './socket/answer.ts'
import { deliverBegin, deliverInitialize } from './socket/deliver.ts'
import { fetchInitialize, fetchRefill, fetchServe } from './socket/fetch.ts'
import { flashServe } from './socket/flash.ts'
import { hostServe, queueSetsChanged } from './socket/host.ts'
import { listenerInitialize } from './socket/listener.ts'
import { udpInitialize } from './socket/udp.ts'
import { Counters, counters, State, state } from './state.ts'
import { tcpOutput } from './tcp/output.ts'
import { tableInitialize } from './tcp/table.ts'
import { F_ON_OUTPUT, MAXIMUM_TCBS, TCB_BYTES, tcbAt, tcbInitialize, tcbUnlisted, wantOutput } from './tcp/tcb.ts'
import { tcpTimer } from './tcp/timer.ts'
import { TIME_WAIT_BYTES, timeWaitInitialize, timeWaitServe } from './tcp/timewait.ts'

/** Frames that one poll takes from a port before the others have their turn. */
const FRAMES_PER_PORT: u32 = 64
/** Timers that one poll serves. */
const TIMERS_PER_POLL: u32 = 1024
/** How often one poll goes round its own loopback. */
const LOOPBACK_ROUNDS: u32 = 4
const FOREVER: u32 = 0xffffffff
/** Twice a lease must be well within the millisecond clock. */
const LONGEST_LEASE_MS: u32 = 600000
const SHORTEST_LEASE_MS: u32 = 4

/** Power-on: lays out INIC memory, reads the boot information and opens the ports. Traps if there is too little memory. */
export function reset(): void {
  const st = state()
  const memoryBytes = readRegister(SYS_MEMORY_BYTES)
  if (memoryBytes < <u32>MINIMUM_MEMORY_BYTES) panic(PANIC_MEMORY, memoryBytes)
  halInitialize(offsetof<State>())
  directoryAdd(DIRECTORY_STATE, CARVE_BASE, offsetof<State>(), 1)
  directoryAdd(DIRECTORY_COUNTERS, COUNTERS_BASE, offsetof<Counters>(), 1)
  settings()
  deliverInitialize()
  fetchInitialize()
  wheelInitialize()
  netInitialize()
  serversInitialize()
  stateInitialize()
  serviceInitialize()
  applicationInitialize()
  listenerInitialize()
  udpInitialize()
  const connections = boot(BOOT_MAXIMUM_CONNECTIONS, st.memoryBytes >>> 11)
  tcbInitialize(min<u32>(connections, MAXIMUM_TCBS))
  timeWaitInitialize(st.tcbCount * 2)
  forwardInitialize()
  tableInitialize(max<u32>(st.tcbCount * 4, st.forwardCount))
  flowInitialize()
  migrationInitialize()
  threadInitialize()
  pastInitialize()
  directoryAdd(DIRECTORY_TCBS, st.tcbBase, TCB_BYTES, st.tcbCount + 1)
  directoryAdd(DIRECTORY_TIME_WAITS, st.timeWaitBase, TIME_WAIT_BYTES, st.timeWaitCount + 1)
  // All the rest holds data.
  const rest = st.memoryBytes > st.carveNext + 0x10000 ? st.memoryBytes - st.carveNext - 0x10000 : 0
  const chunks = rest - rest / 64
  if (chunks < 256 * CHUNK_BYTES) panic(PANIC_MEMORY, rest)
  chunkInitialize(chunks)
  directoryAdd(DIRECTORY_CHUNKS, st.chunkBase, CHUNK_BYTES, st.chunkCount + 1)
  fetchRefill()
  writeRegister(IRQ_ENABLE, IRQ_ALL)
  greet()
  writeRegister(SYS_READY, 1)
}

function boot(field: u32, otherwise: u32): u32 {
  const value = load<u32>(BOOT_BASE + field)
  return value ? value : otherwise
}

function settings(): void {
  const st = state()
  st.flags = load<u32>(BOOT_BASE + BOOT_FLAGS)
  st.synBacklog = boot(BOOT_SYN_BACKLOG, 1024)
  st.placeAfterMs = boot(BOOT_PLACE_AFTER_MS, 200)
  st.timeWaitMs = 2 * boot(BOOT_MSL_MS, 30000)
  st.rtoMinimumMs = boot(BOOT_RTO_MINIMUM_MS, 200)
  st.receiveCredit = boot(BOOT_RECEIVE_CREDIT, 0x40000)
  st.sendCredit = boot(BOOT_SEND_CREDIT, 0x10000)
  st.congestionControl = boot(BOOT_CONGESTION_CONTROL, CONGESTION_CUBIC)
  st.iposEtherType = boot(BOOT_IPOS_ETHERTYPE, 0x0007)
  st.userTimeoutMs = boot(BOOT_USER_TIMEOUT_MS, 300000)
  st.unattachedTimeoutMs = boot(BOOT_UNATTACHED_TIMEOUT_MS, 120000)
  st.placement = boot(BOOT_PLACEMENT, PLACEMENT_LEAST_LOADED)
  st.weightCpu = weight(BOOT_WEIGHT_CPU)
  st.weightMemory = weight(BOOT_WEIGHT_MEMORY)
  st.weightBandwidth = weight(BOOT_WEIGHT_BANDWIDTH)
  st.weightConnections = weight(BOOT_WEIGHT_CONNECTIONS)
  st.localLimit = boot(BOOT_LOCAL_LIMIT, 801) - 1
  st.loadLimit = boot(BOOT_LOAD_LIMIT, 951) - 1
  st.leaseMs = max<u32>(min<u32>(boot(BOOT_LEASE_MS, DEFAULT_LEASE_MS), LONGEST_LEASE_MS), SHORTEST_LEASE_MS)
  // A lease outlives the loss of some messages.
  st.stateIntervalMs = min<u32>(boot(BOOT_STATE_INTERVAL_MS, 250), st.leaseMs / 4)
}

/** Per cent; the field holds one more, so that 0 is a value. */
function weight(field: u32): u32 {
  return min<u32>(boot(field, 101) - 1, 1000)
}

function greet(): void {
  const st = state()
  trace(TRACE_BOOT, 0, st.memoryBytes, 0)
  uartText('ipOS: ')
  uartNumber(st.memoryBytes >>> 20)
  uartText(' MiB, ')
  uartNumber(st.tcbCount)
  uartText(' connections, ')
  uartNumber(st.chunkCount)
  uartText(' chunks')
  for (let i: u32 = 0; i < <u32>MAC_PORTS; i++) {
    const address = netInterface(i).address
    if (address == 0) continue
    uartText(', port ')
    uartNumber(i)
    uartText(' ')
    uartIpv4(address)
  }
  uartLine()
}

/**
 * One slice: takes commands and frames, serves timers, sends. Runs to completion within a budget counted in frames.
 *
 * @param irqs IRQ_* that are pending
 * @returns microseconds until it wants to run again, 0 = at once, 0xffffffff = not before an interrupt
 */
export function poll(irqs: u32): u32 {
  const st = state()
  timerLatch()
  deliverBegin()
  if (st.farm) {
    // Before any frame is looked at: what we hold on a lease that has run out while we slept speaks no more.
    stateTimers()
    lossServe()
  }
  if (irqs & IRQ_LINK) netLinkChanged()
  if (irqs & IRQ_QUEUE) queueSetsChanged()
  answersServe()
  flashServe()
  fetchServe()
  let again = false
  for (let i: u32 = 0; i < <u32>MAC_PORTS; i++) {
    if (receive(i)) again = true
  }
  if (st.timersMs != st.nowMs || st.timersLeft) {
    st.timersMs = st.nowMs
    timers()
  }
  hostServe()
  for (let round: u32 = 0; round < LOOPBACK_ROUNDS; round++) {
    output()
    if (receiveNext(LOOPBACK_PORT) == 0) break
    receive(LOOPBACK_PORT)
    hostServe()
  }
  fetchRefill()
  if (
    again ||
    st.outputHead != 0 ||
    st.lossNext != 0 ||
    st.hostLook != 0 ||
    st.deliverFull != 0 ||
    receiveNext(LOOPBACK_PORT) != 0
  )
    return 0
  const nextMs = nextTimerMs()
  st.timersLeft = nextMs == 0 ? 1 : 0
  if (nextMs == FOREVER) return FOREVER
  if (nextMs == 0) return 0
  // Until that millisecond begins, not just so many milliseconds from now.
  return nextMs * 1000 - <u32>((st.nowNs / 1000) % 1000)
}

/** Takes frames from a port; true if there are more. */
function receive(index: u32): bool {
  for (let n: u32 = 0; n < FRAMES_PER_PORT; n++) {
    const descriptor = receiveNext(index)
    if (!descriptor) return false
    counters().framesIn++
    ethernetInput(index, load<u32>(descriptor + DESCRIPTOR_ADDRESS), load<u32>(descriptor + DESCRIPTOR_LENGTH))
    receiveDone(index, descriptor)
  }
  return receiveNext(index) != 0
}

/** Serves the timers that are due. */
function timers(): void {
  netTimers()
  timeWaitServe()
  if (state().farm) forwardServe()
  for (let n: u32 = 0; n < TIMERS_PER_POLL; n++) {
    const index = wheelTake()
    if (!index) break
    tcpTimer(tcbAt(index))
  }
}

/** Milliseconds to the next timer, those set in this poll included, or FOREVER. */
function nextTimerMs(): u32 {
  let next = netTimers()
  if (state().farm) next = min<u32>(next, min<u32>(stateTimers(), forwardNextMs()))
  const wheel = wheelNextMs()
  if (wheel >= 0) next = min<u32>(next, wheel)
  const timeWait = timeWaitServe()
  if (timeWait >= 0) next = min<u32>(next, timeWait)
  return next
}

/** Lets every connection on the output list send once. */
function output(): void {
  const st = state()
  const last = st.outputTail
  while (st.outputHead) {
    const index = st.outputHead
    const tcb = tcbAt(index)
    st.outputHead = tcb.outputNext
    if (!st.outputHead) st.outputTail = 0
    if (tcbUnlisted(tcb, F_ON_OUTPUT) && !tcpOutput(tcb)) wantOutput(tcb)
    if (index == last) return
  }
}
