import {
  HEARD_ADDRESS,
  HEARD_BYTES,
  HEARD_INCARNATION,
  HEARD_SEQUENCE,
  IPOS_DESTINATION_ADDRESS,
  IPOS_STATE,
  IPOS_TYPE,
  STATE_HEARD,
  STATE_HEARD_COUNT,
  STATE_INCARNATION,
  STATE_SEQUENCE,
} from '../../abi/ipos.ts'
import type { Passage } from '../../emulator/link/interposer.ts'
import type { VirtualNode } from '../testing/virtual-node.ts'
import { addressNumber, ETHERNET_BYTES, macText } from './frames.ts'

const BROADCAST = 0xffffffff
/** Of bytes with their right checksum among them (RFC 1071). */
const SUM_OF_WHOLE = 0xffff
/** Messages that may still be answered for. */
const REMEMBERED = 1024
/** Cards count in whole milliseconds. */
const GRAIN_MS = 2

/** What a server holds, it holds on a lease from each other one. */
interface Holder {
  readonly server: VirtualNode
  /** Of its present life; none before its first message. */
  incarnation: number | undefined
  /** When its state messages left, by their sequence numbers. */
  readonly sentMs: Map<number, number>
  /** Until when it may go on with what it holds for another server. */
  readonly untilMs: Map<VirtualNode, number>
}

/**
 * Works out from the state messages on the hub when leases end (docs/protocol.md, Leases and loss), whatever the cards believe: a
 * connection may be lost for a fault of the hub only if that cost a lease.
 */
export class Leases {
  readonly #holders: readonly Holder[]
  readonly #leaseMs: number
  readonly #nowMs: () => number
  readonly #over: (a: VirtualNode, b: VirtualNode) => void

  /** @param over is told of two servers, one of which has lost a lease from the other */
  constructor(
    servers: readonly VirtualNode[],
    leaseMs: number,
    nowMs: () => number,
    over: (a: VirtualNode, b: VirtualNode) => void,
  ) {
    this.#holders = servers.map((server) => ({
      ...{ server, incarnation: undefined, sentMs: new Map(), untilMs: new Map() },
    }))
    this.#leaseMs = leaseMs
    this.#nowMs = nowMs
    this.#over = over
  }

  /** A frame of the hub that a server sends (into the switch), or is given (out of it). */
  pass(server: VirtualNode, passage: Passage, frame: Uint8Array): void {
    const message = stateMessage(frame)
    if (message === undefined) return
    if (passage === 'in') this.#sent(this.#of(server), message)
    else this.#received(this.#of(server), macText(frame), message)
  }

  #sent(holder: Holder, message: DataView): void {
    const incarnation = message.getUint32(STATE_INCARNATION)
    if (holder.incarnation !== incarnation) holder.sentMs.clear()
    holder.incarnation = incarnation
    const sequence = message.getUint32(STATE_SEQUENCE)
    holder.sentMs.set(sequence, this.#nowMs())
    holder.sentMs.delete(sequence - REMEMBERED)
  }

  #received(holder: Holder, mac: string, message: DataView): void {
    const from = this.#holders.find(({ server }) => server.macs[1] === mac)?.server
    if (from === undefined) return
    this.look()
    const address = addressNumber(holder.server.address)
    const end = STATE_HEARD + message.getUint16(STATE_HEARD_COUNT) * HEARD_BYTES
    for (let entry = STATE_HEARD; entry < end; entry += HEARD_BYTES) {
      if (message.getUint32(entry + HEARD_ADDRESS) !== address) continue
      if (message.getUint32(entry + HEARD_INCARNATION) !== holder.incarnation) continue
      const untilMs = (holder.sentMs.get(message.getUint32(entry + HEARD_SEQUENCE)) ?? 0) + this.#leaseMs - GRAIN_MS
      if (untilMs > Math.max(this.#nowMs(), holder.untilMs.get(from) ?? 0)) holder.untilMs.set(from, untilMs)
    }
  }

  /** The server is switched off: nobody has a lease from it, nor it from anybody. */
  ended(server: VirtualNode): void {
    for (const holder of this.#holders) {
      if (holder.server === server) holder.untilMs.clear()
      else holder.untilMs.delete(server)
    }
  }

  /** Tells of the leases that are over since the last look. */
  look(): void {
    const nowMs = this.#nowMs()
    for (const { server, untilMs } of this.#holders)
      for (const [from, ms] of untilMs) {
        if (ms > nowMs) continue
        untilMs.delete(from)
        this.#over(server, from)
      }
  }

  #of(server: VirtualNode): Holder {
    return this.#holders.find((holder) => holder.server === server)!
  }
}

/** The ipOS header and what follows, if it is a state message and whole. */
function stateMessage(frame: Uint8Array): DataView | undefined {
  if (frame.length < ETHERNET_BYTES + STATE_HEARD || frame[ETHERNET_BYTES + IPOS_TYPE] !== IPOS_STATE) return undefined
  const message = new DataView(frame.buffer, frame.byteOffset + ETHERNET_BYTES, frame.length - ETHERNET_BYTES)
  if (message.getUint32(IPOS_DESTINATION_ADDRESS) !== BROADCAST) return undefined
  const end = STATE_HEARD + message.getUint16(STATE_HEARD_COUNT) * HEARD_BYTES
  return end <= message.byteLength && internetSum(message) === SUM_OF_WHOLE ? message : undefined
}

/** RFC 1071. */
function internetSum(bytes: DataView): number {
  let sum = 0
  for (let at = 0; at + 1 < bytes.byteLength; at += 2) sum += bytes.getUint16(at)
  if (bytes.byteLength & 1) sum += bytes.getUint8(bytes.byteLength - 1) << 8
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return sum
}
