import { MAC_PORTS } from '../../abi/registers.ts'
import { LOOPBACK_PORT } from '../hal/state.ts'
import { portOfPeerAddress } from '../ipos/server.ts'
import { IPV4_LIMITED_BROADCAST, ipv4IsLoopback, ipv4IsUnicast } from '../wire/ipv4.ts'
import { Interface, interfaceOf, isLocalAddress, isOnLink, linkIsUp, netInterface } from './interface.ts'

/** Any route over a link that is up is better than one over a link that is down. */
const LINK_DOWN: i32 = 64

/**
 * The interface through which to reach `destination`, or -1 if there is none (ENETUNREACH). Own addresses lie behind
 * LOOPBACK_PORT. A source binds to its interface (RFC 1122 §3.3.4.2, strong model), or to the one that its replies leave by; without
 * one, the longest prefix that holds the destination wins, then the first gateway.
 *
 * @param source own address, 0 = any
 */
export function routeTo(destination: u32, source: u32): i32 {
  if (isLocalAddress(destination)) return LOOPBACK_PORT
  // RFC 1122 §3.2.1.3: a loopback address never leaves the card. Multicast groups are not joined or sent to.
  if (ipv4IsLoopback(source)) return -1
  if (!ipv4IsUnicast(destination) && destination != IPV4_LIMITED_BROADCAST) return -1
  if (source) {
    // An endpoint that serves for another server carries that one's address.
    let own = interfaceOf(source)
    if (own < 0) own = portOfPeerAddress(source)
    if (own < 0) return -1
    const way = replyPort(own, destination)
    return routeScore(way, destination) > i32.MIN_VALUE ? way : -1
  }
  let best: i32 = -1
  let bestScore = i32.MIN_VALUE
  for (let i: u32 = 0; i < <u32>MAC_PORTS; i++) {
    const score = routeScore(i, destination)
    if (score > bestScore) {
      best = i
      bestScore = score
    }
  }
  return best
}

/**
 * The port by which packets to `destination` leave that carry the address of port `index` as their source: LAN A brings what clients
 * send, LAN B what goes to them (FIG. 2). A neighbour on the port's own link is reached there; and while the link of the other port is
 * down, or it leads nowhere, so is everybody else.
 */
export function replyPort(index: u32, destination: u32): u32 {
  if (index == LOOPBACK_PORT) return index
  const ni = netInterface(index)
  const reply = ni.reply
  if (reply == index || isDirect(ni, destination)) return index
  return linkIsUp(reply) && routeScore(reply, destination) > i32.MIN_VALUE ? reply : index
}

/** How well an interface reaches the destination; i32.MIN_VALUE = not at all. */
function routeScore(index: u32, destination: u32): i32 {
  const ni = netInterface(index)
  if (!ni.address) return i32.MIN_VALUE
  let score: i32 = 0
  if (isDirect(ni, destination)) score = 1 + ni.prefixBits
  else if (!ni.gateway) return i32.MIN_VALUE
  return linkIsUp(index) ? score : score - LINK_DOWN
}

function isDirect(ni: Interface, destination: u32): bool {
  return isOnLink(ni, destination) || destination == IPV4_LIMITED_BROADCAST
}

/** The neighbour that takes packets for `destination`: itself if on the link, else the gateway; 0 if there is none. */
export function nextHop(interfaceIndex: u32, destination: u32): u32 {
  if (interfaceIndex == LOOPBACK_PORT) return destination
  const ni = netInterface(interfaceIndex)
  return isDirect(ni, destination) ? destination : ni.gateway
}

/**
 * The own address that packets to `destination` carry, or 0 if the destination is out of reach.
 *
 * @param preferred what the socket is bound to, 0 = any; it must be our own
 */
export function routeSource(destination: u32, preferred: u32): u32 {
  const route = routeTo(destination, preferred)
  if (route < 0 || (preferred != 0 && !isLocalAddress(preferred))) return 0
  if (preferred) return preferred
  return <u32>route == LOOPBACK_PORT ? destination : netInterface(route).address
}
