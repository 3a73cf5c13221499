import type { SliceLog } from './log.ts'
import type { Life } from './recorder.ts'

/** What was recorded of a farm: by a recorder that still records, or read from a file. */
export interface Recording {
  readonly log: SliceLog
  /** By id. */
  readonly lives: readonly Life[]
  /** The number that the next slice would get. */
  readonly slice: number
  /** The oldest slice that can be run again. */
  readonly oldestSlice: number
}
