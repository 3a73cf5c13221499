/** Profiles of a running farm: for a while, its boards run where their instructions are counted. */
import type { Socket } from 'node:net'
import type { Board } from '../../emulator/board.ts'
import type { ProfilePiece } from '../control/protocol.ts'
import { Handover } from '../control/server.ts'
import { Sites } from '../debug/session/walk.ts'
import { createProgram } from '../debug/symbols/index.ts'
import { usageError } from '../errors.ts'
import { checkPeriod, type MeterHow } from '../profile/meter.ts'
import { MeteredBoard } from '../profile/metered-board.ts'
import { knownProjects } from '../project.ts'

/**
 * Begins to measure boards, all or none. Whatever the other side then says ends it, and is answered with a `ProfilePiece` a line; if the
 * other side goes, it ends too.
 *
 * @throws CommandError for a board that cannot be measured
 */
export function beginProfile(boards: readonly Board[], params: Readonly<Record<string, unknown>>): Handover {
  const how = parseHow(params)
  const metered: MeteredBoard[] = []
  try {
    // One that is off is an error only if it was asked for.
    const wanted = params.server === undefined ? boards.filter(({ cpu }) => cpu !== null) : boards
    for (const board of wanted) metered.push(new MeteredBoard(board, how, sitesOf))
  } catch (error) {
    for (const one of metered) one.end()
    throw error
  }
  return new Handover({ format: 'json lines' }, (socket) => measureToSocket(metered, socket))
}

function measureToSocket(metered: readonly MeteredBoard[], socket: Socket): () => void {
  let over = false
  const end = () => {
    if (over) return
    over = true
    for (const one of metered) {
      const measurement = one.end()
      if (!socket.writable) continue
      const piece: ProfilePiece = {
        ...{ server: one.board.name, wasm: Buffer.from(one.wasm).toString('base64'), measurement },
        ...{ description: one.description, projects: knownProjects() },
      }
      socket.write(`${JSON.stringify(piece)}\n`)
    }
    socket.end()
  }
  socket.once('data', end).once('end', end).once('close', end)
  return end
}

function parseHow({ mode, period }: Readonly<Record<string, unknown>>): MeterHow {
  switch (mode) {
    case 'count':
    case 'exact':
      return { mode }
    case 'sample':
      return { mode, period: checkPeriod(Number(period)) }
    default:
      throw usageError(`'${String(mode)}' is no way to profile`, 'there are: count, sample, exact')
  }
}

/** For following calls: what a function is called does not matter, so nothing but the module is read. */
function sitesOf(wasm: Uint8Array): Sites {
  return new Sites(createProgram({ wasm }))
}
