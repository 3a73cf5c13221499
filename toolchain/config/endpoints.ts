/** The colon-separated forms that farm files and options share: published ports, streams, `NETWORK=...`. */
import { type LinkAddress, parseLinkAddress, type SocketAddress } from '../../emulator/link/address.ts'
import { parseIpv4, parseIpv4Prefix } from './addresses.ts'
import type { PublishConfig, StreamConfig, TapConfig } from './farm-config.ts'

export const PUBLISH_FORM = '[ADDRESS:]PORT:SERVER:PORT'
export const PUBLISH_EXAMPLE = '8080:server1:80'
export const STREAM_EXAMPLE = 'listen:127.0.0.1:9001'
export const TAP_EXAMPLE = 'inic0,192.0.2.1/24'

const DEFAULT_PUBLISH_HOST = '127.0.0.1'

/**
 * Parses `8080:server1:80`, `0.0.0.0:8080:server1:80`, `[::1]:8080:server1:80`, or any with an address of the server in the place of its
 * name; undefined if it is none.
 */
export function parsePublish(text: string): PublishConfig | undefined {
  const match = /^(?:(\[[0-9a-f:.]+\]|[^:[\]]+):)?(\d+):([a-z][a-z0-9-]*|\d+(?:\.\d+){3}):(\d+)(?:\/tcp)?$/i.exec(text)
  if (!match) return undefined
  const [, host, port, server, serverPort] = match
  if (!isPort(Number(port), 0) || !isPort(Number(serverPort), 1)) return undefined
  if (/^\d/.test(server) && parseIpv4(server) === undefined) return undefined
  return {
    host: host === undefined ? DEFAULT_PUBLISH_HOST : host.replace(/^\[|\]$/g, ''),
    port: Number(port),
    server,
    serverPort: Number(serverPort),
  }
}

/**
 * Parses `listen:HOST:PORT`, `connect:HOST:PORT`, or either with `unix:PATH`, and `dgram:HOST:PORT,HOST:PORT`, here and there; undefined
 * if it is none of them.
 */
export function parseStream(text: string): StreamConfig | undefined {
  const match = /^(listen|connect|dgram):(.+)$/.exec(text)
  if (!match) return undefined
  const [, role, where] = match
  try {
    if (role === 'dgram') return parseDatagrams(where)
    const address = parseLinkAddress(where)
    if (role === 'listen') return { role, address }
    return 'port' in address && address.port === 0 ? undefined : { role: 'connect', address }
  } catch {
    return undefined
  }
}

function parseDatagrams(text: string): StreamConfig | undefined {
  const [local, remote, ...more] = text.split(',').map(parseLinkAddress)
  if (!isSocketAddress(local) || !isSocketAddress(remote) || remote.port === 0 || more.length > 0) return undefined
  return { role: 'dgram', local, remote }
}

/** Node.js has no datagrams on Unix sockets. */
function isSocketAddress(address: LinkAddress | undefined): address is SocketAddress {
  return address !== undefined && 'port' in address
}

/** Parses `IFNAME` or `IFNAME,ADDRESS/PREFIX`; undefined if it is neither. */
export function parseTap(text: string): TapConfig | undefined {
  const match = /^([^\s/,]{1,15})(?:,(\S+))?$/.exec(text)
  if (!match || (match[2] !== undefined && parseIpv4Prefix(match[2]) === undefined)) return undefined
  return { interfaceName: match[1], address: match[2] }
}

/** Brackets around an IPv6 address, as in a URL. */
export function formatHost(host: string): string {
  return host.includes(':') ? `[${host}]` : host
}

function isPort(port: number, least: number): boolean {
  return Number.isInteger(port) && port >= least && port <= 65535
}
