import type { FrameFilter } from './types.ts'

/** Wireshark's display filters, for the protocols of this field. @throws ExpressionError */
export declare function compileFrameFilter(text: string): FrameFilter
