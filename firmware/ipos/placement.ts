import { MAXIMUM_PEERS, PLACEMENT_LOCAL_FIRST, PLACEMENT_LOCAL_ONLY, PLACEMENT_ROUND_ROBIN } from '../../abi/boot.ts'
import { state } from '../state.ts'
import { applicationFits } from './application.ts'
import { SELF, Server, serverAt, takesNew } from './server.ts'
import { Service, serviceFind } from './service.ts'
import { isDraining, refreshSelf } from './state.ts'

/** Who serves: decided at the request packet from the Server State table, the ports that servers serve, and what applications need. */

/** What a server is given at least of new work, per mille of an idle one's share: a busy one is not starved where all are busy. */
const LEAST_CAPACITY: u32 = 10
const FULL: u32 = 1000
const SELF_BIT: u32 = 1 << SELF
/** Places in the farm are 0..MAXIMUM_PEERS, which is a power of two less one. */
const PLACES_MASK: u32 = MAXIMUM_PEERS

/**
 * Chooses a server for a new connection or conversation to `port`.
 *
 * @param protocol IPOS_TCP or IPOS_UDP
 * @param localServes an application of this server can take it
 * @param needsTakeOver it is handed over: a peer's application must take such ones
 * @param excluded bit for each row of the Server State table that was tried in vain
 * @returns row of the Server State table, SELF or a peer's; -1 = nobody
 */
export function placementChoose(port: u32, protocol: u32, localServes: bool, needsTakeOver: bool, excluded: u32): i32 {
  const st = state()
  const local = localServes && (excluded & SELF_BIT) == 0
  // Draining, it serves what nobody else can.
  const lastResort: i32 = local ? <i32>SELF : -1
  if (st.placement == PLACEMENT_LOCAL_ONLY) return lastResort
  const service = serviceFind(port, protocol)
  let candidates: u32 = local && !isDraining() ? SELF_BIT : 0
  if (service != null) candidates |= peersOf(service, needsTakeOver) & ~excluded
  if (candidates == 0) return lastResort
  if (candidates & SELF_BIT) {
    if (service == null || candidates == SELF_BIT) return SELF
    refreshSelf()
    if (!applicationFits(port, protocol)) candidates &= ~SELF_BIT
  }
  candidates = belowLimit(candidates)
  if (st.placement == PLACEMENT_ROUND_ROBIN) return nextInTurn(service!, candidates)
  if (st.placement == PLACEMENT_LOCAL_FIRST && (candidates & SELF_BIT) != 0 && serverAt(SELF).load <= st.localLimit)
    return SELF
  return leastLoaded(candidates)
}

/** Peers that serve the port and take new work. */
function peersOf(service: Service, needsTakeOver: bool): u32 {
  let peers = (needsTakeOver ? service.takesOver : service.servers) & ~SELF_BIT
  for (let rest = peers; rest != 0; rest &= rest - 1) if (!takesNew(ctz(rest))) peers &= ~(1 << ctz(rest))
  return peers
}

/** Those below the load limit; all, if none is. */
function belowLimit(candidates: u32): u32 {
  const limit = state().loadLimit
  let below: u32 = 0
  for (let rest = candidates; rest != 0; rest &= rest - 1) if (serverAt(ctz(rest)).load < limit) below |= rest & -rest
  return below ? below : candidates
}

/** The next in the order of the farm after the one that had the last turn at this port. */
function nextInTurn(service: Service, candidates: u32): u32 {
  let next: u32 = SELF
  let distance: u32 = 0xffffffff
  for (let rest = candidates; rest != 0; rest &= rest - 1) {
    const row = ctz(rest)
    // Places behind it, going round; it is itself the farthest.
    const behind = (serverAt(row).index - service.turn - 1) & PLACES_MASK
    if (behind >= distance) continue
    distance = behind
    next = row
  }
  service.turn = <u8>serverAt(next).index
  return next
}

/**
 * Smooth weighted round-robin: everybody is given its capacity, who has most serves and pays for all. Servers are chosen in
 * proportion to what they have free, spread evenly, so that a server that has just said it is idle is not overrun before it speaks again.
 */
function leastLoaded(candidates: u32): u32 {
  let total: i32 = 0
  let best: u32 = ctz(candidates)
  for (let rest = candidates; rest != 0; rest &= rest - 1) {
    const row = ctz(rest)
    const server = serverAt(row)
    const capacity = capacityOf(server)
    server.share += capacity
    total += capacity
    if (comesBefore(server, serverAt(best))) best = row
  }
  serverAt(best).share -= total
  return best
}

/** More coming to it; among equals the first of the farm. */
function comesBefore(server: Server, other: Server): bool {
  return server.share > other.share || (server.share == other.share && server.index < other.index)
}

function capacityOf(server: Server): i32 {
  return max<u32>(FULL - server.load, LEAST_CAPACITY)
}

/** Load of a server, per mille: the largest of its resources' by this board's weights. What is not known is not loaded. */
export function loadOf(server: Server): u32 {
  const st = state()
  let load = weighted(server.cpu, st.weightCpu)
  load = max<u32>(load, weighted(used(server.memoryAvailable, server.memoryTotal), st.weightMemory))
  load = max<u32>(load, weighted(used(server.bandwidthAvailable, server.bandwidthTotal), st.weightBandwidth))
  const connectionsLeft = server.connectionsMaximum - min<u32>(server.connections, server.connectionsMaximum)
  load = max<u32>(load, weighted(used(connectionsLeft, server.connectionsMaximum), st.weightConnections))
  return min<u32>(load, FULL)
}

/** Per mille of `total` that are not available; 0 if it is not known. */
function used(available: u32, total: u32): u32 {
  if (available >= total) return 0
  return <u32>((<u64>(total - available) * FULL) / total)
}

function weighted(perMille: u32, perCent: u32): u32 {
  return (perMille * perCent) / 100
}
