import {
  EVENT_LOCAL_ADDRESS,
  EVENT_LOCAL_PORT,
  EVENT_REMOTE_ADDRESS,
  EVENT_REMOTE_PORT,
  EVENT_VALUE2,
  RX_DATAGRAM_HEADER_BYTES,
  RX_DATAGRAM_REMOTE_ADDRESS,
  RX_DATAGRAM_REMOTE_PORT,
} from '../../abi/messages.ts'
import { STATUS_OK } from '../../abi/status.ts'
import { NO_DATAGRAMS } from './endings.ts'
import { HandleTable } from './handle-table.ts'
import type { Ram } from './ram.ts'
import { type DatagramHost, UdpEndpoint } from './udp.ts'
import { QueueFault } from './virtqueue.ts'

/** The endpoints of UDP of one queue set: by cookie until the card has named a handle, by handle after that. */
export class Datagrams {
  readonly #ram: Ram
  readonly #host: DatagramHost
  readonly #binding = new HandleTable<UdpEndpoint>()
  readonly #endpoints = new HandleTable<UdpEndpoint>()

  constructor(ram: Ram, host: DatagramHost) {
    this.#ram = ram
    this.#host = host
  }

  get size(): number {
    return this.#binding.size + this.#endpoints.size
  }

  hasCookie(cookie: number): boolean {
    return this.#binding.has(cookie)
  }

  hasHandle(handle: number): boolean {
    return this.#endpoints.has(handle)
  }

  /** One that the card has been asked for. */
  add(endpoint: UdpEndpoint): void {
    this.#binding.set(endpoint.cookie, endpoint)
  }

  /** True if it was there. */
  remove(endpoint: UdpEndpoint): boolean {
    const bound = this.#endpoints.delete(endpoint.handle)
    return this.#binding.delete(endpoint.cookie) || bound
  }

  /** All of them, and forgets them. */
  takeAll(): UdpEndpoint[] {
    const all = [...this.#binding.values(), ...this.#endpoints.values()]
    this.#binding.clear()
    this.#endpoints.clear()
    return all
  }

  /** EVENT_UDP_BOUND at word `at`. */
  bound(at: number, status: number, handle: number, cookie: number): void {
    const { words } = this.#ram
    const endpoint = this.#binding.get(cookie)
    if (endpoint === undefined) {
      // Closed while the card's answer was on its way.
      if (status === STATUS_OK) new UdpEndpoint(this.#host, NO_DATAGRAMS, 0).open(handle, 0).close()
      return
    }
    this.#binding.delete(cookie)
    if (status === STATUS_OK) this.#endpoints.set(handle, endpoint.open(handle, words[at + (EVENT_VALUE2 >>> 2)]!))
    else endpoint.kill()
    endpoint.owner.onBound(status, words[at + (EVENT_LOCAL_ADDRESS >>> 2)]!, this.#port(at, EVENT_LOCAL_PORT))
  }

  /** EVENT_UDP_ERROR at word `at`. False if there is no such endpoint. */
  failed(at: number, status: number, handle: number): boolean {
    const endpoint = this.#endpoints.get(handle)
    if (endpoint === undefined) return false
    const address = this.#ram.words[at + (EVENT_REMOTE_ADDRESS >>> 2)]!
    endpoint.owner.onDatagramError(status, address, this.#port(at, EVENT_REMOTE_PORT))
    return true
  }

  /** RX_DATAGRAM at `address`, a record of `bytes`. False if there is no such endpoint. Throws QueueFault. */
  receive(address: number, bytes: number, handle: number, length: number): boolean {
    if (bytes < RX_DATAGRAM_HEADER_BYTES || length > bytes - RX_DATAGRAM_HEADER_BYTES) {
      throw new QueueFault(`The card delivered a datagram of ${length} bytes in a record of ${bytes}.`)
    }
    const endpoint = this.#endpoints.get(handle)
    if (endpoint === undefined) return false
    const { words } = this.#ram
    const data = this.#ram.copy(address + RX_DATAGRAM_HEADER_BYTES, length)
    const remoteAddress = words[(address + RX_DATAGRAM_REMOTE_ADDRESS) >>> 2]!
    const remotePort = words[(address + RX_DATAGRAM_REMOTE_PORT) >>> 2]! & 0xffff
    if (!endpoint.deliver(data, remoteAddress, remotePort)) {
      throw new QueueFault(`The card delivered a datagram of ${length} bytes that socket ${handle} had no credit for.`)
    }
    return true
  }

  #port(at: number, field: number): number {
    return this.#ram.halves[(at << 1) + (field >>> 1)]!
  }
}
