/** One real HTTP request through the first published port of a farm: what `inic run --once` does. */
import { request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { errorCode, errorMessage } from '../errors.ts'
import type { FarmSession } from './session.ts'

/** How long the application may take until it listens. */
const PATIENCE_MS = 10_000
const RETRY_MS = 50
const REQUEST_TIMEOUT_MS = 5000

export interface OnceResult {
  readonly ok: boolean
  readonly url: string
  readonly status: number | undefined
  readonly bytes: number
  readonly milliseconds: number
  /** Why it was not served; undefined if it was. */
  readonly error: string | undefined
  /** The same for people. */
  readonly lines: readonly string[]
}

interface Response {
  readonly status: number
  readonly bytes: number
  readonly type: string
}

/** Makes one request; while nobody listens in the farm yet, it is tried again. */
export async function requestOnce(session: FarmSession): Promise<OnceResult> {
  const [{ address, target }] = session.status().published
  const url = `http://${address}/`
  const deadline = performance.now() + PATIENCE_MS
  for (;;) {
    const startedAt = performance.now()
    try {
      const response = await get(url)
      const milliseconds = performance.now() - startedAt
      const ok = response.status < 400
      const first = `GET ${url} → ${target}: ${response.status}, ${response.bytes} bytes of ${response.type} in ${milliseconds.toFixed(1)} ms`
      const error = ok ? undefined : `status ${response.status}`
      return { ok, url, ...response, milliseconds, error, lines: [first, ...describeCards(session)] }
    } catch (error) {
      // The card answers for a port where nobody listens with a reset, and the gateway passes it on.
      if (errorCode(error) === 'ECONNRESET' && performance.now() < deadline && !session.allStopped) {
        await sleep(RETRY_MS)
        continue
      }
      const milliseconds = performance.now() - startedAt
      const reason = errorMessage(error)
      const lines = [`GET ${url} → ${target}: ${reason}`, ...describeCards(session)]
      return { ok: false, url, status: undefined, bytes: 0, milliseconds, error: reason, lines }
    }
  }
}

function get(url: string): Promise<Response> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { agent: false, timeout: REQUEST_TIMEOUT_MS }, (response) => {
      let bytes = 0
      response.on('data', (chunk) => {
        bytes += chunk.length
      })
      response.on('error', reject)
      response.on('end', () => {
        resolve({ status: response.statusCode ?? 0, bytes, type: response.headers['content-type'] ?? 'no type' })
      })
    })
    sent.on('timeout', () => sent.destroy(new Error(`no answer in ${REQUEST_TIMEOUT_MS} ms`)))
    sent.on('error', reject)
    sent.end()
  })
}

/** What each card moved for it. */
function describeCards(session: FarmSession): string[] {
  return [...session.assembly.farm.boards.values()].map((board) => {
    const { ports, slices } = board.statistics()
    const received = ports.reduce((sum, port) => sum + port.rxFrames, 0)
    const sent = ports.reduce((sum, port) => sum + port.txFrames, 0)
    return `  ${board.name}: ${received} frames received, ${sent} sent, ${slices} slices of firmware`
  })
}
