/** Interrupt lines of the card by name. */
import { IRQ_FETCH, IRQ_LINK, IRQ_MAC0, IRQ_QUEUE, IRQ_TIMER, MAC_PORTS } from '../../../abi/registers.ts'
import { type BreakpointSpec, DebugError } from './api.ts'

const LINES: ReadonlyMap<string, number> = new Map([
  ...Array.from({ length: MAC_PORTS }, (_, port): [string, number] => [`MAC${port}`, IRQ_MAC0 << port]),
  ['FETCH', IRQ_FETCH],
  ['QUEUE', IRQ_QUEUE],
  ['TIMER', IRQ_TIMER],
  ['LINK', IRQ_LINK],
])

/** Lines that an interrupt breakpoint waits for; 0 for those of the main board. @throws DebugError for a line that is not there */
export function irqBits(spec: BreakpointSpec): number {
  if (spec.kind !== 'interrupt' || spec.line === undefined) return 0xffffffff
  const name = spec.line.toUpperCase()
  if (name === 'HOST') return 0
  const bits = LINES.get(name)
  if (bits === undefined)
    throw new DebugError(
      'expression',
      `there is no interrupt line '${spec.line}'; there are ${[...LINES.keys()].join(', ')}, HOST`,
    )
  return bits
}

/** `MAC0, TIMER`. */
export function irqNames(bits: number): string {
  return [...LINES].flatMap(([name, bit]) => ((bits & bit) !== 0 ? [name] : [])).join(', ')
}
