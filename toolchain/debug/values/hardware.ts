/** What the emulated hardware lays into INIC memory: descriptor rings, queue status, trace. abi/rings.ts, as classes. */
import { REGISTER_BASE } from '../../../abi/memory.ts'
import {
  DELIVER_BASE,
  DELIVER_ENTRIES,
  FETCH_BASE,
  FETCH_ENTRIES,
  MAC_BLOCK,
  MAC_PORTS,
  MAC_RX_BASE,
  MAC_RX_ENTRIES,
  MAC_STRIDE,
  MAC_TX_BASE,
  MAC_TX_ENTRIES,
  QUEUE_STATUS_BASE,
  TRACE_BASE,
  TRACE_ENTRIES,
} from '../../../abi/registers.ts'
import {
  DESCRIPTOR_ADDRESS,
  DESCRIPTOR_BYTES,
  DESCRIPTOR_INFO,
  DESCRIPTOR_LENGTH,
  DESCRIPTOR_OWNER,
  QUEUE_COUNT,
  QUEUE_STATUS_AVAILABLE,
  QUEUE_STATUS_BUFFER_BYTES,
  QUEUE_STATUS_BYTES,
  QUEUE_STATUS_EPOCH,
  QUEUE_STATUS_STATE,
  TRACE_ENTRY_BYTES,
} from '../../../abi/rings.ts'
import type { ClassLayout, FieldLayout } from '../../firmware/layouts.ts'

function layout(
  name: string,
  bytes: number,
  fields: readonly [name: string, type: string, offset: number][],
): ClassLayout {
  return {
    name,
    source: 'abi/rings',
    bytes,
    fields: fields.map(
      ([field, type, offset]): FieldLayout => ({ name: field, type, offset, bytes: type === 'u16' ? 2 : 4 }),
    ),
  }
}

const DESCRIPTOR_FIELDS: readonly [string, string, number][] = [
  ['address', 'u32', DESCRIPTOR_ADDRESS],
  ['length', 'u32', DESCRIPTOR_LENGTH],
  ['info', 'u32', DESCRIPTOR_INFO],
  ['owner', 'u32', DESCRIPTOR_OWNER],
]

/** Of a MAC ring: its buffer holds an Ethernet frame. */
export const FRAME_DESCRIPTOR = layout('FrameDescriptor', DESCRIPTOR_BYTES, DESCRIPTOR_FIELDS)
/** Of the DMA engine's rings. */
const DMA_DESCRIPTOR = layout('Descriptor', DESCRIPTOR_BYTES, DESCRIPTOR_FIELDS)
const QUEUE_STATUS = layout('QueueStatus', QUEUE_STATUS_BYTES, [
  ['available', 'u32', QUEUE_STATUS_AVAILABLE],
  ['state', 'u32', QUEUE_STATUS_STATE],
  ['epoch', 'u32', QUEUE_STATUS_EPOCH],
  ['bufferBytes', 'u32', QUEUE_STATUS_BUFFER_BYTES],
])
const TRACE_ENTRY = layout('TraceEntry', TRACE_ENTRY_BYTES, [
  ['timeNs', 'u32', 0],
  ['event', 'u16', 4],
  ['a', 'u16', 6],
  ['b', 'u32', 8],
  ['c', 'u32', 12],
])

/** Classes that every firmware has. */
export const HARDWARE_LAYOUTS: readonly ClassLayout[] = [FRAME_DESCRIPTOR, DMA_DESCRIPTOR, QUEUE_STATUS, TRACE_ENTRY]

/** A table whose place registers tell. */
export interface HardwareTable {
  readonly name: string
  readonly aliases: readonly string[]
  readonly layout: ClassLayout
  /** Address of the register that holds its base. */
  readonly base: number
  /** Address of the register that holds its entries; 0 entries = off. Or how many there always are. */
  readonly entries: { readonly register: number } | { readonly count: number }
}

function ring(name: string, of: ClassLayout, base: number, entries: number): HardwareTable {
  return { name, aliases: [], layout: of, base: REGISTER_BASE + base, entries: { register: REGISTER_BASE + entries } }
}

export const HARDWARE_TABLES: readonly HardwareTable[] = [
  ...Array.from({ length: MAC_PORTS }, (_, port) => {
    const block = MAC_BLOCK + port * MAC_STRIDE
    return [
      ring(`MAC${port}_RX`, FRAME_DESCRIPTOR, block + MAC_RX_BASE, block + MAC_RX_ENTRIES),
      ring(`MAC${port}_TX`, FRAME_DESCRIPTOR, block + MAC_TX_BASE, block + MAC_TX_ENTRIES),
    ]
  }).flat(),
  ring('FETCH', DMA_DESCRIPTOR, FETCH_BASE, FETCH_ENTRIES),
  ring('DELIVER', DMA_DESCRIPTOR, DELIVER_BASE, DELIVER_ENTRIES),
  ring('TRACE', TRACE_ENTRY, TRACE_BASE, TRACE_ENTRIES),
  {
    name: 'QUEUE_STATUS',
    aliases: [],
    layout: QUEUE_STATUS,
    base: REGISTER_BASE + QUEUE_STATUS_BASE,
    entries: { count: QUEUE_COUNT },
  },
]
