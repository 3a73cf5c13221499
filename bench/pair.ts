import { readFileSync } from 'node:fs'
import type { Board } from '../emulator/board.ts'
import type { CpuKind } from '../emulator/cpu/index.ts'
import { Farm } from '../emulator/farm.ts'
import { BoardClock } from '../emulator/process.ts'
import { Driver } from '../host/driver/driver.ts'
import { createNet, type Net } from '../host/net.ts'
import { NO_REFERENCES } from '../host/stack.ts'

/** Main-board RAM of each benchmark process, bytes. */
const RAM_BYTES = 32 << 20

export const SERVER_IP = '123.123.123.1'
const NETWORK = 0x7b7b7b00

/** One board with one process on it. */
export interface End {
  board: Board
  driver: Driver
  net: Net
}

export interface Pair {
  farm: Farm
  server: End
  client: End
  close(): Promise<void>
}

export interface PairOptions {
  /** Path of firmware.wasm. */
  firmware: string
  cpu: CpuKind | 'auto'
}

/** Two boards joined by one cable, in real time, all in this thread. */
export function makePair(options: PairOptions): Pair {
  const farm = new Farm({ clock: 'real', seed: 'bench' })
  farm.on('crash', (board, report) => {
    throw new Error(`${board.name} stopped: ${report.message}`)
  })
  const wasm = readFileSync(options.firmware)
  const end = (name: string, last: number): End => {
    const board = farm.addBoard(name, { cpu: options.cpu })
    board.powerOn({ wasm, boot: { interfaces: [{ address: NETWORK + last, prefix: 24 }] } })
    const driver = new Driver(board.attachProcess({ ramBytes: RAM_BYTES }).bus)
    return {
      board,
      driver,
      net: createNet({ driver, clock: new BoardClock(farm), hosts: new Map(), references: NO_REFERENCES }),
    }
  }
  const server = end('server', 1)
  const client = end('client', 2)
  farm.connect(server.board.ports[0], client.board.ports[0])
  farm.start()
  return {
    farm,
    server,
    client,
    async close() {
      await farm.stop()
      server.board.powerOff()
      client.board.powerOff()
    },
  }
}
