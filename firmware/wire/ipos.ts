import {
  IPOS_CHECKSUM,
  IPOS_DESTINATION_ADDRESS,
  IPOS_DESTINATION_PORT,
  IPOS_HEADER_BYTES,
  IPOS_PROTOCOL,
  IPOS_SERVER_ADDRESS,
  IPOS_SERVER_PORT,
  IPOS_SOURCE_ADDRESS,
  IPOS_SOURCE_PORT,
  IPOS_TYPE,
} from '../../abi/ipos.ts'
import { checksumAdd, checksumFinish, checksumFold } from './checksum.ts'
import { storeWords } from './order.ts'

/**
 * ipOS frames (abi/ipos.ts). `header` is the address of the ipOS header. Accessors read unchecked: lengths and the
 * checksum are checked once, at ingress.
 */

/** Big-endian field of 4 bytes. @param field offset from the header */
export function iposLoad32(header: u32, field: u32): u32 {
  return bswap<u32>(load<u32>(header + field))
}

export function iposStore32(header: u32, field: u32, value: u32): void {
  store<u32>(header + field, bswap<u32>(value))
}

/** Big-endian field of 2 bytes. */
export function iposLoad16(header: u32, field: u32): u32 {
  return bswap<u16>(load<u16>(header + field))
}

export function iposStore16(header: u32, field: u32, value: u32): void {
  store<u16>(header + field, bswap<u16>(<u16>value))
}

export function iposType(header: u32): u32 {
  return load<u8>(header + IPOS_TYPE)
}

export function iposProtocol(header: u32): u32 {
  return load<u8>(header + IPOS_PROTOCOL)
}

export function iposSource(header: u32): u32 {
  return iposLoad32(header, IPOS_SOURCE_ADDRESS)
}

export function iposSourcePort(header: u32): u32 {
  return iposLoad16(header, IPOS_SOURCE_PORT)
}

export function iposDestination(header: u32): u32 {
  return iposLoad32(header, IPOS_DESTINATION_ADDRESS)
}

/** The thread port. */
export function iposThread(header: u32): u32 {
  return iposLoad16(header, IPOS_DESTINATION_PORT)
}

/** Connection information: the address that the client uses. */
export function iposServer(header: u32): u32 {
  return iposLoad32(header, IPOS_SERVER_ADDRESS)
}

export function iposServerPort(header: u32): u32 {
  return iposLoad16(header, IPOS_SERVER_PORT)
}

/** Writes the 16 bytes, checksum 0. */
export function iposHeader(
  header: u32,
  type: u32,
  protocol: u32,
  source: u32,
  sourcePort: u32,
  destination: u32,
  thread: u32,
): void {
  const ports = (destination << 16) | thread
  storeWords(header, source, (sourcePort << 16) | (destination >>> 16), ports, (type << 24) | (protocol << 16))
}

/** Fills in the checksum, which is 0 so far. @param sum unfolded, of the header and what follows it */
export function iposSeal(header: u32, sum: u32): void {
  store<u16>(header + IPOS_CHECKSUM, <u16>checksumFinish(sum))
}

/** True if the checksum over the `bytes` bytes of the frame is right; zeros behind the payload do not change it. */
export function iposIsSound(header: u32, bytes: u32): bool {
  return bytes >= <u32>IPOS_HEADER_BYTES && checksumFold(checksumAdd(header, bytes, 0)) == 0xffff
}
