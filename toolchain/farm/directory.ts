/** Which servers there are to move connections to, by name. */
import { formatIpv4 } from '../config/addresses.ts'
import type { FarmConfig, ServerConfig } from '../config/farm-config.ts'
import { addressesByPort } from './assembly.ts'

/** Servers on the synchronization hub of `server`, itself among them, and the address by which its INIC knows each. */
export function serversOnHub(farm: FarmConfig, server: ServerConfig): Record<string, string> {
  const hubs = new Set(farm.networks.filter(({ kind }) => kind === 'hub').map(({ name }) => name))
  const hub = server.interfaces.find(({ network }) => hubs.has(network))?.network
  const members = farm.servers.filter(({ interfaces }) => interfaces.some(({ network }) => network === hub))
  return Object.fromEntries(
    members.flatMap((member) => {
      const address = addressesByPort(server, member).find((candidate) => candidate !== 0)
      return address === undefined ? [] : [[member.name, formatIpv4(address)]]
    }),
  )
}
