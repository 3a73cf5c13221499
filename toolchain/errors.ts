/**
 * Errors that a person meets on the command line, and the exit codes that a script meets.
 */

/** Everything that was asked for was done. */
export const EXIT_OK = 0
/** The work itself failed: a build error, a request that was not answered, a port that is taken. */
export const EXIT_FAILED = 1
/** What was asked cannot be meant: an unknown option, a malformed farm file, a file that is no image. */
export const EXIT_USAGE = 2
/** The command needs a running farm and there is none, or needs it stopped and it runs. */
export const EXIT_FARM_STATE = 3
/** A board stopped: trap, watchdog, bus fault, or an image that does not boot. */
export const EXIT_BOARD = 4
/** Interrupted a second time while stopping; as shells number it (128 + SIGINT). */
export const EXIT_INTERRUPTED = 130

/**
 * A failure with everything its reader needs: what happened and to which thing in `message`, what to do in `hint`.
 * `main.ts` prints both and exits with `exitCode`; any other error is a defect of ours and is printed with its stack.
 */
export class CommandError extends Error {
  override readonly name: string = 'CommandError'
  readonly exitCode: number
  readonly hint: string | undefined

  constructor(message: string, options: { exitCode?: number; hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.exitCode = options.exitCode ?? EXIT_FAILED
    this.hint = options.hint
  }
}

/** A CommandError for input that cannot be meant; exit code 2. */
export function usageError(message: string, hint?: string): CommandError {
  return new CommandError(message, hint === undefined ? { exitCode: EXIT_USAGE } : { exitCode: EXIT_USAGE, hint })
}

/** The system error code of `error` (`'ENOENT'`, ...), or undefined. */
export function errorCode(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}

/** The message of whatever was thrown. */
export function errorMessage(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
