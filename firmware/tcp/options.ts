import { CARVE_BASE } from '../../abi/memory.ts'
import {
  OPTION_END,
  OPTION_MSS,
  OPTION_NOP,
  OPTION_SACK,
  OPTION_SACK_PERMITTED,
  OPTION_TIMESTAMPS,
  OPTION_WINDOW_SCALE,
  TCP_HEADER_BYTES,
} from '../wire/tcp.ts'

/**
 * What the options of the segment being processed say. One block in the register-free part of the state page, written by
 * `parseOptions` for every segment; nothing keeps it.
 */
@unmanaged
export class Options {
  hasMss: bool
  hasScale: bool
  sackPermitted: bool
  hasTimestamps: bool
  scale: u8
  sackBlocks: u8
  mss: u16
  tsValue: u32
  tsEcho: u32
  /** Address of the first SACK block in the segment: pairs of big-endian u32. */
  sackAddress: u32
}

const OPTIONS_BASE: u32 = CARVE_BASE + 0x900

export function options(): Options {
  return changetype<Options>(OPTIONS_BASE)
}

/** Largest shift (RFC 7323 §2.3). */
const MAXIMUM_SCALE: u32 = 14

/**
 * Parses the options between the fixed header and `headerBytes`. An option whose length does not fit ends the parsing; what
 * came before it counts (RFC 9293 §3.1, MUST-64).
 */
export function parseOptions(segment: u32, headerBytes: u32): void {
  const o = options()
  store<u64>(OPTIONS_BASE, 0)
  let at = segment + TCP_HEADER_BYTES
  const end = segment + headerBytes
  // The common case: NOP NOP TSopt and nothing else.
  if (headerBytes == 32 && load<u32>(at) == 0x0a080101) {
    o.hasTimestamps = true
    o.tsValue = bswap<u32>(load<u32>(at + 4))
    o.tsEcho = bswap<u32>(load<u32>(at + 8))
    return
  }
  while (at < end) {
    const kind: u32 = load<u8>(at)
    if (kind == OPTION_END) return
    if (kind == OPTION_NOP) {
      at++
      continue
    }
    if (at + 2 > end) return
    const length: u32 = load<u8>(at + 1)
    if (length < 2 || at + length > end) return
    if (kind == OPTION_MSS && length == 4) {
      o.hasMss = true
      o.mss = bswap<u16>(load<u16>(at + 2))
    } else if (kind == OPTION_WINDOW_SCALE && length == 3) {
      o.hasScale = true
      const shift: u32 = load<u8>(at + 2)
      o.scale = <u8>(shift > MAXIMUM_SCALE ? MAXIMUM_SCALE : shift)
    } else if (kind == OPTION_SACK_PERMITTED && length == 2) {
      o.sackPermitted = true
    } else if (kind == OPTION_TIMESTAMPS && length == 10) {
      o.hasTimestamps = true
      o.tsValue = bswap<u32>(load<u32>(at + 2))
      o.tsEcho = bswap<u32>(load<u32>(at + 6))
    } else if (kind == OPTION_SACK && length >= 10 && (length - 2) % 8 == 0) {
      o.sackBlocks = <u8>((length - 2) / 8)
      o.sackAddress = at + 2
    }
    at += length
  }
}
