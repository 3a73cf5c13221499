import { IPOS_TCP } from '../../abi/ipos.ts'
import { DIRECTORY_APPLICATIONS } from '../../abi/memory.ts'
import { COMMAND_A, PROCESS_STATE_CPU, PROCESS_STATE_MEMORY } from '../../abi/messages.ts'
import { PANIC_POOL, panic } from '../hal/panic.ts'
import { carve } from '../mem/carve.ts'
import { directoryAdd } from '../mem/directory.ts'
import { listenerOfPort } from '../socket/listener.ts'
import { counters, state } from '../state.ts'
import { SELF, serverAt } from './server.ts'

/** Application Information table (FIG. 12): **process ID** → memory that it needs, CPU utilization. */
@unmanaged
export class Application {
  /** On the main board. */
  process: u32
  /** KiB */
  memory: u32
  /** Per mille. */
  cpu: u16
  inUse: bool
  /** That it is told by, and goes with. */
  queueSet: u8
}

/** Stride of the table, bytes. */
const APPLICATION_BYTES: u32 = 16
const APPLICATIONS: u32 = 64

export function applicationInitialize(): void {
  if (offsetof<Application>() > APPLICATION_BYTES) panic(PANIC_POOL, offsetof<Application>())
  const st = state()
  st.applicationBase = carve(APPLICATIONS * APPLICATION_BYTES)
  directoryAdd(DIRECTORY_APPLICATIONS, st.applicationBase, APPLICATION_BYTES, APPLICATIONS)
}

function applicationAt(index: u32): Application {
  return changetype<Application>(state().applicationBase + index * APPLICATION_BYTES)
}

/** The row of a process, or null. */
function applicationFind(set: u32, process: u32): Application | null {
  for (let i: u32 = 0; i < APPLICATIONS; i++) {
    const row = applicationAt(i)
    if (row.inUse && <u32>row.queueSet == set && row.process == process) return row
  }
  return null
}

/** A free row, or null. */
function applicationFree(): Application | null {
  for (let i: u32 = 0; i < APPLICATIONS; i++) if (!applicationAt(i).inUse) return applicationAt(i)
  return null
}

/** OP_PROCESS_STATE. In a full table a process that has no row gets none, and placement knows nothing of its needs. */
export function processStateCommand(set: u32, record: u32): void {
  const process = load<u32>(record + COMMAND_A)
  const known = applicationFind(set, process)
  const row = known != null ? known : applicationFree()
  if (row == null) {
    counters().applicationsDropped++
    return
  }
  row.inUse = true
  row.queueSet = <u8>set
  row.process = process
  row.memory = load<u32>(record + PROCESS_STATE_MEMORY)
  row.cpu = <u16>min<u32>(load<u32>(record + PROCESS_STATE_CPU), 1000)
}

/** The processes behind a queue set are gone. */
export function applicationQueueSetGone(set: u32): void {
  for (let i: u32 = 0; i < APPLICATIONS; i++) {
    const row = applicationAt(i)
    if (row.inUse && <u32>row.queueSet == set) row.inUse = false
  }
}

/** False if the process that serves the port here needs more memory than its main board has left, as far as both are known. */
export function applicationFits(port: u32, protocol: u32): bool {
  const self = serverAt(SELF)
  if (self.memoryTotal == 0 || protocol != IPOS_TCP) return true
  const listener = listenerOfPort(port)
  if (listener == null) return true
  const row = applicationFind(listener.queueSet, listener.process)
  return row == null || row.memory <= self.memoryAvailable
}
