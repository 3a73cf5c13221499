/** The trace rings of running boards, as they fill. */
import type { Socket } from 'node:net'
import type { Board } from '../../emulator/board.ts'

/** How often the rings are read, milliseconds. A ring of ipOS holds 4096 entries. */
const PERIOD_MS = 5

/** One line of `trace`: an entry, or how many were overwritten before they could be read. */
export type TraceLine =
  | { readonly server: string; readonly timeNs: number; readonly event: number; readonly text: string }
  | { readonly server: string; readonly lost: number }

/** Sends what the boards trace from now on, as JSON lines; the function that is returned ends it. */
export function traceToSocket(boards: readonly Board[], socket: Socket): () => void {
  const heads = new Map(boards.map((board) => [board, board.traceFrom(0).head]))
  const timer = setInterval(() => {
    // Whoever reads too slowly loses what the ring cannot hold, and is told how much.
    if (socket.writableNeedDrain) return
    const lines: string[] = []
    for (const board of boards) {
      const { entries, head, lost } = board.traceFrom(heads.get(board)!)
      heads.set(board, head)
      const tell = (line: TraceLine) => lines.push(`${JSON.stringify(line)}\n`)
      if (lost > 0) tell({ server: board.name, lost })
      for (const { timeNs, event, text } of entries) tell({ server: board.name, timeNs, event, text })
    }
    if (lines.length > 0) socket.write(lines.join(''))
  }, PERIOD_MS)
  const end = () => {
    clearInterval(timer)
    socket.end()
  }
  socket.once('end', end).once('close', () => clearInterval(timer))
  return end
}
