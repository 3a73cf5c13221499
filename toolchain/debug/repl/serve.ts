/**
 * The REPL for a terminal in another process: a JSON value a line. The farm's process runs the commands; the other edits lines.
 *
 *   → {"id":1,"execute":"bt"}            ← {"id":1,"text":"#0 …\n","ok":true,"prompt":"(inic) "}
 *   → {"id":2,"complete":"info th"}      ← {"id":2,"items":["info threads"]}
 *   → {"interrupt":true}                 ← {"output":"server1 | listening\n"}
 */
import type { Readable, Writable } from 'node:stream'
import { errorMessage } from '../../errors.ts'
import type { DebugTarget } from '../front/target.ts'
import { LineReader } from './line-reader.ts'
import { type Outcome, Repl, type ReplOptions } from './repl.ts'

/** Longest request, bytes. */
const MAXIMUM_REQUEST_BYTES = 64 * 1024
/** What a terminal may leave unread before output that comes by itself is dropped, bytes. */
const MAXIMUM_BACKLOG_BYTES = 4 * 1024 * 1024

export type ReplAnswer =
  | { readonly greeting: string; readonly prompt: string }
  | ({ readonly id: number; readonly prompt: string } & Outcome)
  | { readonly id: number; readonly items: readonly string[] }
  | { readonly output: string }
  | { readonly terminated: true }

/** Serves one terminal until either side ends; then the session does. @throws ReplError if there is no server of that name */
export function serveRepl(input: Readable, output: Writable, target: DebugTarget, options: ReplOptions): () => void {
  const repl = new Repl(target.session, options)
  const send = (answer: ReplAnswer) => {
    if (output.writable) output.write(`${JSON.stringify(answer)}\n`)
  }
  let over = false
  const end = () => {
    if (over) return
    over = true
    input.off('data', onData)
    repl.close()
    void target
      .end()
      .catch(() => {}) // there is nobody left to tell
      .finally(() => output.end())
  }
  const execute = async (id: number, line: string) => {
    const outcome = await repl.execute(line)
    send({ id, prompt: repl.prompt, ...outcome })
    if (outcome.ended !== undefined) end()
  }
  const lines = new LineReader(MAXIMUM_REQUEST_BYTES, (line) => {
    const request = parseRequest(line)
    if (request === undefined) return end() // not our terminal
    if ('interrupt' in request) repl.interrupt()
    else if ('complete' in request) send({ id: request.id, items: repl.complete(request.complete) })
    else execute(request.id, request.execute).catch((error: unknown) => send({ output: `${errorMessage(error)}\n` }))
  })
  const onData = (chunk: Buffer) => {
    if (!lines.push(chunk)) end()
  }
  repl.on('output', (text) => {
    if (output.writableLength < MAXIMUM_BACKLOG_BYTES) send({ output: text })
  })
  repl.on('terminated', () => send({ terminated: true }))
  send({ greeting: repl.greeting(), prompt: repl.prompt })
  input.on('data', onData)
  for (const event of ['end', 'close', 'error'] as const) input.once(event, end)
  return end
}

type ReplRequest =
  | { readonly interrupt: true }
  | { readonly id: number; readonly execute: string }
  | { readonly id: number; readonly complete: string }

function parseRequest(line: string): ReplRequest | undefined {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    return undefined
  }
  if (typeof value !== 'object' || value === null) return undefined
  if ('interrupt' in value) return { interrupt: true }
  const { id, execute, complete } = value as Record<string, unknown>
  if (typeof id !== 'number') return undefined
  if (typeof execute === 'string') return { id, execute }
  return typeof complete === 'string' ? { id, complete } : undefined
}
