/** A TCP or UDP address. */
export interface SocketAddress {
  host: string
  port: number
}

/** Where a link to another process listens or connects: a TCP address, or the path of a Unix socket. */
export type LinkAddress = SocketAddress | { path: string }

/**
 * Reads `HOST:PORT`, `[IPV6]:PORT`, `:PORT` or `PORT` (this machine alone), `unix:PATH` or a path with a slash.
 * Throws RangeError with what is wrong.
 */
export function parseLinkAddress(text: string): LinkAddress {
  if (text.startsWith('unix:')) return pathOf(text.slice(5), text)
  if (text.includes('/')) return pathOf(text, text)
  const match = /^(?:(?:\[(?<v6>[0-9a-fA-F:.%]+)\]|(?<name>[^:[\]]*)):)?(?<port>\d{1,5})$/.exec(text)
  if (match === null) throw new RangeError(`'${text}' is no address: give HOST:PORT, [IPV6]:PORT, or unix:PATH.`)
  const { v6, name, port } = match.groups as { v6?: string; name?: string; port: string }
  if (Number(port) > 65535) throw new RangeError(`'${text}' is no address: ports end at 65535.`)
  return { host: v6 ?? (name || '127.0.0.1'), port: Number(port) }
}

/** As `parseLinkAddress` reads it. */
export function formatLinkAddress(address: LinkAddress): string {
  if ('path' in address) return `unix:${address.path}`
  return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`
}

function pathOf(path: string, text: string): LinkAddress {
  // sun_path of unix(7) has 108 bytes with its end.
  if (path === '' || Buffer.byteLength(path) > 107)
    throw new RangeError(`'${text}' is no address: a socket's path has 1 to 107 bytes.`)
  return { path }
}
