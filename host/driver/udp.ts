import { OP_CREDIT, OP_UDP_CLOSE, OP_UDP_SEND, OPTION_TTL, OPTION_UDP_BROADCAST } from '../../abi/messages.ts'
import type { TxQueue, TxWaiter } from './tx.ts'

/** What an endpoint of UDP tells its socket. */
export interface DatagramOwner {
  /** Answer to `bind`: STATUS_*, and the address and port. */
  onBound(status: number, address: number, port: number): void
  /** A datagram, the receiver's own copy. */
  onDatagram(data: Buffer, remoteAddress: number, remotePort: number): void
  /** An ICMP error came back for a datagram that was sent there. */
  onDatagramError(status: number, remoteAddress: number, remotePort: number): void
  /** `send` takes datagrams again after it refused one. */
  onRoom(): void
  /** The card stopped: the endpoint is gone, with STATUS_*. */
  onLost(status: number): void
}

/** What an endpoint of UDP needs of the driver. */
export interface DatagramHost {
  readonly tx: TxQueue
  unbind(endpoint: UdpEndpoint): void
  setOption(handle: number, option: number, value: number): void
}

/** Largest payload of a datagram over IPv4, bytes: 65,535 less the IP and UDP headers. */
export const MAXIMUM_DATAGRAM_BYTES = 65507

/** One endpoint of UDP on the card. */
export class UdpEndpoint implements TxWaiter {
  readonly owner: DatagramOwner
  readonly cookie: number
  /** 0 until it is bound. */
  handle = 0
  receiveCredit = 0

  readonly #host: DatagramHost
  readonly #tx: TxQueue
  #owed = 0
  #owedLimit = 0
  #waiting = false
  #wantsCredit = false
  #wantsRoom = false
  #wantsClose = false
  #dead = false

  /** Driver only. */
  constructor(host: DatagramHost, owner: DatagramOwner, cookie: number) {
    this.#host = host
    this.#tx = host.tx
    this.owner = owner
    this.cookie = cookie
  }

  /** Driver: the card named a handle for it. */
  open(handle: number, receiveCredit: number): this {
    this.handle = handle
    this.receiveCredit = receiveCredit
    this.#owedLimit = receiveCredit >>> 2
    return this
  }

  /** Driver: a datagram. False if the card had no credit for it. */
  deliver(data: Buffer, remoteAddress: number, remotePort: number): boolean {
    if (data.length > this.receiveCredit) return false
    this.receiveCredit -= data.length
    this.#owed += data.length
    // An event handler takes a datagram or leaves it; either way it is consumed.
    if (this.#owed >= this.#owedLimit) this.#returnCredit()
    this.owner.onDatagram(data, remoteAddress, remotePort)
    return true
  }

  /** Driver: gone without a word from us. */
  kill(): void {
    this.#dead = true
    this.#wantsCredit = this.#wantsRoom = false
  }

  /** Sends `parts`, `bytes` long together, as one datagram. False if the TX queue is full; `onRoom` follows. Nothing is sent before it is bound. */
  send(parts: readonly Uint8Array[], bytes: number, remoteAddress: number, remotePort: number): boolean {
    if (this.#dead || this.handle === 0) return true
    let at = this.#tx.append(OP_UDP_SEND, 0, this.handle, remoteAddress, remotePort, bytes)
    if (at < 0) {
      this.#wantsRoom = true
      this.#wait()
      return false
    }
    for (const part of parts) {
      this.#tx.ram.bytes.set(part, at)
      at += part.length
    }
    this.#tx.flush()
    return true
  }

  setBroadcast(on: boolean): void {
    if (!this.#dead) this.#host.setOption(this.handle, OPTION_UDP_BROADCAST, on ? 1 : 0)
  }

  /** 1..255. */
  setTtl(ttl: number): void {
    if (!this.#dead) this.#host.setOption(this.handle, OPTION_TTL, ttl)
  }

  /** Frees the port, after what was sent. The owner hears no more. */
  close(): void {
    if (this.#dead) return
    this.kill()
    this.#host.unbind(this)
    if (this.handle !== 0) this.#sendClose()
  }

  onTxRoom(): void {
    this.#waiting = false
    if (this.#wantsClose) this.#sendClose()
    if (this.#wantsCredit) {
      this.#wantsCredit = false
      this.#returnCredit()
    }
    if (this.#wantsRoom && !this.#waiting) {
      this.#wantsRoom = false
      this.owner.onRoom()
    }
  }

  #sendClose(): void {
    this.#wantsClose = this.#tx.append(OP_UDP_CLOSE, 0, this.handle, 0, 0, 0) < 0
    if (this.#wantsClose) this.#wait()
    else this.#tx.flush()
  }

  #returnCredit(): void {
    if (this.#tx.append(OP_CREDIT, 0, this.handle, this.#owed, 0, 0) < 0) {
      this.#wantsCredit = true
      this.#wait()
      return
    }
    this.receiveCredit += this.#owed
    this.#owed = 0
    this.#tx.flush()
  }

  #wait(): void {
    if (this.#waiting) return
    this.#waiting = true
    this.#tx.wait(this)
  }
}
