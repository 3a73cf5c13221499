/** Empties servers of their connections, one server at a time or several: `inic drain`. */
import type { BoardAgent } from '../../host/board-agent.ts'
import type { HostedProcess } from '../../host/process.ts'
import type { FarmConfig, ServerConfig } from '../config/farm-config.ts'
import { suggest } from '../config/issues.ts'
import type { DrainStatus } from '../control/protocol.ts'
import { CommandError, EXIT_BOARD, usageError } from '../errors.ts'
import { serversOnHub } from './directory.ts'

/** A server's main board, as far as a drain has to do with it. */
export interface DrainedBoard {
  readonly agent: BoardAgent
  /** Its INIC runs. */
  readonly runs: () => boolean
  /** Those that run. */
  readonly processes: () => Iterable<HostedProcess>
}

export class Drains {
  readonly #farm: FarmConfig
  readonly #boards: ReadonlyMap<string, DrainedBoard>
  readonly #targets = new Map<string, string | undefined>()

  constructor(farm: FarmConfig, boards: ReadonlyMap<string, DrainedBoard>) {
    this.#farm = farm
    this.#boards = boards
  }

  /**
   * Has nothing new placed on a server, and its connections moved away, until `end`. @throws CommandError if it cannot be meant
   *
   * @param to the server that takes them; undefined: each goes where the cards find best
   */
  begin(name: string, to: string | undefined): Promise<DrainStatus> {
    const server = this.#server(name)
    const targets = Object.keys(serversOnHub(this.#farm, server)).filter((target) => target !== name)
    if (targets.length === 0) {
      throw usageError(
        `${name} is alone: there is no server that its connections could move to`,
        'servers hand connections over by a synchronization hub: "kind": "hub" in the farm file',
      )
    }
    if (to !== undefined && !targets.includes(to)) {
      throw usageError(
        to === name ? `${name} cannot be drained to itself` : `connections of ${name} cannot move to '${to}'`,
        suggest(to, targets) ?? `they can move to: ${targets.join(', ')}`,
      )
    }
    const { agent, processes } = this.#board(name)
    this.#targets.set(name, to)
    agent.drain(true)
    for (const process of processes()) process.drain(to)
    return this.status(name)
  }

  /** The server takes connections again. Those that have moved stay where they are. */
  end(name: string): Promise<DrainStatus> {
    this.#server(name)
    const { agent, processes } = this.#board(name)
    this.#targets.delete(name)
    agent.drain(false)
    for (const process of processes()) process.endDrain()
    return this.status(name)
  }

  /** How far a server's drain has got. */
  async status(name: string): Promise<DrainStatus> {
    this.#server(name)
    const { agent, processes } = this.#board(name)
    const rows = await Promise.all(
      [...processes()].map(async (process) => ({ name: process.name, report: await process.report() })),
    )
    const to = this.#targets.get(name)
    return {
      server: name,
      draining: agent.draining,
      ...(to !== undefined && { to }),
      moved: rows.reduce((sum, { report }) => sum + (report?.moved ?? 0), 0),
      left: rows.reduce((sum, { report }) => sum + (report?.left ?? 0), 0),
      processes: rows.map(({ name, report }) => ({
        name,
        ...(report === undefined ? { silent: true } : { moved: report.moved, left: report.left }),
      })),
    }
  }

  #server(name: string): ServerConfig {
    const server = this.#farm.servers.find((candidate) => candidate.name === name)
    if (server !== undefined) return server
    const names = this.#farm.servers.map((candidate) => candidate.name)
    throw usageError(`the farm has no server '${name}'`, suggest(name, names) ?? `it has: ${names.join(', ')}`)
  }

  #board(name: string): DrainedBoard {
    const board = this.#boards.get(name)
    if (board?.runs()) return board
    throw new CommandError(`the INIC of ${name} does not run`, { exitCode: EXIT_BOARD })
  }
}
