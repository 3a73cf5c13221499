/** A board whose firmware echoes records, and a driver that the test plays. */
import type { Bus } from '../../abi/bus.ts'
import { BUS_FEATURES } from '../../abi/virtio.ts'
import type { Board } from '../../emulator/board.ts'
import { Farm } from '../../emulator/farm.ts'
import { TestQueue } from '../dma-driver.ts'
import { firmware, TEST_MEMORY_BYTES } from '../emulator-kit.ts'

export const RAM_BYTES = 0x40000
export const BUFFERS = 0x20000

export interface Bench {
  farm: Farm
  board: Board
  bus: Bus
  set: number
  /** Control, TX, RX, event. */
  queues: TestQueue[]
  interrupts: number
  settle(): Promise<void>
}

/** A board with the record echo firmware and one process; all queues enabled unless told otherwise. */
export async function bench({
  features = 0,
  shared = false,
  enable = true,
  size = 16,
  bufferBytes = 256,
} = {}): Promise<Bench> {
  const farm = new Farm({ clock: 'virtual' })
  const board = farm.addBoard('board', { cpu: 'v8', memoryBytes: TEST_MEMORY_BYTES })
  const { bus, set } = board.attachProcess({ ramBytes: RAM_BYTES, shared })
  board.powerOn({ wasm: await firmware('records') })
  const queues = [0, 1, 2, 3].map((index) => new TestQueue(bus, index, 0x8000 * index, size, bufferBytes))
  const result: Bench = {
    farm,
    board,
    bus,
    set,
    queues,
    interrupts: 0,
    settle: async () => {
      await farm.run(farm.now() + 1e6)
    },
  }
  await result.settle()
  bus.onInterrupt(() => result.interrupts++)
  bus.write(BUS_FEATURES, features)
  if (enable) for (const queue of queues) queue.enable()
  await result.settle()
  return result
}

export function bytesAt(bus: Bus, address: number, length: number): number[] {
  return [...bus.ram.subarray(address, address + length)]
}

export function fill(bus: Bus, address: number, length: number, seed = 1): number[] {
  const bytes = Array.from({ length }, (_, n) => (n * 7 + seed) & 0xff)
  bus.ram.set(bytes, address)
  return bytes
}
