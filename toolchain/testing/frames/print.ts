/** Printer of packets; see index.ts. */
import { formatIpos, type IposPacket } from './ipos.ts'
import { type Packet, parse, parseIpv4, quotedPacket } from './parse.ts'

const ICMP_NAMES: Record<number, string> = {
  0: 'echo reply',
  3: 'unreachable',
  5: 'redirect',
  8: 'echo request',
  11: 'time exceeded',
  12: 'parameter problem',
}

/** One line: what tcpdump would say, more or less. */
export function format(frame: Uint8Array | Packet): string {
  const packet = frame instanceof Uint8Array ? parse(frame) : frame
  const problems = packet.problems.length > 0 ? ` !! ${packet.problems.join(', ')}` : ''
  return `${formatBody(packet)}${problems}`
}

function formatBody(packet: Packet): string {
  const link = `${packet.sourceMac} > ${packet.destinationMac}`
  if (packet.arp) {
    const { operation, sender, senderMac, target, targetMac } = packet.arp
    return `${link} ARP ${operation} ${sender} (${senderMac}) -> ${target} (${targetMac})`
  }
  if (packet.ipos) return `${link} ${formatIpos(packet.ipos)}${formatCarried(packet.ipos)}`
  const ip = packet.ipv4
  if (!ip) return `${link} type 0x${packet.type.toString(16).padStart(4, '0')}`
  const piece = ip.moreFragments || ip.offset > 0
  const notes = `${piece ? ` fragment ${ip.identification}:${ip.offset}+${ip.payload.length}${ip.moreFragments ? '+' : ''}` : ''}${ip.dontFragment ? ' DF' : ''}`
  const between = (from: number, to: number) => `${ip.source}:${from} > ${ip.destination}:${to}`
  if (packet.icmp) {
    const { type, code, rest, payload } = packet.icmp
    const name = ICMP_NAMES[type] ?? `type ${type}`
    const about = type === 3 || type === 11 || type === 12 ? ` about [${formatBody(quotedPacket(packet))}]` : ''
    return `${ip.source} > ${ip.destination}${notes} ICMP ${name} code ${code} rest 0x${rest.toString(16)} (${payload.length} bytes)${about}`
  }
  if (packet.udp) {
    return `${between(packet.udp.sourcePort, packet.udp.destinationPort)}${notes} UDP (${packet.udp.payload.length} bytes)`
  }
  if (packet.tcp) {
    const { sequence, acknowledgment, flags, window, options, payload } = packet.tcp
    const ack = flags.includes('A') ? ` ack ${acknowledgment}` : ''
    const { kinds: _, ...named } = options
    const extra = Object.entries(named).map(([name, value]) => ` ${name} ${JSON.stringify(value)}`)
    return `${between(packet.tcp.sourcePort, packet.tcp.destinationPort)}${notes} [${flags}] seq ${sequence}${ack} win ${window}${extra.join('')} (${payload.length} bytes)`
  }
  return `${ip.source} > ${ip.destination}${notes} protocol ${ip.protocol} (${ip.payload.length} bytes)`
}

/** The IP packet that an ipOS packet carries. */
function formatCarried(ipos: IposPacket): string {
  if (!('packet' in ipos) || ipos.packet.length === 0) return ''
  const carried: Packet = { destinationMac: '', sourceMac: '', type: 0, problems: [] }
  parseIpv4(ipos.packet, carried)
  return ` [${format(carried)}]`
}

/** Lines with time and port, for failure messages. */
export function formatAll(frames: { port?: number; timeNs?: number; frame: Uint8Array }[]): string {
  const line = ({ port, timeNs, frame }: (typeof frames)[number]) =>
    `  ${timeNs === undefined ? '' : `${(timeNs / 1e6).toFixed(3)} ms `}${port === undefined ? '' : `port ${port} `}${format(frame)}`
  return frames.length === 0 ? '  (no frames)' : frames.map(line).join('\n')
}
