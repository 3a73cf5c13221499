/**
 * Typed values and expressions over INIC memory, registers, tables, frames and locals.
 *
 *     const values = new Values(program)                              // one per program
 *     values.compile('tcb.state == TCP_ESTABLISHED', { pc })          // → Expression: parsed once, evaluated often
 *     values.evaluate('tcb[3]', { memory })                           // → Value, a lazy tree
 *     values.compile('tcb[*].state').place({ memory })                // → { address, bytes, stride, count }
 *     values.locals({ pc }, { memory, frame })                        // → Value[]
 *     values.complete('tcb[3].snd', 10)                               // → Completions
 *     values.registers(memory), values.tables(memory)
 *     decodeFrame(bytes), frameValue(bytes, address)                  // Ethernet, ARP, IPv4, ICMP, UDP, TCP, ipOS
 *     compileFrameFilter('tcp.flags.syn && tcp.dstport == 80')        // → (memory, offset, length) => boolean
 *
 * The language is C's expressions with AssemblyScript's types; docs are in `expression.ts`.
 */
export { type MemoryAccess, memoryOf } from '../../inspect/memory-access.ts'
export { decodeFrame, frameValue } from './frame.ts'
export { compileFrameFilter, frameFilterNames } from './frame-filter.ts'
export type {
  Completion,
  Completions,
  DecodedFrame,
  EvaluationContext,
  Expression,
  FrameAccess,
  FrameField,
  FrameFilter,
  Place,
  PlacePattern,
  Scalar,
  Scope,
  Value,
} from './types.ts'
export { ExpressionError } from './types.ts'
export { Values } from './values.ts'
