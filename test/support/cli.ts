/** The `inic` command, spawned as a person's shell would. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { packageRoot } from '../../toolchain/package-root.ts'

const MAIN = join(packageRoot, 'dist/toolchain/main.js')

export interface CliResult {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface CliOptions {
  readonly cwd?: string
  readonly env?: Readonly<Record<string, string>>
  readonly timeoutMs?: number
  /** Words before the command, such as those that put it into a network namespace. */
  readonly prefix?: readonly string[]
}

/** Runs the command to its end. @throws Error with what it had said, if a signal ended it, ours after `timeoutMs` (60 s) or another */
export async function inic(args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  const command = start(args, options)
  const timer = setTimeout(() => command.child.kill('SIGKILL'), options.timeoutMs ?? 60_000)
  const result = await command.ended
  clearTimeout(timer)
  const { signalCode } = command.child
  if (signalCode !== null)
    throw new Error(`inic ${args.join(' ')} was ended by ${signalCode}:\n${result.stdout}\n${result.stderr}`)
  return result
}

/** How a command answers what cannot be meant: exit code, 2 unless it is another, and what it says. */
export interface Refusal {
  readonly args: readonly string[]
  readonly code?: number
  readonly says: RegExp
}

/** A test for each of them, by name. */
export function refusals(command: string, cases: Readonly<Record<string, Refusal>>): void {
  for (const [name, { args, code = 2, says }] of Object.entries(cases)) {
    test(`inic ${command} refuses: ${name}`, async (t) => {
      const result = await inic([command, ...args])
      t.is(result.code, code, result.stderr)
      t.regex(result.stderr, says)
      t.notRegex(result.stderr, /defect of inic/)
    })
  }
}

export interface RunningCommand {
  readonly child: ChildProcess
  /** Waits until the output matches; fails if the command ends before. */
  until(pattern: RegExp): Promise<RegExpExecArray>
  /** Ctrl-C; gives the result and how long stopping took. */
  interrupt(): Promise<CliResult & { readonly milliseconds: number }>
  /** When it has ended, whether that was before the question or is still to come. */
  readonly ended: Promise<CliResult>
  result(): CliResult
}

/** Starts the command and leaves it running; what is left at the end of the test is killed. */
export function startInic(t: ExecutionContext, args: readonly string[], options: CliOptions = {}): RunningCommand {
  const command = start(args, options)
  t.teardown(() => command.child.kill('SIGKILL'))
  return command
}

function start(args: readonly string[], options: CliOptions): RunningCommand {
  const [program, ...words] = [...(options.prefix ?? []), process.execPath, MAIN, ...args]
  const child = spawn(program, words, {
    cwd: options.cwd ?? packageRoot,
    env: { ...process.env, NO_COLOR: '1', FORCE_COLOR: '', ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text) => {
    stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text
  })
  const result = () => ({ code: child.exitCode, stdout, stderr })
  let over = false
  const ended = once(child, 'close').then(() => {
    over = true
    return result()
  })
  return {
    child,
    result,
    ended,
    async until(pattern) {
      for (;;) {
        const match = pattern.exec(stdout) ?? pattern.exec(stderr)
        if (match) return match
        if (over) throw new Error(`inic ${args.join(' ')} ended before ${pattern}:\n${stdout}\n${stderr}`)
        await new Promise((resolve) => setTimeout(resolve, 10))
      }
    },
    async interrupt() {
      const startedAt = performance.now()
      child.kill('SIGINT')
      return { ...(await ended), milliseconds: performance.now() - startedAt }
    },
  }
}
