/**
 * First code of the worker in which an unmodified Node program runs: takes over the queue set, puts the card under Node's modules, and
 * then runs the program as `node PROGRAM` would.
 */
import Module from 'node:module'
import { performance } from 'node:perf_hooks'
import { getHeapStatistics } from 'node:v8'
import { isMainThread, type MessagePort, workerData } from 'node:worker_threads'
import { Driver } from '../driver/driver.ts'
import type { ProcessReport } from '../process.ts'
import { ProcessAccount, type ProcessUsage } from '../process-account.ts'
import type { FirstSpeaker, References, Stack } from '../stack.ts'
import { wallClock } from './clock.ts'
import { patchNode } from './patch.ts'
import { type SharedBusParts, WorkerBus } from './shared-bus.ts'

/** What the farm hands to the worker. */
export interface ProgramData {
  readonly program: string
  readonly bus: SharedBusParts
  readonly wake: MessagePort
  /** Carries ProgramMessage and ProgramAnswer. */
  readonly control: MessagePort
  readonly processId: number
  readonly hosts: [string, string][]
  readonly servers: [string, string][]
  readonly firstSpeakers: [number, FirstSpeaker][]
}

/** What the farm says to the worker. */
export type ProgramMessage =
  | { readonly signal: NodeJS.Signals }
  /** Move connections away, to this server; null: to whichever is best. */
  | { readonly drain: string | null }
  | { readonly endDrain: true }
  /** Answer with a ProgramAnswer of this id. */
  | { readonly report: number }

export interface ProgramAnswer {
  readonly id: number
  readonly report: ProcessReport
}

/** The program lives while it has sockets that count, as with handles of libuv: then, and only then, the port counts too. */
function references(port: MessagePort): References {
  let count = 0
  return {
    hold() {
      if (count++ === 0) port.ref()
    },
    release() {
      if (--count === 0) port.unref()
    },
  }
}

function runProgram(data: ProgramData): void {
  const bus = new WorkerBus(data.bus, data.wake)
  data.wake.on('message', () => bus.wake())
  data.wake.unref()
  const stack: Stack = {
    driver: new Driver(bus, { processId: data.processId }),
    clock: wallClock(),
    hosts: new Map(data.hosts),
    servers: new Map(data.servers),
    references: references(data.wake),
    firstSpeakers: new Map(data.firstSpeakers),
    asyncContext: true,
  }
  const account = new ProcessAccount(stack, data.processId, usageMeter())
  data.control.on('message', (message: ProgramMessage) => onMessage(message, account, data.control))
  data.control.unref()
  patchNode(stack)
  process.argv[1] = data.program
  // What `node PROGRAM` does: CommonJS or ES module, with `require.main` and `import.meta` as a program expects them.
  ;(Module as unknown as { runMain(): void }).runMain()
}

function onMessage(message: ProgramMessage, account: ProcessAccount, control: MessagePort): void {
  if ('signal' in message) onSignal(message.signal)
  else if ('report' in message)
    control.postMessage({ id: message.report, report: account.report() } satisfies ProgramAnswer)
  else if ('drain' in message) account.drain.begin(message.drain ?? undefined)
  else account.drain.end()
}

/** Signals do not reach threads; the farm sends them by message, and they do here what they do to a process. */
function onSignal(signal: NodeJS.Signals): void {
  if (process.listenerCount(signal) > 0) process.emit(signal, signal)
  else process.exit(128 + (signal === 'SIGINT' ? 2 : 15))
}

/** Measures this thread: its heap, and the share of the time since the last call that its event loop has worked. */
function usageMeter(): () => ProcessUsage {
  let before = performance.eventLoopUtilization()
  return () => {
    const now = performance.eventLoopUtilization()
    const { utilization } = performance.eventLoopUtilization(now, before)
    before = now
    const { used_heap_size: heap, external_memory: external } = getHeapStatistics()
    return { memoryKib: Math.round((heap + external) / 1024), cpuPermille: Math.round(utilization * 1000) }
  }
}

if (isMainThread) throw new Error('host/worker/bootstrap.ts runs in a worker only.')
runProgram(workerData as ProgramData)
