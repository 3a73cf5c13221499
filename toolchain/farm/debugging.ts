/** A farm under the debugger: at most one session at a time, by whichever front end. */
import { once } from 'node:events'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { suggest } from '../config/issues.ts'
import { FRONT_ENDS } from '../control/protocol.ts'
import { Handover } from '../control/server.ts'
import { RequestError } from '../debug/dap/arguments.ts'
import { serveDap } from '../debug/dap/serve.ts'
import type { DebugTarget } from '../debug/front/target.ts'
import { serveGdb } from '../debug/gdb/index.ts'
import { Repl } from '../debug/repl/repl.ts'
import { serveRepl } from '../debug/repl/serve.ts'
import type { SessionApi } from '../debug/session/api.ts'
import { CommandError, EXIT_FARM_STATE, usageError } from '../errors.ts'
import type { FarmSession } from './session.ts'

export interface DebuggedFarm {
  readonly name: string
  /** Lines that say where published ports are. */
  published(): readonly string[]
  /** Takes the farm over. */
  openSession(): SessionApi
}

export class Debugging {
  readonly #farm: DebuggedFarm
  #busy = false

  constructor(farm: DebuggedFarm) {
    this.#farm = farm
  }

  /**
   * Halts the farm for a front end.
   *
   * @param end takes down a farm that was launched for it; left out: the farm runs on afterwards
   * @throws CommandError (exit code 3) if somebody debugs it already
   */
  async open(end?: () => Promise<void>): Promise<DebugTarget> {
    if (this.#busy)
      throw new CommandError('this farm is being debugged already', {
        exitCode: EXIT_FARM_STATE,
        hint: 'leave the other debugger first',
      })
    this.#busy = true
    try {
      const session = this.#farm.openSession()
      await session.pause()
      let ending: Promise<void> | undefined
      const letGo = async () => {
        await session.detach()
        this.#busy = false
        await end?.()
      }
      return {
        session,
        farm: this.#farm.name,
        launched: end !== undefined,
        published: this.#farm.published(),
        end: () => {
          ending ??= letGo()
          return ending
        },
      }
    } catch (error) {
      this.#busy = false
      throw error
    }
  }

  /** The control method `debug`: `{ frontend, server, colour }`. */
  async handOver(params: Readonly<Record<string, unknown>>): Promise<Handover> {
    const { frontend } = params
    if (!FRONT_ENDS.some((name) => name === frontend))
      throw usageError(`there is no front end '${frontend}'`, `there are: ${FRONT_ENDS.join(', ')}`)
    const target = await this.open()
    try {
      const server = params.server === undefined ? undefined : String(params.server)
      checkServer(target.session, server)
      const options = { colour: params.colour === true, ...(server !== undefined && { server }) }
      return new Handover({ frontend }, (socket) => {
        if (frontend === 'repl') return serveRepl(socket, socket, target, options)
        return frontend === 'dap' ? serveAttached(socket, target) : serveLldb(socket, target)
      })
    } catch (error) {
      await target.end()
      throw error
    }
  }
}

/** Halts a farm that was started for a front end of the debugger; ending the session takes it down. @throws as Debugging.open */
export async function debugLaunched(session: FarmSession): Promise<DebugTarget> {
  const ended = new AbortController()
  let passing = Promise.resolve()
  const end = async () => {
    ended.abort()
    await passing
    await session.stop()
  }
  const target = await session.debugging.open(end).catch(async (error: unknown) => {
    await session.stop()
    throw error
  })
  if (session.assembly.farm.virtual) passing = passTime(session, target, ended.signal)
  return target
}

/** Virtual time passes only while somebody has it pass. Once every program has ended there is nothing to wait for: the farm halts. */
async function passTime(session: FarmSession, target: DebugTarget, ended: AbortSignal): Promise<void> {
  const hasApplications = session.applicationCount > 0
  const over = () => ended.aborted || session.allStopped || (hasApplications && session.applicationCount === 0)
  const onEnded = once(ended, 'abort')
  while (!ended.aborted) {
    await session.assembly.farm.run(over)
    if (ended.aborted) return
    const continued = once(target.session, 'continued')
    await target.session.pause()
    await Promise.race([continued, onEnded])
  }
}

/** @throws CommandError (exit code 2) if a server is named and there is none of that name */
export function checkServer(session: SessionApi, server: string | undefined): void {
  const names = session.threads.map(({ name }) => name)
  if (server !== undefined && !names.includes(server))
    throw usageError(`the farm has no server '${server}'`, suggest(server, names) ?? `it has: ${names.join(', ')}`)
}

/** An LLDB on a connection. The function that is returned ends it. */
export function serveLldb(socket: Duplex, target: DebugTarget): () => void {
  const repl = new Repl(target.session, { colour: false, echoesOutput: false })
  const monitor = async (line: string) => (await repl.execute(line)).text
  serveGdb(target.session, socket, { monitor }).once('end', () => {
    repl.close()
    void target.end()
  })
  return () => socket.end()
}

function serveAttached(socket: Socket, target: DebugTarget): () => void {
  const server = serveDap(socket, socket, {
    launch: () => Promise.reject(new RequestError('this farm runs already: attach to it')),
    attach: () => Promise.resolve(target),
  })
  // A client that never attached leaves the farm to itself, too.
  void server.done.then(() => target.end()).catch(() => {}) // there is nobody left to tell
  return server.end
}
