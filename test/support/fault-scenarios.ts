/** What the fault search does something to: each is a story about connections to server1 that are served elsewhere. */
import { PORT_CLIENT_FIRST } from '../../toolchain/soak/conversation.ts'
import type { Scenario } from './fault-run.ts'

const ONE = [{ upload: 0, download: 1000 }]

export const scenarios: readonly Scenario[] = [
  { name: 'request', plans: [{ port: PORT_CLIENT_FIRST, rounds: ONE, ends: 'client' }] },
]
