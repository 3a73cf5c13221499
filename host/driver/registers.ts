import type { Bus } from '../../abi/bus.ts'
import { QUEUE_STATE_BROKEN, QUEUE_STATE_ENABLED } from '../../abi/rings.ts'
import {
  BUS_FEATURES,
  BUS_QUEUE_AVAIL,
  BUS_QUEUE_BUFFER_BYTES,
  BUS_QUEUE_DESC,
  BUS_QUEUE_ENABLE,
  BUS_QUEUE_ERROR,
  BUS_QUEUE_SIZE,
  BUS_QUEUE_STATE,
  BUS_QUEUE_STRIDE,
  BUS_QUEUE_USED,
  QUEUE_ERROR_ADDRESS,
  QUEUE_ERROR_CHAIN,
  QUEUE_ERROR_INDEX,
  QUEUE_ERROR_INDIRECT,
  QUEUE_ERROR_LAYOUT,
  QUEUE_ERROR_SHORT,
  VIRTIO_F_EVENT_IDX,
} from '../../abi/virtio.ts'
import type { QueuePlace } from './layout.ts'

const QUEUE_NAMES = ['control', 'TX', 'RX', 'event']

const REASONS: Record<number, string> = {
  [QUEUE_ERROR_LAYOUT]: 'a ring lies outside RAM or is not aligned',
  [QUEUE_ERROR_INDEX]: 'its available index ran ahead',
  [QUEUE_ERROR_CHAIN]: 'a chain is malformed',
  [QUEUE_ERROR_ADDRESS]: 'a buffer lies outside RAM',
  [QUEUE_ERROR_INDIRECT]: 'an indirect table is malformed',
  [QUEUE_ERROR_SHORT]: 'a buffer is too short',
}

/** Sets queue `queue` up at `place` and enables it (virtio 1.2 §4.2.3.2). `bufferBytes`: what the card may write in a chain, 0 if it only reads. */
export function enableQueue(bus: Bus, queue: number, place: QueuePlace, bufferBytes: number): void {
  const block = queue * BUS_QUEUE_STRIDE
  // Settled before the first queue is enabled, ignored after (§3.1.1). No indirect descriptors: all our chains are one descriptor long.
  bus.write(BUS_FEATURES, VIRTIO_F_EVENT_IDX)
  bus.write(block + BUS_QUEUE_DESC, place.desc)
  bus.write(block + BUS_QUEUE_AVAIL, place.avail)
  bus.write(block + BUS_QUEUE_USED, place.used)
  bus.write(block + BUS_QUEUE_SIZE, place.size)
  bus.write(block + BUS_QUEUE_BUFFER_BYTES, bufferBytes)
  bus.write(block + BUS_QUEUE_ENABLE, 1)
}

/** Disables queue `queue`: the card forgets it and touches its rings and buffers no more. */
export function disableQueue(bus: Bus, queue: number): void {
  bus.write(queue * BUS_QUEUE_STRIDE + BUS_QUEUE_ENABLE, 0)
}

/** Null if queue `queue` is in order, '' if the card has disabled it, otherwise what is wrong with it, for people. */
export function explainQueue(bus: Bus, queue: number): string | null {
  const block = queue * BUS_QUEUE_STRIDE
  const state = bus.read(block + BUS_QUEUE_STATE)
  if (state === QUEUE_STATE_ENABLED) return null
  if (state !== QUEUE_STATE_BROKEN) return ''
  const error = bus.read(block + BUS_QUEUE_ERROR)
  return `The card refused the ${QUEUE_NAMES[queue]} queue: ${REASONS[error] ?? `error ${error}`}. This is a fault of the driver or of whoever else writes to its RAM.`
}
