import { PANIC_POOL, panic } from '../hal/panic.ts'
import { state } from '../state.ts'
import { carve, carveBuffers } from './carve.ts'

/**
 * Chunks: the only buffers for queued data. A connection holds chunks only while it holds bytes. A chunk is named by its
 * index; 0 names none. What is known of a chunk stands beside the pool, not in it, so payload keeps its alignment:
 *
 *      meta   ├─next──┬─offset─┬─length─┬─sequence──┬─word──┤
 *             0       4        6        8           12      16
 */
export const CHUNK_BYTES: u32 = 2048
export const CHUNK_META_BYTES: u32 = 16

@unmanaged
export class ChunkMeta {
  /** Next chunk of the same list, 0 = last. */
  next: u32
  /** First byte in use. */
  offset: u16
  /** Bytes in use from `offset` on. */
  length: u16
  /** TCP sequence number of the first byte in use, where the list needs it. */
  sequence: u32
  /** Free for the list's owner. */
  word: u32
}

/** Carves the pool. @param bytes of payload; at least one chunk */
export function chunkInitialize(bytes: u32): void {
  const st = state()
  const count = bytes / CHUNK_BYTES
  st.chunkBase = carveBuffers((count + 1) * CHUNK_BYTES)
  st.chunkMeta = carve((count + 1) * CHUNK_META_BYTES)
  st.chunkCount = count
  st.chunkFreeCount = count
  st.chunkFree = 1
  for (let i: u32 = 1; i < count; i++) chunkMeta(i).next = i + 1
  chunkMeta(count).next = 0
}

export function chunkMeta(chunk: u32): ChunkMeta {
  return changetype<ChunkMeta>(state().chunkMeta + chunk * CHUNK_META_BYTES)
}

/** Address of the chunk's first byte, in use or not. */
export function chunkAddress(chunk: u32): u32 {
  return state().chunkBase + chunk * CHUNK_BYTES
}

/** Index of the chunk that starts at `address`. */
export function chunkOfAddress(address: u32): u32 {
  return (address - state().chunkBase) / CHUNK_BYTES
}

/** Takes a chunk with empty meta, or returns 0 if there is none. */
export function chunkAllocate(): u32 {
  const st = state()
  const chunk = st.chunkFree
  if (!chunk) return 0
  const meta = chunkMeta(chunk)
  st.chunkFree = meta.next
  st.chunkFreeCount--
  meta.next = 0
  meta.offset = 0
  meta.length = 0
  return chunk
}

/** Gives one chunk back. */
export function chunkRelease(chunk: u32): void {
  const st = state()
  if (chunk == 0 || chunk > st.chunkCount) panic(PANIC_POOL, chunk)
  chunkMeta(chunk).next = st.chunkFree
  st.chunkFree = chunk
  st.chunkFreeCount++
}

/** Gives back a whole list. */
export function chunkReleaseList(head: u32): void {
  while (head) {
    const next = chunkMeta(head).next
    chunkRelease(head)
    head = next
  }
}

/** True while so few chunks are free that only progress, not more queueing, should take them. */
export function chunksAreScarce(): bool {
  const st = state()
  return st.chunkFreeCount < st.chunkCount >>> 3
}
