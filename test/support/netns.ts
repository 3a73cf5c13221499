/** A network namespace of the test's own: the kernel as a peer, without touching the machine's networks. */
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { promisify } from 'node:util'
import type { ExecutionContext } from 'ava'

const run = promisify(execFile)

export interface Namespace {
  readonly name: string
  /** Runs a program in it; rejects if it fails. */
  run(program: string, ...args: string[]): Promise<{ stdout: string; stderr: string }>
  /** The words before a program that put it into the namespace. */
  readonly prefix: readonly string[]
}

/** A namespace that goes with the test, or why there can be none. */
export async function makeNamespace(
  t: ExecutionContext,
  tools: readonly string[],
): Promise<Namespace | { reason: string }> {
  if (process.platform !== 'linux') return { reason: 'network namespaces are a thing of Linux' }
  if (process.getuid?.() !== 0) return { reason: 'no root' }
  for (const tool of ['ip', ...tools]) {
    if (!(await has(tool))) return { reason: `${tool} is not installed` }
  }
  const name = `inic-${randomBytes(4).toString('hex')}`
  try {
    await run('ip', ['netns', 'add', name])
  } catch (error) {
    return { reason: `no network namespace can be made (${String(error).split('\n')[0]})` }
  }
  t.teardown(() => run('ip', ['netns', 'delete', name]).catch(() => {}))
  const prefix = ['ip', 'netns', 'exec', name]
  await run('ip', ['-n', name, 'link', 'set', 'lo', 'up'])
  return {
    name,
    prefix,
    run: (program, ...args) => run(prefix[0], [...prefix.slice(1), program, ...args], { maxBuffer: 2 ** 26 }),
  }
}

async function has(tool: string): Promise<boolean> {
  return run('sh', ['-c', `command -v ${tool}`]).then(
    () => true,
    () => false,
  )
}
