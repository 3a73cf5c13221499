import { MAC_MAXIMUM_FRAME, MAC_MINIMUM_FRAME } from '../../abi/rings.ts'
import { openTap, type Tap, type TapOptions } from '../cpu/tap.ts'
import type { LinkHost } from './link.ts'
import { OutsidePort } from './outside.ts'

/** Frames taken from the kernel before the farm gets its turn. */
const FRAMES_AT_ONCE = 64

export interface TapLinkOptions extends Omit<TapOptions, 'onReadable'> {
  /** Told when the interface fails, for instance because it was removed; the link is closed then. */
  onError?: (error: Error) => void
}

/** A link to the kernel's own network stack through a Linux TAP interface. */
export class TapLink extends OutsidePort {
  readonly #tap: Tap
  readonly #buffer = new Uint8Array(65536)
  readonly #onError: ((error: Error) => void) | undefined
  #closed = false
  readonly #readMore = (): void => this.#read()

  /** `interfaceName`: opened, or created for as long as the link lives. Throws RangeError in virtual time, and what `openTap` throws. */
  constructor(name: string, interfaceName: string, host: LinkHost, options: TapLinkOptions = {}) {
    super(name, host)
    const { onError, ...tapOptions } = options
    this.#onError = onError
    this.#tap = openTap(interfaceName, { ...tapOptions, onReadable: this.#readMore })
  }

  /** Name of the interface in the kernel. */
  get interfaceName(): string {
    return this.#tap.name
  }

  frame(memory: Uint8Array, offset: number, length: number): void {
    if (this.#closed) {
      this.lost++
      return
    }
    try {
      if (this.#tap.write(memory, offset, length)) this.sent++
      else this.lost++
    } catch (error) {
      this.#fail(error as Error)
    }
  }

  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#tap.close()
  }

  #read(): void {
    const buffer = this.#buffer
    const nowNs = this.host.now()
    try {
      for (let n = 0; n < FRAMES_AT_ONCE; n++) {
        if (this.#closed) return
        const length = this.#tap.read(buffer, 0)
        if (length === 0) return
        if (length < MAC_MINIMUM_FRAME || length > MAC_MAXIMUM_FRAME) this.refused++
        else {
          this.received++
          this.outlet.frame(buffer, 0, length, nowNs)
        }
      }
    } catch (error) {
      this.#fail(error as Error)
      return
    }
    setImmediate(this.#readMore)
  }

  #fail(error: Error): void {
    if (this.#closed) return
    this.close()
    this.#onError?.(error)
  }
}
