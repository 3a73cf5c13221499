import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type net from 'node:net'
import { DIRECTORY_CHUNKS, DIRECTORY_STATE, DIRECTORY_TCBS } from '../abi/memory.ts'
import type { Board } from '../emulator/board.ts'
import { parseLayouts } from '../toolchain/firmware/layouts.ts'
import { InicMemoryReader } from '../toolchain/inspect/inic-memory.ts'
import type { Pair } from './pair.ts'
import { SERVER_IP } from './pair.ts'

/** Connections that are opened at a time. */
const BATCH = 256

/** What an established connection costs that does nothing. */
export interface IdleFigures {
  readonly connections: number
  /** Heap of the process, bytes a connection: two sockets. */
  readonly hostBytes: number
  /** Memory of the server's INIC, bytes a connection: its control block and the buffers that it holds. */
  readonly cardBytes: number
}

/** Opens `count` connections, holds them, and measures. @param layouts path of firmware.layouts.json */
export async function idleConnections({ server, client }: Pair, count: number, layouts: string): Promise<IdleFigures> {
  const accepted: net.Socket[] = []
  const listening = server.net.createServer((socket) => {
    socket.on('error', () => {})
    accepted.push(socket)
  })
  listening.listen({ port: 0, host: SERVER_IP, firstSpeaker: 'server' } as net.ListenOptions)
  await once(listening, 'listening')
  const { port } = listening.address() as net.AddressInfo
  globalThis.gc?.()
  const heapBefore = process.memoryUsage().heapUsed
  const cardBefore = bufferBytes(server.board, layouts)
  const opened: net.Socket[] = []
  while (opened.length < count) {
    const batch = Array.from({ length: Math.min(BATCH, count - opened.length) }, async () => {
      const socket = client.net.connect({ host: SERVER_IP, port })
      socket.on('error', () => {})
      await once(socket, 'connect')
      opened.push(socket)
    })
    await Promise.all(batch)
  }
  globalThis.gc?.()
  const hostBytes = (process.memoryUsage().heapUsed - heapBefore) / count
  const heldBytes = (bufferBytes(server.board, layouts) - cardBefore) / count
  const blockBytes = readerOf(server.board, layouts).entry(DIRECTORY_TCBS)?.stride ?? Number.NaN
  const closed = once(listening, 'close')
  listening.close()
  for (const socket of [...opened, ...accepted]) socket.destroy()
  await closed
  return { connections: count, hostBytes, cardBytes: blockBytes + heldBytes }
}

function readerOf(board: Board, layouts: string): InicMemoryReader {
  const bytes = board.memory?.bytes
  if (bytes === undefined) throw new Error(`${board.name} is off`)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return new InicMemoryReader(view, parseLayouts(readFileSync(layouts, 'utf8')))
}

/** Bytes of buffers that are not free. */
function bufferBytes(board: Board, layouts: string): number {
  const reader = readerOf(board, layouts)
  const state = reader.row(DIRECTORY_STATE, 0)
  const stride = reader.entry(DIRECTORY_CHUNKS)?.stride
  if (state === undefined || stride === undefined) throw new Error('the firmware keeps no directory')
  return (state.number('chunkCount') - state.number('chunkFreeCount')) * stride
}
