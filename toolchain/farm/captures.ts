/** Captures of a running farm: any number of them on any network or link, into files and into control connections. */
import type { Socket } from 'node:net'
import type { Farm } from '../../emulator/farm.ts'
import type { Cable, Direction } from '../../emulator/link/cable.ts'
import type { FrameSink } from '../../emulator/link/link.ts'
import { PcapngWriter } from '../../emulator/link/pcapng.ts'
import { suggest } from '../config/issues.ts'
import { errorMessage, usageError } from '../errors.ts'
import type { NetworkAssembly } from './assembly.ts'

/** What a slow reader of a capture may leave lying before frames are dropped, bytes. */
const MAXIMUM_BACKLOG_BYTES = 32 * 1024 * 1024
/** How often what was captured is passed on, so that a live view is live. */
const FLUSH_MS = 200

/** One direction of one cable, that several captures may watch. */
interface Watch {
  readonly cable: Cable
  readonly direction: Direction
  readonly sinks: Set<FrameSink>
}

/** Where to look, and the name that the capture gives to it. */
interface Place {
  readonly cable: Cable
  readonly direction: Direction
}

export class Captures {
  readonly #farm: Farm
  readonly #networks: ReadonlyMap<string, NetworkAssembly>
  readonly #watches = new Map<string, Watch>()
  readonly #report: (line: string) => void

  /** @param report takes a line about frames that were lost, or a file that cannot be written */
  constructor(farm: Farm, networks: ReadonlyMap<string, NetworkAssembly>, report: (line: string) => void) {
    this.#farm = farm
    this.#networks = networks
    this.#report = report
  }

  /** Captures `target` into a file until the farm stops. @throws CommandError if there is no such target or no such file. */
  toFile(target: string | undefined, path: string): void {
    const places = target === undefined ? this.#everything() : this.#find(target)
    let writer: PcapngWriter
    try {
      const onError = (error: Error) => this.#report(`capture ${path} ends here: ${error.message}`)
      writer = new PcapngWriter(path, { epochNs: this.#farm.epochNs, onError })
    } catch (error) {
      throw usageError(`${path} cannot be written: ${errorMessage(error)}`)
    }
    const end = this.#watchAll(places, writer, () => false)
    const timer = setInterval(() => writer.flush(), FLUSH_MS).unref()
    this.#farm.own({
      close: () => {
        clearInterval(timer)
        end()
        writer.close()
      },
    })
  }

  /**
   * Captures `target` into a connection until its other side ends it, or the function that is returned is called. The target must
   * have been checked with `check`.
   */
  toSocket(target: string, socket: Socket): () => void {
    let lost = 0
    const writer = new PcapngWriter((bytes) => void (socket.writable && socket.write(Buffer.from(bytes))), {
      epochNs: this.#farm.epochNs,
    })
    const end = this.#watchAll(this.#find(target), writer, () => {
      if (socket.writableLength <= MAXIMUM_BACKLOG_BYTES) return false
      lost++
      return true
    })
    const timer = setInterval(() => writer.flush(), FLUSH_MS).unref()
    let closed = false
    const close = () => {
      if (closed) return
      closed = true
      clearInterval(timer)
      end()
      writer.close()
      if (lost > 0) this.#report(`capture of ${target}: ${lost} frames lost, its reader was too slow`)
      socket.end()
    }
    socket.once('end', close)
    socket.once('close', () => {
      socket.off('end', close)
      clearInterval(timer)
      end()
    })
    writer.flush()
    return close
  }

  /** @throws CommandError (exit code 2) if there is no network or link `target`. */
  check(target: string): void {
    this.#find(target)
  }

  /** A network's frames as they enter it, or both directions of a link. */
  #find(target: string): Place[] {
    const network = this.#networks.get(target)
    if (network) return network.cables.map((cable) => ({ cable, direction: 'forward' }))
    const cable = this.#farm.cables.get(target)
    if (cable) return bothWays(cable)
    const known = [...this.#networks.keys(), ...this.#farm.cables.keys()]
    throw usageError(
      `there is no network or link '${target}'`,
      suggest(target, known) ?? `there are: ${known.join(', ')}`,
    )
  }

  /** Every network: each frame of the farm once. */
  #everything(): Place[] {
    return [...this.#networks.keys()].flatMap((name) => this.#find(name))
  }

  /** Has `writer` see every place; the function that is returned ends it. */
  #watchAll(places: readonly Place[], writer: PcapngWriter, refuses: () => boolean): () => void {
    const ends = places.map(({ cable, direction }) => {
      const inner = writer.interface(`${cable.name} ${direction === 'forward' ? 'out' : 'in'}`)
      return this.#watch(cable, direction, {
        frame(memory, offset, length, nowNs) {
          if (!refuses()) inner.frame(memory, offset, length, nowNs)
        },
      })
    })
    return () => {
      for (const end of ends) end()
    }
  }

  #watch(cable: Cable, direction: Direction, sink: FrameSink): () => void {
    const key = `${cable.name} ${direction}`
    const watch = this.#watches.get(key) ?? this.#startWatch(key, cable, direction)
    watch.sinks.add(sink)
    return () => {
      watch.sinks.delete(sink)
      if (watch.sinks.size > 0 || this.#watches.get(key) !== watch) return
      this.#watches.delete(key)
      cable.capture(null, direction)
    }
  }

  #startWatch(key: string, cable: Cable, direction: Direction): Watch {
    const sinks = new Set<FrameSink>()
    const watch = { cable, direction, sinks }
    this.#watches.set(key, watch)
    const fanOut: FrameSink = {
      frame(memory, offset, length, nowNs) {
        for (const sink of sinks) sink.frame(memory, offset, length, nowNs)
      },
    }
    cable.capture(fanOut, direction)
    return watch
  }
}

function bothWays(cable: Cable): Place[] {
  return [
    { cable, direction: 'forward' },
    { cable, direction: 'backward' },
  ]
}
