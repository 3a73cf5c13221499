import { COMMAND_MAXIMUM_BYTES, EVENT_BYTES, MAXIMUM_DATA_BYTES, RX_HEADER_BYTES } from '../../abi/messages.ts'
import { VIRTQ_DESC_BYTES, VIRTQ_USED_ELEM_BYTES } from '../../abi/virtio.ts'

/**
 * Where things lie in the main-board RAM of one process. Rings first, then buffers of fixed size, and the rest is the TX arena.
 *
 *   0 ┌──────────────────────────────┐
 *     │ descriptor tables and rings  │ control, TX, RX, event
 *     ├──────────────────────────────┤
 *     │ control slots                │ 64 bytes each
 *     ├──────────────────────────────┤
 *     │ event buffers                │ EVENT_STRIDE each
 *     ├──────────────────────────────┤
 *     │ RX buffers                   │ RX_STRIDE each: header and 64 KiB
 *     ├──────────────────────────────┤
 *     │ TX arena                     │ records of any length, first in, first out
 *     └──────────────────────────────┘
 */

/** A virtqueue's parts: addresses in RAM, and its size in entries. */
export interface QueuePlace {
  readonly desc: number
  readonly avail: number
  readonly used: number
  readonly size: number
}

export interface RamLayout {
  readonly control: QueuePlace
  readonly tx: QueuePlace
  readonly rx: QueuePlace
  readonly event: QueuePlace
  readonly controlSlots: number
  readonly eventBuffers: number
  readonly rxBuffers: number
  readonly txArena: number
  readonly txArenaBytes: number
}

/** RAM of a process when nobody says otherwise, bytes. */
export const DEFAULT_RAM_BYTES = 32 << 20
/** The least RAM that the driver works with, bytes. */
export const MINIMUM_RAM_BYTES = 2 << 20

export const CONTROL_SLOT_BYTES = COMMAND_MAXIMUM_BYTES
export const EVENT_STRIDE = (EVENT_BYTES + 15) & ~15
export const RX_BUFFER_BYTES = RX_HEADER_BYTES + MAXIMUM_DATA_BYTES
/** One cache line more than a power of two: with 64 KiB exactly, all headers would fall into the same few sets of the CPU's cache. */
export const RX_STRIDE = (RX_BUFFER_BYTES + 63) & ~63

const MAXIMUM_ARENA_BYTES = 1 << 20

/** Places everything in `ramBytes` of RAM. Throws RangeError below MINIMUM_RAM_BYTES. */
export function layoutRam(ramBytes: number): RamLayout {
  if (!(ramBytes >= MINIMUM_RAM_BYTES)) {
    throw new RangeError(
      `A process needs at least ${MINIMUM_RAM_BYTES} bytes of main-board RAM; it was given ${ramBytes}.`,
    )
  }
  const large = ramBytes >= 8 << 20
  const rxBuffers = Math.min(64, powerOfTwoBelow((ramBytes * 3) / 8 / RX_STRIDE))
  let next = 0
  const place = (bytes: number): number => {
    const at = next
    next = (at + bytes + 63) & ~63
    return at
  }
  const queue = (size: number): QueuePlace => ({
    size,
    desc: place(size * VIRTQ_DESC_BYTES),
    avail: place(6 + size * 2),
    used: place(6 + size * VIRTQ_USED_ELEM_BYTES),
  })
  const control = queue(large ? 256 : 64)
  const tx = queue(large ? 1024 : 256)
  const rx = queue(rxBuffers)
  const event = queue(large ? 1024 : 256)
  const controlSlots = place(control.size * CONTROL_SLOT_BYTES)
  const eventBuffers = place(event.size * EVENT_STRIDE)
  const rxBase = place(rx.size * RX_STRIDE)
  const txArenaBytes = Math.min(MAXIMUM_ARENA_BYTES, (ramBytes - next) & ~63)
  const txArena = place(txArenaBytes)
  return { control, tx, rx, event, controlSlots, eventBuffers, rxBuffers: rxBase, txArena, txArenaBytes }
}

function powerOfTwoBelow(limit: number): number {
  return 2 ** Math.floor(Math.log2(limit))
}
