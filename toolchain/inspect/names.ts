/** Numbers of the abi as people read them. */
import { QUEUE_STATE_BROKEN, QUEUE_STATE_DISABLED, QUEUE_STATE_ENABLED, QUEUES_PER_SET } from '../../abi/rings.ts'
import {
  TCP_CLOSE_WAIT,
  TCP_CLOSED,
  TCP_CLOSING,
  TCP_ESTABLISHED,
  TCP_FIN_WAIT_1,
  TCP_FIN_WAIT_2,
  TCP_LAST_ACK,
  TCP_SYN_RECEIVED,
  TCP_SYN_SENT,
  TCP_TIME_WAIT,
} from '../../abi/tcp.ts'
import { CARD_OFF, CARD_RUNNING, CARD_STOPPED } from '../../abi/virtio.ts'

/** States of RFC 9293 by number, as it writes them. */
export const TCP_STATE_NAMES: ReadonlyMap<number, string> = new Map([
  [TCP_CLOSED, 'CLOSED'],
  [TCP_SYN_SENT, 'SYN-SENT'],
  [TCP_SYN_RECEIVED, 'SYN-RECEIVED'],
  [TCP_ESTABLISHED, 'ESTABLISHED'],
  [TCP_FIN_WAIT_1, 'FIN-WAIT-1'],
  [TCP_FIN_WAIT_2, 'FIN-WAIT-2'],
  [TCP_CLOSE_WAIT, 'CLOSE-WAIT'],
  [TCP_CLOSING, 'CLOSING'],
  [TCP_LAST_ACK, 'LAST-ACK'],
  [TCP_TIME_WAIT, 'TIME-WAIT'],
])

const QUEUE_STATES: Readonly<Record<number, string>> = {
  [QUEUE_STATE_DISABLED]: 'disabled',
  [QUEUE_STATE_ENABLED]: 'enabled',
  [QUEUE_STATE_BROKEN]: 'broken',
}

const CARD_STATES: Readonly<Record<number, string>> = {
  [CARD_OFF]: 'off',
  [CARD_RUNNING]: 'running',
  [CARD_STOPPED]: 'stopped',
}

const QUEUE_NAMES = ['control', 'tx', 'rx', 'event']

/** As RFC 9293 writes it. */
export function tcpStateName(state: number): string {
  return TCP_STATE_NAMES.get(state) ?? `state ${state}`
}

export function queueStateName(state: number): string {
  return QUEUE_STATES[state] ?? `state ${state}`
}

export function cardStateName(state: number): string {
  return CARD_STATES[state] ?? `state ${state}`
}

/** `rx`, of a queue index over all sets. */
export function queueName(queue: number): string {
  return QUEUE_NAMES[queue % QUEUES_PER_SET]
}
