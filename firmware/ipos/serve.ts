import { COMMIT_BYTES, COMMIT_RECEIVE_END, IPOS_COMMIT, IPOS_TCP } from '../../abi/ipos.ts'
import { state } from '../state.ts'
import { tableRemoveForward } from '../tcp/table.ts'
import { flowTurn } from './flow.ts'
import {
  FORWARDING,
  Forward,
  forwardAt,
  forwardDue,
  forwardFree,
  forwardList,
  LIST_REPEAT,
  LIST_REST,
  REST_MS,
} from './forward.ts'
import { iposBegin, iposCommit } from './frame.ts'
import { namesOfRow, releaseRepeat } from './release.ts'

/** Rows that one poll serves. */
const PER_POLL: u32 = 256

/** Serves the rows of the Forward table whose turn has come. */
export function forwardServe(): void {
  for (let n: u32 = 0; n < PER_POLL; n++) {
    const index = forwardDue(LIST_REPEAT)
    if (!index) break
    if (<u32>forwardAt(index).protocol == IPOS_TCP) releaseRepeat(index)
    else flowTurn(index)
  }
  for (let n: u32 = 0; n < PER_POLL; n++) {
    const index = forwardDue(LIST_REST)
    if (!index) return
    if (<u32>forwardAt(index).protocol == IPOS_TCP) rested(index)
    else flowTurn(index)
  }
}

/** A row that sends on was not looked at for a minute. */
function rested(index: u32): void {
  const row = forwardAt(index)
  const used = state().nowMs - row.usedMs < REST_MS
  if (row.kind == FORWARDING) {
    // Nothing was heard of the client: is there still anybody to forward to?
    if (!used) ask(row)
  } else if (!used) {
    tableRemoveForward(index)
    forwardFree(index)
    return
  }
  forwardList(row, LIST_REST)
}

/** Asks where a row sends on to whether the endpoint is there. If not, the answer is a release. */
export function ask(row: Forward): void {
  const header = iposBegin(IPOS_COMMIT, row.peer, namesOfRow(row))
  if (!header) return
  memory.fill(header + COMMIT_RECEIVE_END, 0, COMMIT_BYTES - COMMIT_RECEIVE_END)
  iposCommit(header, row.peer, COMMIT_BYTES)
}
