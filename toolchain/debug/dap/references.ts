/** Numbers and addresses by which a client names what it has been shown. */

import type { DebugModule, SessionApi, Value } from '../session/api.ts'
import { RequestError } from './arguments.ts'

/** A list of values that a client can open: a scope, or what is in a value. */
export interface Container {
  readonly thread: number
  /** Undefined between two slices. */
  readonly frame: number | undefined
  /** Locals cannot be written. */
  readonly readOnly: boolean
  /** How many children go by number. */
  readonly indexed: number
  children(start: number, count: number): readonly Value[]
}

/** An entry of a call stack. */
export interface FrameReference {
  readonly thread: number
  /** Undefined between two slices. */
  readonly frame: number | undefined
}

/** Valid while the farm is halted where it is: a number that was given out is never used again for something else. */
export class References {
  readonly #containers = new Map<number, Container>()
  readonly #frames = new Map<number, FrameReference>()
  readonly #frameIds = new Map<string, number>()
  #last = 0

  reset(): void {
    this.#containers.clear()
    this.#frames.clear()
    this.#frameIds.clear()
  }

  container(container: Container): number {
    this.#containers.set(++this.#last, container)
    return this.#last
  }

  value(value: Value, from: Omit<Container, 'indexed' | 'children'>): number {
    return this.container({
      ...from,
      indexed: value.indexed,
      children: (start, count) => value.children(start, count),
    })
  }

  /** @throws RequestError */
  findContainer(reference: number): Container {
    const found = this.#containers.get(reference)
    if (found === undefined)
      throw new RequestError(`there are no variables ${reference}, or they were of an earlier stop`)
    return found
  }

  frame(thread: number, frame: number | undefined): number {
    const key = `${thread} ${frame}`
    const known = this.#frameIds.get(key)
    if (known !== undefined) return known
    this.#frames.set(++this.#last, { thread, frame })
    this.#frameIds.set(key, this.#last)
    return this.#last
  }

  /** @throws RequestError */
  findFrame(id: number): FrameReference {
    const found = this.#frames.get(id)
    if (found === undefined) throw new RequestError(`there is no stack frame ${id}, or it was of an earlier stop`)
    return found
  }
}

/*
 * Addresses as clients see them: numbers that they may add to and sort by.
 *
 *    52      32 31               0
 *   ┌──────────┬──────────────────┐
 *   │ INIC     │ address in its   │   data
 *   │          │ memory           │
 *   ├──────────┼──────────────────┤
 *   │ module   │ offset in its    │   code
 *   │          │ firmware.wasm    │
 *   └──────────┴──────────────────┘
 */
const HIGH = 2 ** 32

export function dataReference(thread: number, address: number): string {
  return `0x${(thread * HIGH + address).toString(16)}`
}

export function codeReference(module: number, pc: number): string {
  return `0x${(module * HIGH + pc).toString(16)}`
}

/** Splits an address that a client gives, in hexadecimal or decimal. @throws RequestError */
export function splitReference(text: string): { high: number; low: number } {
  const number = /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : Number.NaN
  if (!Number.isSafeInteger(number)) throw new RequestError(`'${text}' is no address`)
  return { high: Math.floor(number / HIGH), low: number % HIGH }
}

/** The firmware that an INIC runs; undefined if it is off. */
export function moduleOf(session: SessionApi, thread: number): DebugModule | undefined {
  return session.modules.find(({ threads }) => threads.includes(thread))
}
