import { state } from '../state.ts'
import { Tcb, tcbAt, tcbIndex } from '../tcp/tcb.ts'
import { carve } from './carve.ts'

/**
 * Timer wheel: one slot a millisecond, SLOTS of them, a doubly linked list of TCBs in each, and a bitmap of the slots
 * in use, so that the next one is found in a few instructions. A TCB is in at most one slot, that of its nearest deadline
 * or an earlier one: a deadline that moves away does not move the TCB, it is looked at early and put back.
 */
const SLOTS: u32 = 4096
/** tcb.timerSlot of a TCB that is in no slot. Slots are stored plus one, so that a zeroed TCB is in none. */
const NONE: u32 = 0

export function wheelInitialize(): void {
  const st = state()
  st.wheelSlots = carve(SLOTS * 4)
  st.wheelBitmap = carve(SLOTS / 8)
  st.wheelMs = st.nowMs
}

/** Makes sure that the TCB is looked at no later than `deadlineMs`, and not before the next millisecond. */
export function timerArm(tcb: Tcb, deadlineMs: u32): void {
  const st = state()
  let delta = <i32>(deadlineMs - st.wheelMs)
  if (<i32>(deadlineMs - st.nowMs) <= 0) delta = <i32>(st.nowMs + 1 - st.wheelMs)
  if (delta < 0) delta = 0
  if (delta > <i32>SLOTS - 1) delta = <i32>SLOTS - 1
  const ms = st.wheelMs + delta
  if (tcb.timerSlot != NONE) {
    if (<i32>(tcb.timerMs - ms) <= 0) return
    timerCancel(tcb)
  }
  const slot = ms & (SLOTS - 1)
  const head = st.wheelSlots + slot * 4
  const first = load<u32>(head)
  const index = tcbIndex(tcb)
  tcb.timerMs = ms
  tcb.timerSlot = slot + 1
  tcb.timerNext = first
  tcb.timerPrevious = 0
  if (first) tcbAt(first).timerPrevious = index
  else markSlot(slot)
  store<u32>(head, index)
}

/** Takes the TCB out of the wheel. */
export function timerCancel(tcb: Tcb): void {
  if (tcb.timerSlot == NONE) return
  const slot = tcb.timerSlot - 1
  tcb.timerSlot = NONE
  if (tcb.timerNext) tcbAt(tcb.timerNext).timerPrevious = tcb.timerPrevious
  if (tcb.timerPrevious) {
    tcbAt(tcb.timerPrevious).timerNext = tcb.timerNext
    return
  }
  store<u32>(state().wheelSlots + slot * 4, tcb.timerNext)
  if (!tcb.timerNext) clearSlot(slot)
}

/** Takes out and returns the next TCB whose millisecond has come, or 0. */
export function wheelTake(): u32 {
  const st = state()
  const distance = nextDistance()
  if (distance < 0 || <i32>(st.wheelMs + distance - st.nowMs) > 0) {
    st.wheelMs = st.nowMs
    return 0
  }
  st.wheelMs += distance
  const index = load<u32>(st.wheelSlots + (st.wheelMs & (SLOTS - 1)) * 4)
  timerCancel(tcbAt(index))
  return index
}

/** Milliseconds until a slot in use comes up, or -1 if the wheel is empty. */
export function wheelNextMs(): i32 {
  const st = state()
  const distance = nextDistance()
  if (distance < 0) return -1
  const ms = <i32>(st.wheelMs + distance - st.nowMs)
  return ms < 0 ? 0 : ms
}

function nextDistance(): i32 {
  const st = state()
  const position = st.wheelMs & (SLOTS - 1)
  const word = position >>> 6
  let bits = load<u64>(st.wheelBitmap + word * 8) & ((<u64>-1) << (<u64>position & 63))
  let found = word
  if (!bits) {
    const above = word == 63 ? 0 : st.wheelSummary & ((<u64>-1) << (<u64>word + 1))
    const candidates = above ? above : st.wheelSummary
    if (!candidates) return -1
    found = <u32>ctz<u64>(candidates)
    bits = load<u64>(st.wheelBitmap + found * 8)
  }
  return <i32>((found * 64 + <u32>ctz<u64>(bits) - position) & (SLOTS - 1))
}

function markSlot(slot: u32): void {
  const st = state()
  const word = st.wheelBitmap + (slot >>> 6) * 8
  store<u64>(word, load<u64>(word) | ((<u64>1) << (<u64>slot & 63)))
  st.wheelSummary |= (<u64>1) << (<u64>slot >>> 6)
}

function clearSlot(slot: u32): void {
  const st = state()
  const word = st.wheelBitmap + (slot >>> 6) * 8
  const bits = load<u64>(word) & ~((<u64>1) << (<u64>slot & 63))
  store<u64>(word, bits)
  if (!bits) st.wheelSummary &= ~((<u64>1) << (<u64>slot >>> 6))
}
