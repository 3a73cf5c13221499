/** Talks to the control socket of a running farm. */
import { once } from 'node:events'
import { existsSync, readdirSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { defaultFarm, loadFarm } from '../config/load-farm.ts'
import { CommandError, EXIT_FARM_STATE, errorCode, errorMessage, usageError } from '../errors.ts'
import { FarmState, stateBase } from '../state.ts'
import type { ControlAnswer, ControlMethods } from './protocol.ts'

/** Options by which commands name a running farm. */
export interface FarmSelection {
  readonly farm?: string
  readonly state?: string
}

export class ControlClient {
  readonly #socket: Socket
  #received = Buffer.alloc(0)
  #lastId = 0

  private constructor(socket: Socket) {
    this.#socket = socket
  }

  /** Connects to the farm that is meant. @throws CommandError (exit code 3) if it is not running. */
  static async connect(selection: FarmSelection): Promise<ControlClient> {
    return ControlClient.connectTo(await selectState(selection))
  }

  /** Connects to the farm with its state there. @throws CommandError (exit code 3) if it is not running. */
  static async connectTo(state: FarmState): Promise<ControlClient> {
    const socket = connect(state.socketPath)
    try {
      await once(socket, 'connect')
    } catch (error) {
      const code = errorCode(error)
      if (code === 'ENOENT' || code === 'ECONNREFUSED' || code === 'ENOTDIR') {
        throw notRunning(`no farm is running with its state in ${state.directory}`)
      }
      throw new CommandError(`the farm's control socket cannot be opened: ${errorMessage(error)}`, {
        hint: 'it is for the user who started the farm',
        cause: error,
      })
    }
    socket.on('error', () => {}) // a farm that stops shows as the end of its answers
    return new ControlClient(socket)
  }

  /** @throws CommandError with what the farm says, or that it stopped before it answered. */
  async request<M extends keyof ControlMethods>(
    method: M,
    params: ControlMethods[M]['params'],
  ): Promise<ControlMethods[M]['result']> {
    const id = ++this.#lastId
    this.#socket.write(`${JSON.stringify({ id, method, params })}\n`)
    const answer = JSON.parse(await this.#line()) as ControlAnswer
    if ('error' in answer) throw new CommandError(answer.error.message, answer.error)
    return answer.result as ControlMethods[M]['result']
  }

  /** The connection after a method that hands it over, with what came behind its answer already. */
  stream(): Socket {
    if (this.#received.length > 0) this.#socket.unshift(this.#received)
    this.#received = Buffer.alloc(0)
    return this.#socket
  }

  close(): void {
    this.#socket.destroy()
  }

  async #line(): Promise<string> {
    for (;;) {
      const end = this.#received.indexOf(0x0a)
      if (end >= 0) {
        const line = this.#received.subarray(0, end).toString('utf8')
        this.#received = this.#received.subarray(end + 1)
        return line
      }
      const chunk = this.#socket.read() as Buffer | null
      if (chunk !== null) this.#received = Buffer.concat([this.#received, chunk])
      else if (this.#socket.readableEnded || this.#socket.destroyed)
        throw notRunning('the farm stopped before it answered')
      else await this.#readable()
    }
  }

  #readable(): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        for (const event of ['readable', 'end', 'close']) this.#socket.off(event, done)
        resolve()
      }
      for (const event of ['readable', 'end', 'close']) this.#socket.once(event, done)
    })
  }
}

/** Runs `use` with a connection to the farm that is meant. */
export async function withFarm<T>(selection: FarmSelection, use: (client: ControlClient) => Promise<T>): Promise<T> {
  const client = await ControlClient.connect(selection)
  try {
    return await use(client)
  } finally {
    client.close()
  }
}

/** Where the farm that is meant has its state, if it runs. @throws CommandError if several may be meant */
export async function findRunning(selection: FarmSelection): Promise<FarmState | undefined> {
  const state = await selectState(selection)
  return (await state.isRunning()) ? state : undefined
}

async function selectState(selection: FarmSelection): Promise<FarmState> {
  if (selection.farm !== undefined) return FarmState.of(await loadFarm(selection.farm), selection.state)
  const running = (await Promise.all(stateBases(selection.state).map(runningFarms))).flat()
  if (running.length > 1) {
    throw usageError(
      `${running.length} farms are running here: ${running.map((state) => state.name).join(', ')}`,
      'say which: --farm FILE',
    )
  }
  return running[0] ?? FarmState.of(await defaultFarm(), selection.state)
}

/** Where farms keep their state whose file is in the current folder, or in one right below it, as `examples/farm.json` is. */
function stateBases(named: string | undefined): string[] {
  const here = process.cwd()
  const below = readdirSync(here).map((name) => stateBase(named, join(here, name)))
  return [...new Set([stateBase(named, here), ...below.filter((base) => existsSync(base))])]
}

/** Farms that run with their state below `base`. */
async function runningFarms(base: string): Promise<FarmState[]> {
  let names: string[]
  try {
    names = readdirSync(base)
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return []
    throw usageError(`${base} cannot be read: ${errorMessage(error)}`)
  }
  const states = names.map((name) => new FarmState(join(base, name)))
  const running = await Promise.all(states.map((state) => state.isRunning()))
  return states.filter((_, index) => running[index])
}

function notRunning(message: string): CommandError {
  return new CommandError(message, {
    exitCode: EXIT_FARM_STATE,
    hint: 'start it in another terminal: inic run; or name its file: --farm FILE',
  })
}
