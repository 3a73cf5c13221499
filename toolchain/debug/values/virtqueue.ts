/** A split virtqueue (virtio 1.2 §2.7) in main-board RAM as a value. */
import {
  VIRTQ_AVAIL_FLAGS,
  VIRTQ_AVAIL_IDX,
  VIRTQ_AVAIL_RING,
  VIRTQ_DESC_ADDR,
  VIRTQ_DESC_BYTES,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_WRITE,
  VIRTQ_DESC_FLAGS,
  VIRTQ_DESC_LEN,
  VIRTQ_DESC_NEXT,
  VIRTQ_MAXIMUM_SIZE,
  VIRTQ_USED_ELEM_BYTES,
  VIRTQ_USED_FLAGS,
  VIRTQ_USED_IDX,
  VIRTQ_USED_RING,
} from '../../../abi/virtio.ts'
import { textValue } from './tree.ts'
import { readerOf, U16, U32 } from './type-model.ts'
import type { MemoryAccess, Value } from './types.ts'

/** As the driver has set it up: BUS_QUEUE_DESC, BUS_QUEUE_AVAIL, BUS_QUEUE_USED, BUS_QUEUE_SIZE. */
export interface VirtqueuePlace {
  readonly descriptors: number
  readonly available: number
  readonly used: number
  /** Entries. */
  readonly size: number
}

const FLAGS: readonly [bit: number, name: string][] = [
  [VIRTQ_DESC_F_NEXT, 'NEXT'],
  [VIRTQ_DESC_F_WRITE, 'WRITE'],
  [VIRTQ_DESC_F_INDIRECT, 'INDIRECT'],
]

/**
 * Descriptor table, available and used ring. Never throws: what lies outside of the RAM says so.
 *
 * @param ram main-board RAM of one queue set
 */
export function virtqueueValue(name: string, ram: MemoryAccess, place: VirtqueuePlace): Value {
  const size = Math.max(0, Math.min(place.size, VIRTQ_MAXIMUM_SIZE))
  const { descriptors, available, used } = place
  const half = (address: number) => read(ram, U16, address)
  const word = (address: number) => read(ram, U32, address)
  const availableIndex = half(available + VIRTQ_AVAIL_IDX)
  const usedIndex = half(used + VIRTQ_USED_IDX)
  const open =
    availableIndex === undefined || usedIndex === undefined ? undefined : (availableIndex - usedIndex) & 0xffff
  const number = (label: string, value: number | undefined) => textValue(label, 'u16', shown(value))
  const display = `${size} entries, available ${shown(availableIndex)}, used ${shown(usedIndex)}, open ${shown(open)}`
  return branch(name, 'virtqueue', display, () => [
    list('descriptors', size, (index) => {
      const at = descriptors + index * VIRTQ_DESC_BYTES
      const flags = half(at + VIRTQ_DESC_FLAGS)
      const next = half(at + VIRTQ_DESC_NEXT)
      const target = word(at + VIRTQ_DESC_ADDR)
      const buffer = `${shown(word(at + VIRTQ_DESC_LEN))} bytes at ${target === undefined ? OUTSIDE : `0x${target.toString(16)}`}`
      const chain = flags !== undefined && flags & VIRTQ_DESC_F_NEXT ? ` → ${shown(next)}` : ''
      return textValue(`[${index}]`, 'descriptor', `${buffer} ${flagText(flags)}${chain}`.trimEnd())
    }),
    branch('available', 'ring', `idx ${shown(availableIndex)}`, () => [
      number('flags', half(available + VIRTQ_AVAIL_FLAGS)),
      number('idx', availableIndex),
      list('ring', size, (index) => number(`[${index}]`, half(available + VIRTQ_AVAIL_RING + index * 2))),
      number('used_event', half(available + VIRTQ_AVAIL_RING + size * 2)),
    ]),
    branch('used', 'ring', `idx ${shown(usedIndex)}`, () => [
      number('flags', half(used + VIRTQ_USED_FLAGS)),
      number('idx', usedIndex),
      list('ring', size, (index) => {
        const at = used + VIRTQ_USED_RING + index * VIRTQ_USED_ELEM_BYTES
        return textValue(`[${index}]`, 'used element', `descriptor ${shown(word(at))}, ${shown(word(at + 4))} bytes`)
      }),
      number('avail_event', half(used + VIRTQ_USED_RING + size * VIRTQ_USED_ELEM_BYTES)),
    ]),
  ])
}

const OUTSIDE = '<outside of main-board RAM>'

function read(ram: MemoryAccess, type: typeof U16, address: number): number | undefined {
  const value = readerOf(type)(ram, address)
  return value === undefined ? undefined : Number(value)
}

function shown(value: number | undefined): string {
  return value === undefined ? OUTSIDE : String(value)
}

function flagText(flags: number | undefined): string {
  if (flags === undefined) return ''
  return FLAGS.filter(([bit]) => flags & bit)
    .map(([, name]) => name)
    .join(' | ')
}

function branch(name: string, type: string, display: string, children: () => readonly Value[]): Value {
  return { ...textValue(name, type, display), expandable: true, children }
}

function list(name: string, count: number, item: (index: number) => Value): Value {
  return {
    ...textValue(name, `[${count}]`, `${count} entries`),
    indexed: count,
    expandable: count > 0,
    children: (start = 0, wanted = count) => {
      const first = Math.max(0, Math.min(start, count))
      return Array.from({ length: Math.max(0, Math.min(wanted, count - first)) }, (_, index) => item(first + index))
    },
  }
}
