import { EVENT_BYTES } from '../../abi/messages.ts'
import { QUEUE_SETS } from '../../abi/rings.ts'
import { CHUNK_BYTES, chunkAddress, chunkAllocate, chunkMeta, chunkRelease, chunkReleaseList } from '../mem/chunk.ts'
import { counters, state } from '../state.ts'
import { deliverEvent, queueSet } from './deliver.ts'

/**
 * Answers to commands (EVENT_LISTENING, EVENT_CONNECT_FAILED, ...). One that finds no event buffer waits in a chunk, and the
 * process gets no other event before it. They are bounded by process: a host that gives commands and takes no answers loses some.
 */
const WAITING_CHUNKS: u32 = 8
const PER_CHUNK: u32 = CHUNK_BYTES / EVENT_BYTES

/** Sends the answer to a command of queue set `set`, now or when there is a buffer. @param record EVENT_BYTES, copied */
export function deliverAnswer(set: u32, record: u32): void {
  const qs = queueSet(set)
  if (!qs.answers && deliverEvent(set, record)) return
  let tail = qs.answers
  let chunks: u32 = 0
  while (tail != 0 && chunkMeta(tail).next != 0) {
    tail = chunkMeta(tail).next
    chunks++
  }
  if (tail == 0 || <u32>chunkMeta(tail).length == PER_CHUNK) {
    const fresh = chunks < WAITING_CHUNKS ? chunkAllocate() : 0
    if (!fresh) {
      counters().recordsDropped++
      return
    }
    if (tail) chunkMeta(tail).next = fresh
    else {
      qs.answers = fresh
      state().answersWaiting++
    }
    tail = fresh
  }
  // Of these chunks, `length` counts answers, and `offset` those that are delivered.
  const meta = chunkMeta(tail)
  memory.copy(chunkAddress(tail) + meta.length * EVENT_BYTES, record, EVENT_BYTES)
  meta.length++
}

/** Delivers answers that wait, as far as there are buffers; once a poll, before anything else is delivered. */
export function answersServe(): void {
  if (!state().answersWaiting) return
  for (let set: u32 = 0; set < <u32>QUEUE_SETS; set++) serve(set)
}

function serve(set: u32): void {
  const qs = queueSet(set)
  const waiting = qs.answers
  if (!waiting) return
  // `deliverEvent` holds back whatever is not an answer.
  qs.answers = 0
  let chunk = waiting
  while (chunk) {
    const meta = chunkMeta(chunk)
    while (meta.offset < meta.length) {
      if (!deliverEvent(set, chunkAddress(chunk) + meta.offset * EVENT_BYTES)) {
        qs.answers = chunk
        return
      }
      meta.offset++
    }
    const next = meta.next
    chunkRelease(chunk)
    chunk = next
  }
  state().answersWaiting--
}

/** The process is gone. */
export function answersForget(set: u32): void {
  const qs = queueSet(set)
  if (!qs.answers) return
  chunkReleaseList(qs.answers)
  qs.answers = 0
  state().answersWaiting--
}
