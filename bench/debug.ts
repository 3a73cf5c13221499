import { wallNs } from '../emulator/clock.ts'
import { FirmwareLibrary } from '../toolchain/debug/session/firmware.ts'
import { DebugSession } from '../toolchain/debug/session/session.ts'
import { packageRoot } from '../toolchain/package-root.ts'
import type { FarmFirmware } from '../toolchain/testing/firmware.ts'
import { VirtualFarm } from '../toolchain/testing/virtual-farm.ts'
import { median } from './statistics.ts'

/**
 * What a debugger costs, on ipOS as it is released: 64-byte round trips between a client and a server, in virtual time, by the wall's clock,
 * with and without a session on the server.
 */

const PORT = 7
const MESSAGE = Buffer.alloc(64, 'x')
const NEVER_MS = 1e9
/** A line that every segment runs through, with a condition that reads two locals and a field, and does not hold. */
const HOT = { kind: 'function', name: 'segmentArrives' } as const
const CONDITION = 'tcb.rcvNxt == 12345 && bytes > 100000'
/** A line that no segment of these runs through: the processor is the debugged one, and nothing stops it. */
const COLD = { kind: 'function', name: 'takeCommitted' } as const

export interface DebugOptions {
  readonly firmware: FarmFirmware
  /** Round trips of a measurement. */
  readonly rounds: number
  readonly runs: number
  /** Slices of the whole farm to go back over. */
  readonly slices: number
}

export interface DebugFigures {
  /** Frames a second with a session and no breakpoint, of those without one. */
  readonly attachedRate: number
  /** With a breakpoint that is never met. */
  readonly armedRate: number
  /** One evaluation of a condition, microseconds. */
  readonly conditionUs: number
  readonly slices: number
  /** To step back one line at the end of so many recorded slices, seconds. */
  readonly stepBackSeconds: number
}

export async function measureDebugger({ firmware, rounds, runs, slices }: DebugOptions): Promise<DebugFigures> {
  const plain = new Echo(firmware)
  const debugged = new Echo(firmware)
  try {
    const library = new FirmwareLibrary([packageRoot])
    await plain.begin()
    await debugged.begin()
    const session = DebugSession.attach(debugged.farm.farm, [debugged.farm.server(1).board], {
      firmware: (wasm, description) => library.find(wasm, description),
      historyBytes: 1 << 30,
    })
    const under = async (spec: Parameters<DebugSession['addBreakpoint']>[0]): Promise<number> => {
      const { id } = session.addBreakpoint(spec)
      const ns = await debugged.run(rounds)
      session.removeBreakpoint(id)
      return ns
    }
    // Compiling is not what is measured.
    await under(COLD)
    await plain.run(rounds)
    const times = { plain: [], attached: [], armed: [], condition: [] } as Record<string, number[]>
    for (let run = 0; run < runs; run++) {
      times.plain!.push(await plain.run(rounds))
      times.attached!.push(await debugged.run(rounds))
      times.armed!.push(await under(COLD))
      times.condition!.push(await under({ ...HOT, condition: CONDITION }))
    }
    const [without, attached, armed, condition] = ['plain', 'attached', 'armed', 'condition'].map((name) =>
      median(times[name]!),
    )
    while (debugged.farm.server(1).board.slices < slices) await debugged.run(rounds)
    await session.pause()
    const beganNs = wallNs()
    await session.stepBack(1, 'over')
    const stepBackSeconds = (wallNs() - beganNs) / 1e9
    const recorded = session.position.slice
    await session.detach()
    return {
      attachedRate: without! / attached!,
      armedRate: without! / armed!,
      // One segment comes in for each: it carries the acknowledgement of the one before.
      conditionUs: (condition! - armed!) / 1000 / rounds,
      slices: recorded,
      stepBackSeconds,
    }
  } finally {
    await plain.farm.close()
    await debugged.farm.close()
  }
}

/** A client and a server that sends back what it gets. */
class Echo {
  readonly farm: VirtualFarm
  #send: ((data: Uint8Array) => void) | undefined
  #left = 0

  constructor(firmware: FarmFirmware) {
    this.farm = new VirtualFarm(firmware, { servers: 1, clients: 1, seed: 'debug' })
  }

  async begin(): Promise<void> {
    const server = this.farm.server(1)
    server.net.createServer((socket) => socket.on('data', (data) => socket.write(data))).listen(PORT)
    await this.farm.settle()
    const socket = this.farm.client().net.connect(PORT, server.address)
    socket.on('data', (data) => {
      if (--this.#left > 0) socket.write(data)
    })
    this.#send = (data) => socket.write(data)
  }

  /** So many round trips; how long they take, nanoseconds. */
  async run(rounds: number): Promise<number> {
    this.#left = rounds
    const beganNs = wallNs()
    this.#send!(MESSAGE)
    if (!(await this.farm.until(() => this.#left === 0, NEVER_MS))) throw new Error('the echo has ended')
    return wallNs() - beganNs
  }
}
