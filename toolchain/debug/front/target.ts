/** What a front end debugs: a farm, and the one session over it. */
import type { SessionApi } from '../session/api.ts'

export interface DebugTarget {
  readonly session: SessionApi
  /** Name of the farm. */
  readonly farm: string
  /** True if it was started to be debugged: whoever ends the session ends the farm, too. */
  readonly launched: boolean
  /** Where published ports are open, and where they lead: `http://127.0.0.1:8080 → server1:80`. */
  readonly published: readonly string[]
  /** Detaches; a farm that was launched is taken down. A second call waits for the first. */
  end(): Promise<void>
}
