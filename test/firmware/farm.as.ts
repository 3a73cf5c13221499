/** ipOS whole, and what tests ask of its Server State table, its Service table and its placement directly. */
import { poll, reset } from '../../firmware/index.ts'
import { placementChoose } from '../../firmware/ipos/placement.ts'
import { serverAt } from '../../firmware/ipos/server.ts'
import { serves, serviceElsewhere, takesOver } from '../../firmware/ipos/service.ts'

export { poll, reset }

export function choose(port: u32, protocol: u32, localServes: u32, needsTakeOver: u32, excluded: u32): i32 {
  return placementChoose(port, protocol, localServes != 0, needsTakeOver != 0, excluded)
}

/** SERVER_* of a row. */
export function status(row: u32): u32 {
  return serverAt(row).status
}

/** SERVICE_FLAG_* and first speaker of a peer that serves, -1 = none. */
export function elsewhere(port: u32, protocol: u32): i32 {
  return serviceElsewhere(port, protocol)
}

/** 0 = does not serve, 1 = serves, 3 = and takes over. */
export function service(row: u32, port: u32, protocol: u32): u32 {
  return (serves(row, port, protocol) ? 1 : 0) | (takesOver(row, port, protocol) ? 2 : 0)
}

/** Ports that were told and found no room. */
export function missing(row: u32): u32 {
  return serverAt(row).servicesMissing
}
