import type { Copy, Inspector, Interposer, Passage } from '../../emulator/link/interposer.ts'
import type { RandomStream } from '../../emulator/random.ts'

const ETHERNET_BITS = 14 * 8
const ETHERTYPE_ARP = 0x0806

/** What happens to frames of one network; probabilities. */
export interface Conditions {
  readonly loss: number
  readonly duplication: number
  /** Another copy comes much later. */
  readonly echo: number
  readonly echoMs: number
  readonly delay: number
  readonly delayMs: number
  readonly swap: number
  /** One bit is turned over. Never in a header that no checksum but the wire's own covers. */
  readonly corruption: number
}

export const CALM: Conditions = {
  ...{ loss: 0, duplication: 0, echo: 0, echoMs: 0 },
  ...{ delay: 0, delayMs: 0, swap: 0, corruption: 0 },
}

/** How long a swapped frame waits for one to go before it. */
const SWAP_NS = 5e6
const PASSES: readonly Copy[] = [{}]

/** What the networks of a farm do to frames. */
export class Weather implements Inspector {
  lan = CALM
  hub = CALM
  /** Frames that it did something to. */
  struck = 0
  readonly #random: RandomStream
  /** Cables that carry nothing, without anybody being told. */
  readonly #silent = new Map<string, number>()

  constructor(random: RandomStream) {
    this.#random = random
  }

  /** From now on, or no more, a cable carries nothing. Several may ask for it at once. */
  silence(cable: string, on: boolean): void {
    this.#silent.set(cable, (this.#silent.get(cable) ?? 0) + (on ? 1 : -1))
  }

  inspect({ name }: Interposer, passage: Passage, frame: Uint8Array): readonly Copy[] | null {
    if ((this.#silent.get(name) ?? 0) > 0) return []
    const conditions = name.endsWith('.hub') ? this.hub : this.lan
    return passage === 'out' || conditions === CALM ? null : this.#befalls(conditions, frame)
  }

  #befalls(conditions: Conditions, frame: Uint8Array): readonly Copy[] | null {
    const random = this.#random
    const { loss, duplication, echo, echoMs, delay, delayMs, swap, corruption } = conditions
    let copies = PASSES
    if (random.chance(loss)) copies = []
    else if (random.chance(swap)) copies = [{ afterNext: true, delayNs: SWAP_NS }]
    else if (random.chance(delay)) copies = [{ delayNs: random.below(delayMs * 1e6) }]
    else if (random.chance(corruption) && ((frame[12]! << 8) | frame[13]!) !== ETHERTYPE_ARP)
      copies = [{ flip: ETHERNET_BITS + random.below(frame.length * 8 - ETHERNET_BITS) }]
    if (random.chance(duplication)) copies = [...copies, {}]
    if (random.chance(echo)) copies = [...copies, { delayNs: random.below(echoMs * 1e6) }]
    if (copies === PASSES) return null
    this.struck++
    return copies
  }
}
