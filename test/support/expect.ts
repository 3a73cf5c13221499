/** Comparison of packets with what a test expects; see packets.ts. */
import type { ExecutionContext } from 'ava'
import { type Packet, parse } from './parse.ts'
import { formatAll } from './print.ts'

export type Pattern<T> = T extends Uint8Array
  ? Uint8Array
  : T extends object
    ? { [K in keyof T]?: Pattern<T[K]> | null }
    : T
/** Fields that a packet must have; `null` = must be absent. Problems must be none unless the pattern names them. */
export type PacketPattern = Pattern<Packet> & { port?: number }

/** What differs, as `tcp.flags: 'SA', not 'RA'`, or null if the packet fits. */
export function difference(actual: Packet, expected: PacketPattern): string | null {
  const { port: _, ...rest } = expected
  return differs(actual, { problems: [], ...rest }, '')
}

function differs(actual: unknown, expected: unknown, path: string): string | null {
  if (expected === undefined) return null
  if (expected === null) return actual === undefined ? null : `${path}: present, not absent`
  if (expected instanceof Uint8Array) {
    const same = actual instanceof Uint8Array && Buffer.compare(actual, expected) === 0
    return same ? null : `${path}: ${show(actual)}, not ${show(expected)}`
  }
  if (typeof expected !== 'object') {
    return Object.is(actual, expected) ? null : `${path}: ${show(actual)}, not ${show(expected)}`
  }
  if (actual === undefined) return `${path}: absent`
  if (Array.isArray(expected)) {
    const same = JSON.stringify(actual) === JSON.stringify(expected)
    return same ? null : `${path}: ${show(actual)}, not ${show(expected)}`
  }
  for (const [key, value] of Object.entries(expected)) {
    const found = differs((actual as Record<string, unknown>)[key], value, path === '' ? key : `${path}.${key}`)
    if (found !== null) return found
  }
  return null
}

function show(value: unknown): string {
  if (value instanceof Uint8Array) {
    const hex = Buffer.from(value.subarray(0, 24)).toString('hex')
    return `${value.length} bytes ${hex}${value.length > 24 ? '...' : ''}`
  }
  return JSON.stringify(value) ?? 'undefined'
}

/** Passes if the frames fit the patterns one by one; the failure prints them all decoded. Returns the parsed packets. */
export function expectFrames(
  t: ExecutionContext,
  frames: { port: number; timeNs?: number; frame: Uint8Array }[],
  patterns: PacketPattern[],
): Packet[] {
  const packets = frames.map(({ frame }) => parse(frame))
  const faults: string[] = []
  for (let i = 0; i < Math.max(frames.length, patterns.length); i++) {
    const pattern = patterns[i]
    const packet = packets[i]
    if (!pattern) faults.push(`frame ${i} was not expected`)
    else if (!packet) faults.push(`frame ${i} did not come: ${JSON.stringify(pattern)}`)
    else {
      const port = frames[i]!.port
      if (pattern.port !== undefined && pattern.port !== port)
        faults.push(`frame ${i} port: ${port}, not ${pattern.port}`)
      const found = difference(packet, pattern)
      if (found !== null) faults.push(`frame ${i} ${found}`)
    }
  }
  if (faults.length > 0) t.fail(`${faults.join('\n')}\n${formatAll(frames)}`)
  else t.pass()
  return packets
}
