/** The queues between main board and card as the card sees them, and the MAC ports, from the register page. */
import { REGISTER_BASE } from '../../abi/memory.ts'
import {
  MAC_BLOCK,
  MAC_LINK,
  MAC_PORTS,
  MAC_RX_DROPPED,
  MAC_RX_FRAMES,
  MAC_STRIDE,
  MAC_TX_FRAMES,
  MAC_TX_REFUSED,
  QUEUE_STATUS_BASE,
} from '../../abi/registers.ts'
import {
  QUEUE_COUNT,
  QUEUE_STATE_DISABLED,
  QUEUE_STATUS_AVAILABLE,
  QUEUE_STATUS_BUFFER_BYTES,
  QUEUE_STATUS_BYTES,
  QUEUE_STATUS_EPOCH,
  QUEUE_STATUS_STATE,
  QUEUES_PER_SET,
} from '../../abi/rings.ts'
import { queueName, queueStateName } from './names.ts'
import { type Table, TableBuilder } from './table.ts'

/** Queues that a process has enabled, or that broke. */
export function readQueues(memory: DataView): Table {
  const table = new TableBuilder('Queues', ['set', 'queue', 'state', 'epoch', 'chains made available', 'bytes a chain'])
  const base = memory.getUint32(REGISTER_BASE + QUEUE_STATUS_BASE, true)
  if (base === 0 || base + QUEUE_COUNT * QUEUE_STATUS_BYTES > memory.byteLength) return table.build()
  for (let queue = 0; queue < QUEUE_COUNT; queue++) {
    const word = (offset: number) => memory.getUint32(base + queue * QUEUE_STATUS_BYTES + offset, true)
    const state = word(QUEUE_STATUS_STATE)
    if (state === QUEUE_STATE_DISABLED) continue
    table.add(() => [
      Math.floor(queue / QUEUES_PER_SET),
      queueName(queue),
      queueStateName(state),
      word(QUEUE_STATUS_EPOCH),
      word(QUEUE_STATUS_AVAILABLE),
      word(QUEUE_STATUS_BUFFER_BYTES),
    ])
  }
  return table.build()
}

/** How often each process of the main board was interrupted. @param interrupts by queue set */
export function readInterrupts(interrupts: Readonly<Record<number, number>>): Table {
  const table = new TableBuilder('Interrupts', ['set', 'raised'])
  for (const [set, raised] of Object.entries(interrupts)) table.add(() => [Number(set), raised])
  return table.build()
}

/** MAC ports with their counters. */
export function readPorts(memory: DataView): Table {
  const table = new TableBuilder('MAC ports', ['port', 'link', 'received', 'dropped', 'sent', 'refused'])
  for (let port = 0; port < MAC_PORTS; port++) {
    const register = (offset: number) => memory.getUint32(REGISTER_BASE + MAC_BLOCK + port * MAC_STRIDE + offset, true)
    const link = register(MAC_LINK) === 1 ? 'up' : 'down'
    table.add(() => [
      port,
      link,
      register(MAC_RX_FRAMES),
      register(MAC_RX_DROPPED),
      register(MAC_TX_FRAMES),
      register(MAC_TX_REFUSED),
    ])
  }
  return table.build()
}
