import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

/** A figure of another stack, as its own benchmark prints it: one JSON object a line. */
export interface PeerFigure {
  readonly peer: string
  readonly bench: string
  readonly unit: string
  readonly median: number
}

/** Longest run of a peer's benchmark, milliseconds. */
const TIMEOUT_MS = 600_000

/**
 * Runs another stack's benchmark and collects the figures that it prints. Lines that are no figure are passed over.
 *
 * @param command for the shell
 * Throws Error if it fails or prints no figure.
 */
export async function runPeer(command: string): Promise<PeerFigure[]> {
  const child = spawn(command, { shell: true, stdio: ['ignore', 'pipe', 'inherit'], timeout: TIMEOUT_MS })
  const exited = once(child, 'exit') as Promise<[number | null, string | null]>
  const figures: PeerFigure[] = []
  for await (const line of createInterface({ input: child.stdout })) {
    const figure = parseFigure(line)
    if (figure !== null) figures.push(figure)
  }
  const [code, signal] = await exited
  if (code !== 0) throw new Error(`the peer's benchmark \`${command}\` ended with ${signal ?? `exit code ${code}`}`)
  if (figures.length === 0) throw new Error(`the peer's benchmark \`${command}\` printed no figure`)
  return figures
}

function parseFigure(line: string): PeerFigure | null {
  try {
    const value: unknown = JSON.parse(line)
    return isFigure(value) ? value : null
  } catch {
    return null
  }
}

function isFigure(value: unknown): value is PeerFigure {
  if (typeof value !== 'object' || value === null) return false
  const { peer, bench, unit, median } = value as Record<string, unknown>
  return typeof peer === 'string' && typeof bench === 'string' && typeof unit === 'string' && typeof median === 'number'
}
