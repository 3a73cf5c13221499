import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads'
import type { Bus } from '../abi/bus.ts'
import { layoutRam } from './driver/layout.ts'
import { Ram } from './driver/ram.ts'
import { queueIsIdle } from './driver/virtqueue.ts'
import { LineSplitter } from './output.ts'
import type { HostedProcess, ProcessExit, ProcessReport, ProcessSettings } from './process.ts'
import { nameTable } from './stack.ts'
import type { ProgramAnswer, ProgramData, ProgramMessage } from './worker/bootstrap.ts'
import { FarmBridge } from './worker/shared-bus.ts'

export interface NodeProgramSettings extends ProcessSettings {
  /** Heap that the program may use, MiB; the machine's default if absent. A program that uses more ends with an error. */
  readonly memoryMb?: number
}

const DEFAULT_GRACE_MS = 1000
/** What a program sent just before it ended still leaves the main board, if the card takes it within this. */
const DRAIN_MS = 250
/** A program that does not answer in this time is at work, or stuck. */
const ANSWER_MS = 1000

/**
 * Runs an unmodified Node program in a worker of its own, on `bus`, whose RAM must be shared. Throws TypeError if it is not, and Error if there
 * is no such program; whatever goes wrong later is how the process ends.
 */
export function startNodeProgram(bus: Bus, settings: NodeProgramSettings): HostedProcess {
  const program = settings.program.startsWith('file:') ? fileURLToPath(settings.program) : resolve(settings.program)
  if (!existsSync(program)) throw new Error(`The program of ${settings.name} is not there: ${program}`)
  const { port1: near, port2: far } = new MessageChannel()
  const bridge = new FarmBridge(bus, near)
  near.on('message', () => bridge.wake())
  near.unref()
  const control = new ProgramControl()
  const data: ProgramData = {
    program,
    bus: bridge.parts,
    wake: far,
    control: control.far,
    processId: settings.processId ?? 0,
    hosts: [...nameTable(settings.hosts)],
    servers: [...nameTable(settings.servers)],
    firstSpeakers: [...(settings.firstSpeakers ?? [])],
  }
  const worker = new Worker(new URL('./worker/bootstrap.js', import.meta.url), {
    name: settings.name,
    argv: [...(settings.args ?? [])],
    env: { ...settings.env },
    workerData: data,
    transferList: [far, control.far],
    stdout: true,
    stderr: true,
    ...(settings.memoryMb === undefined ? {} : { resourceLimits: { maxOldGenerationSizeMb: settings.memoryMb } }),
  })
  const splitters = (['stdout', 'stderr'] as const).map((stream) => {
    const splitter = new LineSplitter((line) => settings.output?.(line, stream))
    worker[stream].setEncoding('utf8').on('data', (text: string) => splitter.write(text))
    return splitter
  })
  let failure: Error | null = null
  let asked = false
  worker.on('error', (error) => {
    failure = error instanceof Error ? error : new Error(`Uncaught ${String(error)}`)
  })
  const exited = new Promise<ProcessExit>((done) => {
    worker.once('exit', (code) => {
      // The worker's last output is delivered in the turns after its end.
      setImmediate(() => {
        for (const splitter of splitters) splitter.end()
        void drain(bus, bridge).then(() => {
          near.close()
          control.close()
          // Ended because it was asked to, whatever number that has.
          done({ code: failure !== null ? code || 1 : asked ? 0 : code, error: failure })
        })
      })
    })
  })
  return {
    name: settings.name,
    exited,
    async stop(graceMs = DEFAULT_GRACE_MS) {
      asked = true
      control.say({ signal: 'SIGTERM' })
      const timer = setTimeout(() => void worker.terminate(), graceMs)
      const exit = await exited
      clearTimeout(timer)
      return exit
    },
    drain: (to) => control.say({ drain: to ?? null }),
    endDrain: () => control.say({ endDrain: true }),
    report: () => control.report(),
  }
}

/** The farm's end of what is said between it and the code under a program, apart from all messages of the program's own. */
class ProgramControl {
  readonly far: MessagePort
  readonly #near: MessagePort
  readonly #waiting = new Map<number, (report: ProcessReport | undefined) => void>()
  #lastId = 0
  #closed = false

  constructor() {
    const { port1, port2 } = new MessageChannel()
    this.far = port2
    this.#near = port1
    port1.on('message', ({ id, report }: ProgramAnswer) => this.#settle(id, report))
    port1.unref()
  }

  say(message: ProgramMessage): void {
    this.#near.postMessage(message)
  }

  async report(): Promise<ProcessReport | undefined> {
    if (this.#closed) return undefined
    const id = ++this.#lastId
    const timer = setTimeout(() => this.#settle(id, undefined), ANSWER_MS).unref()
    return new Promise<ProcessReport | undefined>((resolve) => {
      this.#waiting.set(id, resolve)
      this.say({ report: id })
    }).finally(() => clearTimeout(timer))
  }

  close(): void {
    this.#closed = true
    this.#near.close()
    for (const id of [...this.#waiting.keys()]) this.#settle(id, undefined)
  }

  #settle(id: number, report: ProcessReport | undefined): void {
    this.#waiting.get(id)?.(report)
    this.#waiting.delete(id)
  }
}

/** Lets the card take what the program has left in its TX queue. */
async function drain(bus: Bus, bridge: FarmBridge): Promise<void> {
  const ram = new Ram(bus.ram)
  const { tx, control } = layoutRam(bus.ram.byteLength)
  bridge.carry()
  const endMs = performance.now() + DRAIN_MS
  while (!(queueIsIdle(ram, tx) && queueIsIdle(ram, control)) && performance.now() < endMs) {
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
  bridge.close()
}
