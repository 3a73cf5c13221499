import { COMMAND_HEADER_BYTES, COMMAND_OP } from '../../abi/messages.ts'
import { FETCH_BASE, FETCH_ENTRIES } from '../../abi/registers.ts'
import {
  DESCRIPTOR_ADDRESS,
  DESCRIPTOR_BYTES,
  DESCRIPTOR_INFO,
  DESCRIPTOR_LENGTH,
  DESCRIPTOR_OWNER,
  INFO_FIRST,
  INFO_LAST,
  INFO_QUEUE_MASK,
  OWNER_DEVICE,
  OWNER_FIRMWARE,
  QUEUE_CONTROL,
  QUEUES_PER_SET,
} from '../../abi/rings.ts'
import { writeRegister } from '../hal/registers.ts'
import { carve } from '../mem/carve.ts'
import { CHUNK_BYTES, chunkAddress, chunkAllocate, chunkMeta, chunkOfAddress, chunkReleaseList } from '../mem/chunk.ts'
import { counters, state } from '../state.ts'
import { reclaimStalled } from '../tcp/reclaim.ts'
import { controlCommand, streamCommand } from './command.ts'
import { queueEnabled } from './deliver.ts'

/**
 * Host to card. The firmware keeps the fetch ring filled with empty chunks; the DMA engine puts the host's records into them;
 * a record's chunks become, without a copy, the send queue of its connection.
 */
const ENTRIES: u32 = 256
/** Chunks that fetching leaves for the receiving side. */
const RESERVED_CHUNKS: u32 = 64

export function fetchInitialize(): void {
  const st = state()
  st.fetchBase = carve(ENTRIES * DESCRIPTOR_BYTES)
  writeRegister(FETCH_BASE, st.fetchBase)
  writeRegister(FETCH_ENTRIES, ENTRIES)
}

function descriptorAt(index: u32): u32 {
  return state().fetchBase + (index & (ENTRIES - 1)) * DESCRIPTOR_BYTES
}

/** Gives the DMA engine chunks to fill. */
export function fetchRefill(): void {
  const st = state()
  const reserve = max<u32>(st.chunkCount >>> 4, RESERVED_CHUNKS)
  while (st.fetchPosted - st.fetchNext < ENTRIES && st.chunkFreeCount > reserve) {
    const chunk = chunkAllocate()
    const descriptor = descriptorAt(st.fetchPosted)
    store<u32>(descriptor + DESCRIPTOR_ADDRESS, chunkAddress(chunk))
    store<u32>(descriptor + DESCRIPTOR_LENGTH, CHUNK_BYTES)
    store<u32>(descriptor + DESCRIPTOR_OWNER, OWNER_DEVICE)
    st.fetchPosted++
  }
  // Not one record can come: somebody holds too much.
  if (st.fetchPosted == st.fetchNext && reclaimStalled()) fetchRefill()
}

/** Carries out the records that have come. */
export function fetchServe(): void {
  const st = state()
  while (st.fetchNext != st.fetchPosted) {
    const descriptor = descriptorAt(st.fetchNext)
    if (load<u32>(descriptor + DESCRIPTOR_OWNER) != OWNER_FIRMWARE) return
    st.fetchNext++
    const chunk = chunkOfAddress(load<u32>(descriptor + DESCRIPTOR_ADDRESS))
    const info = load<u32>(descriptor + DESCRIPTOR_INFO)
    if (info & INFO_FIRST) {
      // The process of a record that never became whole is gone.
      chunkReleaseList(st.fetchHead)
      st.fetchHead = st.fetchTail = 0
    }
    chunkMeta(chunk).length = <u16>load<u32>(descriptor + DESCRIPTOR_LENGTH)
    if (st.fetchTail) chunkMeta(st.fetchTail).next = chunk
    else st.fetchHead = chunk
    st.fetchTail = chunk
    if ((info & INFO_LAST) == 0) continue
    const head = st.fetchHead
    st.fetchHead = st.fetchTail = 0
    dispatch(info & INFO_QUEUE_MASK, head)
  }
}

function dispatch(queue: u32, head: u32): void {
  const record = chunkAddress(head)
  const set = queue / QUEUES_PER_SET
  if (!queueEnabled(set, queue % QUEUES_PER_SET)) {
    // The last words of a process that is gone.
    chunkReleaseList(head)
    return
  }
  if (<u32>chunkMeta(head).length < <u32>COMMAND_HEADER_BYTES) {
    counters().commandsBad++
    chunkReleaseList(head)
    return
  }
  const op: u32 = load<u16>(record + COMMAND_OP)
  if (queue % QUEUES_PER_SET == QUEUE_CONTROL) {
    controlCommand(set, op, record, head)
    chunkReleaseList(head)
  } else streamCommand(set, op, record, head)
}
