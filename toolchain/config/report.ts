/** What the checks of a farm share: how a fault is reported, and the words for addresses. */
import { broadcastAddress, formatIpv4, formatMac, type Ipv4Prefix, netmask } from './addresses.ts'
import type { FarmConfig, NetworkConfig } from './farm-config.ts'
import { suggest } from './issues.ts'
import type { Path } from './reader.ts'

/** Takes one fault: the setting it lies in, what is wrong, what to write instead. */
export type Report = (path: Path, message: string, hint?: string) => void

/** Who has an address or MAC address already, on which network. */
export class Claims {
  readonly #owners = new Map<string, string>()
  readonly #report: Report

  constructor(report: Report) {
    this.#report = report
  }

  address(network: string, address: number | undefined, owner: string, path: Path): void {
    if (address !== undefined) this.#claim(`${network} ${formatIpv4(address)}`, owner, path)
  }

  mac(network: string, mac: Uint8Array | undefined, owner: string, path: Path): void {
    if (mac === undefined) return
    this.#claim(`${network} ${formatMac(mac)}`, owner, path)
    if ((mac[0] & 1) === 0) return
    const hint = 'the first byte of a host is even, as in "02:00:00:00:00:01"'
    this.#report(path, `${formatMac(mac)} is a group address`, hint)
  }

  #claim(key: string, owner: string, path: Path): void {
    const other = this.#owners.get(key)
    if (other === undefined) this.#owners.set(key, owner)
    else this.#report(path, `'${other}' on the same network has this address too`, 'give each interface its own')
  }
}

/** The network of that name; reports that there is none. */
export function findNetwork(farm: FarmConfig, name: string, path: Path, report: Report): NetworkConfig | undefined {
  const network = farm.networks.find((candidate) => candidate.name === name)
  if (network === undefined) {
    const known = farm.networks.map((candidate) => candidate.name)
    const hint = known.length > 0 ? `there are: ${known.join(', ')}` : 'describe it under "networks"'
    report(path, `there is no network '${name}'`, suggest(name, known) ?? hint)
  }
  return network
}

export function checkNames(items: readonly { readonly name: string }[], path: Path, report: Report): void {
  const seen = new Set<string>()
  items.forEach(({ name }, index) => {
    if (seen.has(name)) report([...path, index, 'name'], `a second '${name}'`, 'give each a name of its own')
    seen.add(name)
  })
}

/** `192.0.2.1/24`. */
export function formatPrefix(prefix: Ipv4Prefix): string {
  return `${formatIpv4(prefix.address)}/${prefix.prefix}`
}

export function describeRange(prefix: Ipv4Prefix): string {
  const last = broadcastAddress(prefix)
  const first = (last & netmask(prefix.prefix)) >>> 0
  return prefix.prefix >= 31 ? 'choose another' : `hosts of it are ${formatIpv4(first + 1)} to ${formatIpv4(last - 1)}`
}
