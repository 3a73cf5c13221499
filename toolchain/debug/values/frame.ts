import type { DecodedFrame } from './types.ts'

/** Decodes an Ethernet frame. Never throws: what is cut short or malformed is said in the tree. */
export declare function decodeFrame(frame: Uint8Array): DecodedFrame
