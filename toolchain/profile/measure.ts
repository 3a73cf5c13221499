/** Where measurements come from: a running farm, or a recording. */
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { ReplayError } from '../../emulator/record/replay.ts'
import { suggest } from '../config/issues.ts'
import { type FarmSelection, withFarm } from '../control/client.ts'
import type { ProfilePiece } from '../control/protocol.ts'
import { FirmwareLibrary } from '../debug/session/firmware.ts'
import type { LoadedFirmware } from '../debug/session/inic.ts'
import { loadRecording } from '../debug/session/open-recording.ts'
import { CommandError, usageError } from '../errors.ts'
import { knownProjects } from '../project.ts'
import { note, startProgress } from '../terminal.ts'
import type { Measurement, MeterHow } from './meter.ts'
import { measureLife } from './replay.ts'

/** What one board executed from a power-on, or from when it was first looked at. */
export interface BoardMeasurement {
  readonly board: string
  readonly firmware: LoadedFirmware
  readonly measurement: Measurement
}

/** Longest time that a running farm is measured, seconds: counts have 32 bits. */
export const MAXIMUM_SECONDS = 600

/** Measures a running farm for so many seconds, or until Ctrl-C. @throws CommandError */
export async function measureFarm(
  selection: FarmSelection,
  server: string | undefined,
  how: MeterHow,
  seconds: number,
): Promise<BoardMeasurement[]> {
  return withFarm(selection, async (client) => {
    await client.request('profile', { ...(server !== undefined && { server }), ...how })
    const stream = client.stream()
    const waiting = new AbortController()
    const stop = () => waiting.abort()
    process.once('SIGINT', stop)
    process.once('SIGTERM', stop)
    stream.once('close', stop)
    note(`counting for ${seconds} s; Ctrl-C ends it`)
    await sleep(seconds * 1000, undefined, { signal: waiting.signal }).catch(() => {})
    process.off('SIGINT', stop).off('SIGTERM', stop)
    stream.write('\n')
    const pieces: ProfilePiece[] = []
    for await (const line of createInterface({ input: stream })) pieces.push(JSON.parse(line) as ProfilePiece)
    if (pieces.length === 0) throw new CommandError('the farm stopped before it told what was counted')
    const library = new FirmwareLibrary(knownProjects(pieces[0]!.projects))
    return pieces.map(({ server: board, wasm, description, measurement }) => ({
      ...{ board, measurement, firmware: library.find(Buffer.from(wasm, 'base64'), description) },
    }))
  })
}

/** Measures every board of a recording, or one. @throws CommandError */
export function measureRecording(path: string, server: string | undefined, how: MeterHow): BoardMeasurement[] {
  const { recording, library } = loadRecording(path)
  if (recording.remark !== undefined) note(recording.remark)
  const names = [...new Set(recording.lives.map(({ board }) => board))]
  if (server !== undefined && !names.includes(server))
    throw usageError(`${path} has no server '${server}'`, suggest(server, names) ?? `it has: ${names.join(', ')}`)
  const lives = recording.lives.filter(({ board }) => server === undefined || board === server)
  const progress = startProgress(`counting ${path}`)
  try {
    return lives.map((life, index) => {
      const firmware = library.find(life.module, 'firmware')
      const measurement = measureLife(
        life,
        recording,
        how,
        () => firmware.sites,
        (slice) => progress.update(`counting ${life.board}`, (index + slice / recording.slice) / lives.length),
      )
      return { board: life.board, firmware, measurement }
    })
  } catch (error) {
    if (error instanceof ReplayError) throw new CommandError(`${path} cannot be replayed: ${error.message}`)
    throw error
  } finally {
    progress.end()
  }
}
