/** A farm in virtual time under a debug session. */

import type { Stop } from '../../toolchain/debug/session/api.ts'
import { FirmwareLibrary } from '../../toolchain/debug/session/firmware.ts'
import { DebugSession } from '../../toolchain/debug/session/session.ts'
import { packageRoot } from '../../toolchain/package-root.ts'
import { FarmKit, type FarmKitOptions } from './farm-kit.ts'

const library = new FirmwareLibrary([packageRoot])

export class DebugKit extends FarmKit {
  readonly session: DebugSession
  #running: Promise<unknown> = Promise.resolve()

  /** The servers of the farm are threads 1, 2, …; the clients are not debugged. */
  constructor(options: FarmKitOptions = {}) {
    super(options)
    const boards = this.servers.map(({ board }) => board)
    this.session = DebugSession.attach(this.farm, boards, {
      firmware: (wasm, description) => library.find(wasm, description),
    })
  }

  /** Lets the farm run for so long in the background; a halted farm takes as long as it is halted. */
  goFor(ms: number): Promise<unknown> {
    this.#running = this.#running.then(() => this.run(ms))
    return this.#running
  }

  /** The next stop. */
  nextStop(): Promise<Stop> {
    return new Promise((resolve) => this.session.once('stopped', resolve))
  }

  /** A server that answers each connection with `answer`, once it has heard something; until its card is switched off. */
  listen(answer = 'hello from the farm'): void {
    for (const server of this.servers) {
      const listener = server.net.createServer((socket) => {
        socket.once('data', () => socket.end(answer))
      })
      listener.on('error', () => {})
      listener.listen(80)
    }
  }

  /** A client's connection to a server; resolves with what it got. */
  ask(server = 1): Promise<string> {
    const socket = this.client().net.connect(80, this.server(server).address)
    socket.write('anyone there?')
    return new Promise((resolve, reject) => {
      let text = ''
      socket.setEncoding('utf8')
      socket.on('data', (data: string) => {
        text += data
      })
      socket.on('error', reject)
      socket.on('end', () => resolve(text))
    })
  }

  /** `name at file:line` of the innermost frame of a thread. */
  at(thread = 1): string {
    const [frame] = this.session.frames(thread)
    return frame === undefined ? 'nowhere' : `${frame.functionName} at ${frame.source?.file}:${frame.source?.line}`
  }
}
