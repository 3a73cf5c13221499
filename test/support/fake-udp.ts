import * as M from '../../abi/messages.ts'
import * as S from '../../abi/status.ts'
import { type FakeCard, LOOPBACK } from './fake-card.ts'

const BROADCAST = 0xffffffff

export interface Udp {
  card: FakeCard
  handle: number
  address: number
  port: number
  receiveCredit: number
  broadcast: boolean
  ttl: number
}

/** The UDP of a FakeCard. */
export class FakeUdp {
  readonly endpoints = new Map<number, Udp>()
  readonly #card: FakeCard

  constructor(card: FakeCard) {
    this.#card = card
  }

  bind(cookie: number, address: number, port: number): void {
    const card = this.#card
    const status = card.bindStatus(address, port, [...this.endpoints.values()])
    const udp: Udp = {
      card,
      handle: card.newHandle(),
      address,
      port: port || card.ephemeral(),
      receiveCredit: card.network.creditBytes,
      broadcast: false,
      ttl: 64,
    }
    if (status === S.STATUS_OK) this.endpoints.set(udp.handle, udp)
    card.event({
      type: M.EVENT_UDP_BOUND,
      status,
      handle: udp.handle,
      cookie,
      localAddress: address,
      localPort: udp.port,
      value2: udp.receiveCredit,
    })
  }

  setOption(handle: number, option: number, value: number): void {
    const udp = this.endpoints.get(handle)
    if (udp && option === M.OPTION_UDP_BROADCAST) udp.broadcast = value === 1
    if (udp && option === M.OPTION_TTL) udp.ttl = value
  }

  /** True if there is such an endpoint. */
  credit(handle: number, bytes: number): boolean {
    const udp = this.endpoints.get(handle)
    if (udp) udp.receiveCredit += bytes
    return udp !== undefined
  }

  send(handle: number, address: number, port: number, data: Buffer): void {
    const card = this.#card
    const from = this.endpoints.get(handle)
    if (from === undefined) {
      card.late++
      return
    }
    const cards =
      address === BROADCAST && from.broadcast
        ? card.network.cards
        : [address === LOOPBACK ? card : card.network.find(address)]
    for (const other of cards) {
      const to = [...(other?.udp.endpoints.values() ?? [])].find(
        (u) => u.port === port && (u.address === 0 || u.address === address || address === BROADCAST),
      )
      if (to !== undefined)
        to.card.udp.#deliver(to, data, address === LOOPBACK ? LOOPBACK : card.address, from.port, address)
      else if (address !== BROADCAST)
        card.event({
          type: M.EVENT_UDP_ERROR,
          status: other ? S.STATUS_ECONNREFUSED : S.STATUS_EHOSTUNREACH,
          handle,
          remoteAddress: address,
          remotePort: port,
        })
    }
  }

  #deliver(to: Udp, data: Buffer, remoteAddress: number, remotePort: number, localAddress: number): void {
    // Datagrams may be lost.
    if (data.length > to.receiveCredit || !this.#card.rxRoom) return
    to.receiveCredit -= data.length
    const header = Buffer.alloc(M.RX_DATAGRAM_HEADER_BYTES - M.RX_HEADER_BYTES)
    header.writeUInt32LE(remoteAddress, M.RX_DATAGRAM_REMOTE_ADDRESS - M.RX_HEADER_BYTES)
    header.writeUInt32LE(localAddress, M.RX_DATAGRAM_LOCAL_ADDRESS - M.RX_HEADER_BYTES)
    header.writeUInt32LE(remotePort, M.RX_DATAGRAM_REMOTE_PORT - M.RX_HEADER_BYTES)
    this.#card.rx(M.RX_DATAGRAM, 0, to.handle, [header, data], data.length)
  }
}
