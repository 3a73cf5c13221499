import type { HostClock } from '../abi/bus.ts'
import { parseIPv4 } from './addresses.ts'
import type { Driver } from './driver/driver.ts'
import { notFound, type SystemError } from './errors.ts'

/** Counts the sockets that should keep a process alive. */
export interface References {
  hold(): void
  release(): void
}

/** What one socket adds to the References. It should count as long as a handle or a request of Node's would (libuv: uv_loop_alive). */
export class Hold {
  readonly #references: References
  #on = false

  constructor(references: References) {
    this.#references = references
  }

  set(on: boolean): void {
    if (this.#on === on) return
    this.#on = on
    if (on) this.#references.hold()
    else this.#references.release()
  }
}

/** What the sockets of one process share. */
export interface Stack {
  readonly driver: Driver
  /** Time for timeouts. */
  readonly clock: HostClock
  /** Names that resolve, in lower case, to IPv4 addresses; `localhost` need not be there. */
  readonly hosts: ReadonlyMap<string, string>
  /** Servers of the farm that connections can move to, by their names, in lower case: the IPv4 address that names each. */
  readonly servers?: ReadonlyMap<string, string>
  readonly references: References
  /** Who speaks first on which port, for programs that do not say so to `listen` themselves. */
  readonly firstSpeakers?: ReadonlyMap<number, FirstSpeaker>
  /** Each socket's events run in an asynchronous context of their own (async-context.ts). */
  readonly asyncContext?: boolean
}

export type FirstSpeaker = 'auto' | 'client' | 'server'

/** Names and addresses as a stack keeps them. */
export function nameTable(names: Readonly<Record<string, string>> = {}): Map<string, string> {
  return new Map(Object.entries(names).map(([name, address]) => [name.toLowerCase(), address]))
}

/** For processes that do not end by themselves. */
export const NO_REFERENCES: References = { hold() {}, release() {} }

export type LookupCallback = (error: SystemError | null, address: string, family: number) => void

/**
 * Resolves a host name as the board knows it: an address is itself, `localhost` and what ends in it is 127.0.0.1 (RFC 6761 §6.3), the rest
 * stands in the hosts table or is not found. Answers in a later tick, as `dns.lookup` does.
 */
export function lookupHost(stack: Stack, host: string, callback: LookupCallback): void {
  const address = resolveHost(stack, host)
  if (address === null) process.nextTick(callback, notFound(host), '', 4)
  else process.nextTick(callback, null, address, 4)
}

/** As `lookupHost`, at once; null if there is no such name. */
export function resolveHost(stack: Stack, host: string): string | null {
  if (parseIPv4(host) >= 0) return host
  const name = host.toLowerCase().replace(/\.$/, '')
  if (name === 'localhost' || name.endsWith('.localhost')) return '127.0.0.1'
  return stack.hosts.get(name) ?? null
}

/** The number of the address that names a server of the farm, which may be given as an address too. Throws ENOTFOUND. */
export function resolveServer(stack: Stack, server: string): number {
  const number = parseIPv4(stack.servers?.get(server.toLowerCase()) ?? server)
  if (number <= 0) throw notFound(server, 'migrate')
  return number
}
