/** What the fault search does something to: each is a story about connections to server1 that are served elsewhere. */
import {
  type PlannedMove,
  PORT_CLIENT_FIRST,
  PORT_GREETING,
  PORT_SERVER_FIRST,
  type Round,
} from '../../toolchain/soak/conversation.ts'
import type { Scenario, ScenarioPlan } from './fault-run.ts'

const port = PORT_CLIENT_FIRST
const ONE: readonly Round[] = [{ upload: 0, download: 1000 }]
const THREE: readonly Round[] = [
  { upload: 0, download: 500 },
  { upload: 400, download: 3000 },
  { upload: 0, download: 100 },
]

/** Frames take their time, the hub's longer: what the client sends finds an endpoint that moves. */
const queueFrames = 128
const SLOW = { lan: { delayNs: 50_000, queueFrames }, hub: { delayNs: 400_000, queueFrames } }
const LIVE = { lan: { delayNs: 100_000, queueFrames }, hub: { delayNs: 300_000, queueFrames }, servers: 3 }

/** One connection that an application hands over; `turns` as in Scenario: 0 = it begins on server 1. */
function live(name: string, turns: number, moves: readonly PlannedMove[], plan: Partial<ScenarioPlan> = {}): Scenario {
  const rounds = [{ upload: 12_000, download: 24_000 }]
  const goes = { moved: moves.length, servedOn: [turns === 0 ? 'server1' : 'server2'] }
  return { name, turns, options: LIVE, plans: [{ port, rounds, ends: 'client', moves, ...plan }], goes }
}

const answering = (to: string, at: number): PlannedMove => ({ round: 0, during: 'answer', at, to })
const reading = (to: string, at: number): PlannedMove => ({ round: 0, during: 'upload', at, to })

const AT_REQUEST = { moved: 0, servedOn: ['server2'] }

export const scenarios: readonly Scenario[] = [
  // ── moved at the request ──
  { name: 'request', plans: [{ port, rounds: ONE, ends: 'client' }], goes: AT_REQUEST },
  { name: 'slow hub', options: SLOW, plans: [{ port, rounds: ONE, ends: 'client' }], goes: AT_REQUEST },
  {
    name: 'segments',
    options: SLOW,
    plans: [{ port, rounds: [{ upload: 3000, download: 3000 }], ends: 'client', pieceBytes: 700, pieceMs: 0.15 }],
    goes: AT_REQUEST,
  },
  {
    name: 'split line',
    options: SLOW,
    plans: [{ port, rounds: ONE, ends: 'client', pieceBytes: 1, pieceMs: 0.2 }],
    goes: AT_REQUEST,
  },
  {
    name: 'pipelined',
    options: SLOW,
    plans: [{ port, rounds: THREE, ends: 'client', pipelined: true }],
    goes: AT_REQUEST,
  },
  {
    name: 'kept alive',
    options: SLOW,
    plans: [{ port, rounds: THREE, ends: 'server', pauseMs: 40 }],
    goes: AT_REQUEST,
  },
  { name: 'greeting', options: SLOW, plans: [{ port: PORT_GREETING, rounds: ONE, ends: 'client' }], goes: AT_REQUEST },
  {
    name: 'server first',
    options: SLOW,
    plans: [{ port: PORT_SERVER_FIRST, rounds: ONE, ends: 'server' }],
    goes: AT_REQUEST,
  },
  { name: 'early FIN', options: SLOW, plans: [{ port, rounds: ONE, ends: 'client-early' }], goes: AT_REQUEST },
  { name: 'server ends', options: SLOW, plans: [{ port, rounds: ONE, ends: 'server' }], goes: AT_REQUEST },
  {
    name: 'client resets',
    options: SLOW,
    plans: [{ port, rounds: [{ upload: 0, download: 20_000 }], ends: 'client-reset', resetAt: 3000 }],
    goes: AT_REQUEST,
  },
  { name: 'server resets', options: SLOW, plans: [{ port, rounds: ONE, ends: 'server-reset' }], goes: AT_REQUEST },
  {
    name: 'port again',
    options: SLOW,
    plans: [
      { port, rounds: ONE, ends: 'server', localPort: 5000 },
      { port, rounds: ONE, ends: 'client', localPort: 5000, after: 0 },
    ],
    goes: { moved: 0, servedOn: ['server2', 'server1'] },
  },
  // ── handed over in mid-conversation ──
  live('download', 0, [answering('server2', 10_000)]),
  live('upload', 0, [reading('server2', 5000)]),
  live('unread', 0, [reading('server2', 0)]),
  live('between', 0, [{ round: 0, during: 'between', to: 'server2' }], { rounds: THREE, pauseMs: 20 }),
  live('as new', 0, [{ round: 0, during: 'between', to: 'server2', asNew: true }], { rounds: THREE, pauseMs: 20 }),
  live('half closed', 0, [answering('server2', 10_000)], { ends: 'client-early' }),
  live('server ends late', 0, [answering('server2', 24_000)], { ends: 'server' }),
  live('window closed', 0, [answering('server2', 40_000)], {
    rounds: [{ upload: 0, download: 60_000 }],
    readPauseMs: 150,
  }),
  live('1-2-3', 1, [answering('server3', 10_000)]),
  live('1-2-1', 1, [answering('server1', 10_000)]),
  live('1-2-3-1', 1, [reading('server3', 5000), answering('server1', 10_000)]),
  live('1-2-3-2', 1, [reading('server3', 5000), answering('server2', 10_000)]),
  live('hasty', 1, [reading('server3', 0), answering('server1', 0), answering('server2', 0)]),
]
