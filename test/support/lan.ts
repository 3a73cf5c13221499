import { BareCard, type CardSettings } from './bare-card.ts'
import { arpFrame } from './packets.ts'

/** A station on a port's link, played by the test. */
export interface Station {
  port: number
  mac: string
  ip: string
}

/** The card's own addresses, as `DEFAULT_INTERFACES` has them. */
export const CARD: Station = { port: 0, mac: '02:00:00:00:00:01', ip: '192.0.2.1' }
export const CARD_B: Station = { port: 1, mac: '02:00:00:00:00:02', ip: '198.51.100.1' }
/** A neighbour on each LAN, and the gateways. */
export const PEER: Station = { port: 0, mac: '02:00:00:00:aa:0a', ip: '192.0.2.10' }
export const PEER_B: Station = { port: 1, mac: '02:00:00:00:bb:0a', ip: '198.51.100.10' }
export const GATEWAY: Station = { port: 0, mac: '02:00:00:00:aa:fe', ip: '192.0.2.254' }
export const GATEWAY_B: Station = { port: 1, mac: '02:00:00:00:bb:fe', ip: '198.51.100.254' }

/** Both ARP announcements are out after this time, milliseconds. */
export const ANNOUNCED_MS = 2001

/** Link and IPv4 fields of a frame between two stations. */
export function between(from: Station, to: Station) {
  return { destinationMac: to.mac, sourceMac: from.mac, source: from.ip, destination: to.ip }
}

/** Fields of frames from the neighbour to the card. */
export const TO_CARD = between(PEER, CARD)

/** A card that has announced itself and whose ARP cache knows the neighbours and gateways. */
export function settledCard(settings: CardSettings = {}): BareCard {
  const card = new BareCard(settings)
  card.advance(ANNOUNCED_MS)
  for (const station of [PEER, GATEWAY]) greet(card, station, CARD)
  for (const station of [PEER_B, GATEWAY_B]) greet(card, station, CARD_B)
  return card
}

/** Lets a station ask the card for its address, so that the card learns the station's; returns the card's answer. */
export function greet(card: BareCard, station: Station, asked: Station) {
  card.receive(
    station.port,
    arpFrame({ operation: 'request', senderMac: station.mac, sender: station.ip, target: asked.ip }),
  )
  return card.run()
}
