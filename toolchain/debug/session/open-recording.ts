import { type ReadRecording, RecordingError, readRecording } from '../../../emulator/record/file.ts'
import { CommandError, errorMessage, usageError } from '../../errors.ts'
import { knownProjects } from '../../project.ts'
import { FirmwareLibrary } from './firmware.ts'
import { DebugSession } from './session.ts'

/** A recording under a debug session, and what is odd about it. */
export interface OpenedRecording {
  readonly session: DebugSession
  readonly remark: string | undefined
}

/** A recording that was read, and what is known of the firmware in it. */
export interface LoadedRecording {
  readonly recording: ReadRecording
  readonly library: FirmwareLibrary
}

/** Opens what `inic run --record` wrote. @throws CommandError that says what is wrong with the file, and where */
export function openRecording(path: string): OpenedRecording {
  return reading(path, () => {
    const { recording, library } = load(path)
    const session = DebugSession.replay(recording, { firmware: (wasm, description) => library.find(wasm, description) })
    return { session, remark: recording.remark }
  })
}

/** As {@link openRecording}, without a session. */
export function loadRecording(path: string): LoadedRecording {
  return reading(path, () => load(path))
}

function load(path: string): LoadedRecording {
  const recording = readRecording(path)
  const library = new FirmwareLibrary(knownProjects())
  // The file may know its firmware better: the project may have been built anew since.
  for (const [{ module }, { description = 'firmware', ...texts }] of recording.notes) {
    if (texts.sourceMap !== undefined && !library.has(module)) library.add(module, description, texts)
  }
  return { recording, library }
}

function reading<T>(path: string, read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (error instanceof RecordingError) throw usageError(`${path} cannot be replayed: ${error.message}`)
    if (error instanceof CommandError) throw error
    throw usageError(`${path} cannot be read: ${errorMessage(error)}`)
  }
}
