import { createSocket, type Socket } from 'node:dgram'
import { isIPv6 } from 'node:net'
import { MAC_MAXIMUM_FRAME, MAC_MINIMUM_FRAME } from '../../abi/rings.ts'
import { formatLinkAddress, type SocketAddress } from './address.ts'
import type { LinkHost } from './link.ts'
import { OutsidePort } from './outside.ts'

/** Datagrams on their way out. */
const SLOTS = 256

export interface DgramOptions {
  local: SocketAddress
  /** Datagrams from elsewhere are dropped by the kernel. */
  remote: SocketAddress
}

/** A link to another process over UDP, one frame a datagram: QEMU's `-netdev dgram`. */
export class DgramLink extends OutsidePort {
  /** Resolves once frames can come and go; rejects with what node:dgram says. */
  readonly ready: Promise<void>
  readonly #socket: Socket
  /** Buffers not on their way; made as they are needed. */
  readonly #free: Buffer[] = []
  #slots = 0
  #open = false

  /** Throws RangeError in virtual time. */
  constructor(name: string, host: LinkHost, options: DgramOptions) {
    super(name, host)
    const { local, remote } = options
    this.#socket = createSocket(isIPv6(local.host) ? 'udp6' : 'udp4')
    this.ready = new Promise((resolve, reject) => {
      this.#socket.on('error', reject)
      this.#socket.bind(local.port, local.host, () => {
        // No callback: it would be given the error in place of the event.
        this.#socket.connect(remote.port, remote.host)
      })
      this.#socket.once('connect', () => {
        this.#open = true
        // From here on an error is an ICMP answer: nobody listens at the other side yet.
        this.#socket.off('error', reject)
        this.#socket.on('error', () => this.lost++)
        resolve()
      })
    })
    this.#socket.on('message', (message) => this.#take(message))
  }

  /** Where the link is bound. */
  get address(): string {
    const { address, port } = this.#socket.address()
    return formatLinkAddress({ host: address, port })
  }

  frame(memory: Uint8Array, offset: number, length: number): void {
    const slot = this.#open ? (this.#free.pop() ?? this.#newSlot()) : null
    if (slot === null) {
      this.lost++
      return
    }
    slot.set(memory.subarray(offset, offset + length))
    this.sent++
    this.#socket.send(slot, 0, length, (error) => {
      this.#free.push(slot)
      if (error) this.lost++
    })
  }

  close(): Promise<void> {
    this.#open = false
    return new Promise((resolve) => this.#socket.close(() => resolve()))
  }

  #newSlot(): Buffer | null {
    if (this.#slots === SLOTS) return null
    this.#slots++
    return Buffer.alloc(MAC_MAXIMUM_FRAME)
  }

  #take(message: Buffer): void {
    if (message.length < MAC_MINIMUM_FRAME || message.length > MAC_MAXIMUM_FRAME) {
      this.refused++
      return
    }
    this.received++
    this.outlet.frame(message, 0, message.length, this.host.now())
    this.host.wake()
  }
}
