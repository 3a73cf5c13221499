import type { RandomStream } from '../../emulator/random.ts'
import {
  type Plan,
  type PlannedMove,
  PORT_CLIENT_FIRST,
  PORT_GREETING,
  PORT_SERVER_FIRST,
  type Round,
} from './conversation.ts'

const MOST_ROUNDS = 4
const MOST_MOVES = 4
/** Pieces of a slow upload or answer, at most. */
const PIECES = 60

/** One of several, each as likely as its number of times in the list. */
function pick<T>(random: RandomStream, choices: readonly T[]): T {
  return choices[random.below(choices.length)]!
}

/** From `low` to `high`, small ones as likely as large ones. */
export function spread(random: RandomStream, low: number, high: number): number {
  return low * (high / low) ** (random.below(1e6) / 1e6)
}

function size(random: RandomStream): number {
  return Math.round(spread(random, 1, pick(random, [300, 300, 300, 5000, 5000, 40_000, 200_000])))
}

/** A conversation of any kind. @param servers names that it may move to */
export function drawPlan(random: RandomStream, servers: readonly string[]): Plan {
  const client = PORT_CLIENT_FIRST
  const port = pick(random, [client, client, client, client, client, client, PORT_GREETING, PORT_SERVER_FIRST])
  const rounds: Round[] = Array.from({ length: 1 + random.below(MOST_ROUNDS) }, () => ({
    upload: random.chance(0.5) ? 0 : size(random),
    download: size(random),
  }))
  const largest = Math.max(...rounds.map(({ upload, download }) => Math.max(upload, download)))
  const pieceBytes = Math.max(1, Math.ceil(largest / (1 + random.below(PIECES))))
  const last = rounds.at(-1)!
  const ends = pick(random, [
    ...(['client', 'client', 'client', 'client', 'client-early', 'client-early'] as const),
    ...(['server', 'server', 'server', 'client-reset', 'server-reset'] as const),
  ])
  return {
    port,
    rounds,
    ends,
    ...(random.chance(0.15) && { pipelined: true }),
    ...(random.chance(0.2) && { pieceBytes, pieceMs: spread(random, 0.05, 50) }),
    ...(random.chance(0.2) && { writeBytes: pieceBytes, writeMs: spread(random, 0.05, 50) }),
    ...(random.chance(0.3) && { pauseMs: spread(random, 1, 60_000) }),
    ...(random.chance(0.1) && { readPauseMs: spread(random, 1, 5000) }),
    ...(ends === 'client-reset' && { resetAt: 1 + random.below(last.download) }),
    ...(random.chance(0.5) && { moves: drawMoves(random, rounds, servers, port === client) }),
  }
}

/** @param mayBeNew who accepts it as new need not know that it was greeted */
function drawMoves(
  random: RandomStream,
  rounds: readonly Round[],
  servers: readonly string[],
  mayBeNew: boolean,
): PlannedMove[] {
  const during = ['upload', 'answer', 'between'] as const
  const moves = Array.from({ length: 1 + random.below(MOST_MOVES) }, (): PlannedMove => {
    const round = random.below(rounds.length)
    const when = pick(random, during)
    const bytes = when === 'upload' ? rounds[round]!.upload : rounds[round]!.download
    return {
      round,
      during: when,
      at: random.below(bytes + 1),
      ...(random.chance(0.7) && { to: pick(random, servers) }),
      ...(when === 'between' && mayBeNew && round < rounds.length - 1 && random.chance(0.5) && { asNew: true }),
    }
  })
  const order = (move: PlannedMove) => move.round * during.length + during.indexOf(move.during)
  return moves.sort((a, b) => order(a) - order(b) || (a.at ?? 0) - (b.at ?? 0))
}
