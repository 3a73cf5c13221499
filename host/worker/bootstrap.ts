/**
 * First code of the worker in which an unmodified Node program runs: takes over the queue set, puts the card under Node's modules, and
 * then runs the program as `node PROGRAM` would.
 */
import Module from 'node:module'
import { isMainThread, type MessagePort, parentPort, workerData } from 'node:worker_threads'
import { Driver } from '../driver/driver.ts'
import type { FirstSpeaker, References, Stack } from '../stack.ts'
import { wallClock } from './clock.ts'
import { patchNode } from './patch.ts'
import { type SharedBusParts, WorkerBus } from './shared-bus.ts'

/** What the farm hands to the worker. */
export interface ProgramData {
  readonly program: string
  readonly bus: SharedBusParts
  readonly wake: MessagePort
  readonly processId: number
  readonly hosts: [string, string][]
  readonly firstSpeakers: [number, FirstSpeaker][]
}

/** What the farm says to the worker. */
export interface ProgramMessage {
  readonly signal: NodeJS.Signals
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
    references: references(data.wake),
    firstSpeakers: new Map(data.firstSpeakers),
    asyncContext: true,
  }
  parentPort!.on('message', onMessage)
  parentPort!.unref()
  patchNode(stack)
  process.argv[1] = data.program
  // What `node PROGRAM` does: CommonJS or ES module, with `require.main` and `import.meta` as a program expects them.
  ;(Module as unknown as { runMain(): void }).runMain()
}

/** Signals do not reach threads; the farm sends them by message, and they do here what they do to a process. */
function onMessage({ signal }: ProgramMessage): void {
  if (process.listenerCount(signal) > 0) process.emit(signal, signal)
  else process.exit(128 + (signal === 'SIGINT' ? 2 : 15))
}

if (isMainThread) throw new Error('host/worker/bootstrap.ts runs in a worker only.')
runProgram(workerData as ProgramData)
