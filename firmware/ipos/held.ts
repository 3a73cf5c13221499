import { DROP_HELD } from '../../abi/trace.ts'
import { drop } from '../hal/trace.ts'
import { copyBytes } from '../mem/bytes.ts'
import { CHUNK_BYTES, chunkAddress, chunkAllocate, chunkMeta, chunkRelease, chunksAreScarce } from '../mem/chunk.ts'
import { ipv4Deliver } from '../net/ipv4.ts'
import { Tcb } from '../tcp/tcb.ts'
import { ipv4TotalBytes } from '../wire/ipv4.ts'
import { Forward } from './forward.ts'
import { migrationOf } from './migration.ts'
import { relay } from './relay.ts'

/** The client's packets that come while an endpoint moves: kept, within bounds, and then served wherever it lives. */
const HELD_PACKETS: u32 = 64

/** Keeps a packet. One too many is dropped, as on a busy link: the client sends it again. @param packet its IPv4 header, checked */
export function hold(tcb: Tcb, packet: u32): void {
  const m = migrationOf(tcb)
  const bytes = ipv4TotalBytes(packet)
  const room = m.heldCount < HELD_PACKETS && bytes <= CHUNK_BYTES && !chunksAreScarce()
  const chunk = room ? chunkAllocate() : 0
  if (!chunk) {
    drop(DROP_HELD, tcb.handle, bytes)
    return
  }
  copyBytes(chunkAddress(chunk), packet, bytes)
  if (m.heldTail) chunkMeta(m.heldTail).next = chunk
  else m.heldHead = chunk
  m.heldTail = chunk
  m.heldCount++
}

/** Serves packets that were held, here. @param chunk list, which is freed @param port by which such packets come */
export function heldReplay(chunk: u32, port: u32): void {
  while (chunk) {
    const next = chunkMeta(chunk).next
    ipv4Deliver(port, chunkAddress(chunk), true)
    chunkRelease(chunk)
    chunk = next
  }
}

/** Sends packets that were held on. @param chunk list, which is freed */
export function heldRelay(chunk: u32, row: Forward): void {
  while (chunk) {
    const next = chunkMeta(chunk).next
    relay(row, chunkAddress(chunk))
    chunkRelease(chunk)
    chunk = next
  }
}
