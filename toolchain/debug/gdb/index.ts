/**
 * gdb-remote over a debug session: LLDB's `process connect --plugin wasm connect://HOST:PORT`. docs/debugging-lldb.md tells how
 * to use it.
 */
import type { Duplex } from 'node:stream'
import { packageRoot } from '../../package-root.ts'
import type { SessionApi } from '../session/api.ts'
import { type GdbOptions, GdbServer } from './server.ts'

export { type GdbOptions, GdbServer } from './server.ts'

/**
 * Serves one connection. The farm halts, if it does not yet; when the connection ends, the session detaches and the farm runs
 * on, and the server emits `end`.
 */
export function serveGdb(session: SessionApi, stream: Duplex, options: Partial<GdbOptions> = {}): GdbServer {
  return new GdbServer(session, stream, { projects: [packageRoot, process.cwd()], ...options })
}
