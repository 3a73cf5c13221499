import { RecordingError, readRecording } from '../../../emulator/record/file.ts'
import { CommandError, errorMessage, usageError } from '../../errors.ts'
import { knownProjects } from '../../project.ts'
import { FirmwareLibrary } from './firmware.ts'
import { DebugSession } from './session.ts'

/** A recording under a debug session, and what is odd about it. */
export interface OpenedRecording {
  readonly session: DebugSession
  readonly remark: string | undefined
}

/** Opens what `inic run --record` wrote. @throws CommandError that says what is wrong with the file, and where */
export function openRecording(path: string): OpenedRecording {
  try {
    const recording = readRecording(path)
    const library = new FirmwareLibrary(knownProjects())
    // The file may know its firmware better: the project may have been built anew since.
    for (const [{ module }, { description = 'firmware', ...texts }] of recording.notes) {
      if (texts.sourceMap !== undefined && !library.has(module)) library.add(module, description, texts)
    }
    const session = DebugSession.replay(recording, { firmware: (wasm, description) => library.find(wasm, description) })
    return { session, remark: recording.remark }
  } catch (error) {
    if (error instanceof RecordingError) throw usageError(`${path} cannot be replayed: ${error.message}`)
    if (error instanceof CommandError) throw error
    throw usageError(`${path} cannot be read: ${errorMessage(error)}`)
  }
}
