/** Comparison of frames with what a test expects, for ava. */
import type { ExecutionContext } from 'ava'
import { difference, formatAll, type Packet, type PacketPattern, parse } from '../../toolchain/testing/frames/index.ts'

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
