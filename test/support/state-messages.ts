/** A card of a farm that is told to listen, and what its State messages say. */
import type { ExecutionContext } from 'ava'
import { IPOS_TCP } from '../../abi/ipos.ts'
import * as M from '../../abi/messages.ts'
import { QUEUES_PER_SET } from '../../abi/rings.ts'
import { type BareCard, command } from './bare-card.ts'
import { type FarmCard, type StateMessage, stateMessages } from './farm-card.ts'

const CONTROL = 0
/** What a web server is to the farm. */
export const HTTP = { port: 80, protocol: IPOS_TCP, flags: M.FIRST_SPEAKER_CLIENT }
/** Least distance of two messages. */
export const SOON_MS = 10

export function control(card: BareCard, fields: Parameters<typeof command>[0], set = 0): void {
  card.command(set * QUEUES_PER_SET + CONTROL, command(fields))
}

export interface Listen {
  cookie: number
  port: number
  address?: number
  speaker?: number
  options?: number
  set?: number
}

export function listen(card: BareCard, { cookie, port, address = 0, speaker = 0, options = 0, set = 0 }: Listen): void {
  control(card, { op: M.OP_LISTEN, socket: cookie, a: address, b: port, fields: [speaker, 0, 0, options] }, set)
}

export function unlisten(card: BareCard, cookie: number): void {
  control(card, { op: M.OP_UNLISTEN, socket: cookie })
}

/** What leaves within the distance that news keeps, and once more after it, as one message may be lost. */
export function news(t: ExecutionContext, card: FarmCard): StateMessage {
  const messages = stateMessages(card.advance(2 * SOON_MS))
  t.is(messages.length, 2)
  t.deepEqual(messages[1]!.message.services, messages[0]!.message.services)
  return messages[0]!.message
}

/** Ports of one protocol that a message tells. */
export function ports({ services }: StateMessage, protocol: number): number[] {
  return services.filter((service) => service.protocol === protocol).map(({ port }) => port)
}
