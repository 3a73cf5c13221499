/** A router's ports, routes, ARP cache and drops. */
import type { Router } from '../../emulator/router/router.ts'
import { formatIpv4, formatMac } from '../config/addresses.ts'
import { formatPrefix } from '../config/report.ts'
import { formatNetwork } from '../config/routing.ts'
import { type Table, TableBuilder } from './table.ts'

export function readRouter(router: Router, limit: number): Table[] {
  return [readPorts(router), readRoutes(router), readNeighbors(router, limit), readCounters(router)]
}

function readPorts({ ports }: Router): Table {
  const table = new TableBuilder('Ports', ['port', 'link', 'address', 'MAC address', 'MTU'])
  for (const { name, carrier, address, prefix, mac, mtuBytes } of ports) {
    const shown = formatPrefix({ address: address >>> 0, prefix })
    table.add(() => [name, carrier ? 'up' : 'down', shown, formatMac(mac), mtuBytes])
  }
  return table.build()
}

function readRoutes({ routes, ports }: Router): Table {
  const table = new TableBuilder('Routes', ['to', 'via', 'port'])
  for (const { network, prefix, port, via } of routes) {
    const to = formatNetwork({ address: network, prefix })
    table.add(() => [to, via === 0 ? null : formatIpv4(via), ports[port].name])
  }
  return table.build()
}

function readNeighbors(router: Router, limit: number): Table {
  const columns = ['address', 'MAC address', 'port', 'state', 'age (s)', 'packets waiting']
  const table = new TableBuilder('ARP', columns, limit)
  for (const { address, mac, port, state, ageNs, waiting } of router.neighbors()) {
    table.add(() => [formatIpv4(address), mac && formatMac(mac), port, state, mac && Math.floor(ageNs / 1e9), waiting])
  }
  return table.build()
}

function readCounters(router: Router): Table {
  const table = new TableBuilder('Counters', ['counter', 'value'])
  const { dropped, ...counters } = router.statistics()
  const drops = Object.entries(dropped).map(([reason, count]) => [`dropped: ${words(reason)}`, count] as const)
  for (const [name, value] of [...Object.entries(counters), ...drops]) table.add(() => [words(name), value])
  return table.build()
}

/** `timeToLive` as `time to live`. */
function words(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)
}
