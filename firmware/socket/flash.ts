import { BOOT_TRIAL, BOOT_UPDATE_BYTES, BOOT_UPDATE_OFFSET } from '../../abi/boot.ts'
import { BOOT_BASE } from '../../abi/memory.ts'
import {
  COMMAND_A,
  COMMAND_B,
  COMMAND_FLAGS,
  COMMAND_HEADER_BYTES,
  COMMAND_SOCKET,
  EVENT_COOKIE,
  EVENT_FLASH,
  EVENT_STATUS,
  EVENT_TYPE,
  EVENT_VALUE,
  FLASH_OP_CONFIRM,
  FLASH_OP_ERASE,
  FLASH_OP_READ,
  FLASH_OP_WRITE,
  MAXIMUM_FLASH_BYTES,
  RX_FLASH,
  RX_HEADER_BYTES,
  RX_LENGTH,
  RX_SOCKET,
  RX_TYPE,
} from '../../abi/messages.ts'
import { FLASH_COMMAND_ERASE, FLASH_COMMAND_READ, FLASH_COMMAND_WRITE, FLASH_OK } from '../../abi/registers.ts'
import { QUEUE_RX } from '../../abi/rings.ts'
import { STATUS_EAGAIN, STATUS_EINVAL, STATUS_EIO, STATUS_OK } from '../../abi/status.ts'
import { flashBusy, flashConfirm, flashStart, flashStatus } from '../hal/flash.ts'
import { clearBytes } from '../mem/bytes.ts'
import { chunkAddress, chunkMeta, chunkRelease, chunkReleaseList } from '../mem/chunk.ts'
import { state } from '../state.ts'
import { deliverAnswer } from './answer.ts'
import { deliverRecord, eventScratch, queueEnabled } from './deliver.ts'

/**
 * Updates: the host reads and writes the slot for them, piece by piece, and has the running image confirmed. The chunk that brought the
 * command is what the flash controller works on. What an update is, and when, is the host's to know.
 */

function boot(field: u32): u32 {
  return load<u32>(BOOT_BASE + field)
}

/** OP_FLASH; takes over the record's chunks. */
export function flashCommand(set: u32, record: u32, head: u32): void {
  const st = state()
  const cookie = load<u32>(record + COMMAND_SOCKET)
  const op: u32 = load<u16>(record + COMMAND_FLAGS)
  const offset = load<u32>(record + COMMAND_A)
  const bytes = load<u32>(record + COMMAND_B)
  let status = STATUS_OK
  if (st.flashChunk) status = STATUS_EAGAIN
  else if (!valid(op, offset, bytes, chunkMeta(head).length)) status = STATUS_EINVAL
  if (status != STATUS_OK || (op == FLASH_OP_CONFIRM && boot(BOOT_TRIAL) == 0)) {
    answer(set, cookie, status, 0)
    chunkReleaseList(head)
    return
  }
  // Only the first chunk is needed; a record that has more is none that we know.
  chunkReleaseList(chunkMeta(head).next)
  chunkMeta(head).next = 0
  st.flashChunk = head
  st.flashSet = set
  st.flashCookie = cookie
  st.flashOp = op
  st.flashBytes = bytes
  const buffer = chunkAddress(head) + COMMAND_HEADER_BYTES
  const address = boot(BOOT_UPDATE_OFFSET) + offset
  if (op == FLASH_OP_READ) flashStart(FLASH_COMMAND_READ, address, buffer, bytes)
  else if (op == FLASH_OP_WRITE) flashStart(FLASH_COMMAND_WRITE, address, buffer, bytes)
  else if (op == FLASH_OP_ERASE) flashStart(FLASH_COMMAND_ERASE, address, buffer, bytes)
  else flashConfirm(buffer)
}

function valid(op: u32, offset: u32, bytes: u32, recordBytes: u32): bool {
  const slotBytes = boot(BOOT_UPDATE_BYTES)
  if (slotBytes == 0) return false
  if (op == FLASH_OP_CONFIRM) return true
  if (bytes == 0 || <u64>offset + bytes > slotBytes) return false
  if (op == FLASH_OP_ERASE) return true
  if (bytes > <u32>MAXIMUM_FLASH_BYTES) return false
  return op == FLASH_OP_READ || (op == FLASH_OP_WRITE && recordBytes == COMMAND_HEADER_BYTES + bytes)
}

/** Once a poll: answers a command that the flash controller has carried out. */
export function flashServe(): void {
  const st = state()
  if (!st.flashChunk || flashBusy()) return
  const set = st.flashSet
  const result = flashStatus()
  if (queueEnabled(set, QUEUE_RX)) {
    if (result != FLASH_OK) answer(set, st.flashCookie, STATUS_EIO, result)
    else if (st.flashOp != FLASH_OP_READ) {
      if (st.flashOp == FLASH_OP_CONFIRM) store<u32>(BOOT_BASE + BOOT_TRIAL, 0)
      answer(set, st.flashCookie, STATUS_OK, 0)
    } else if (!deliverRead(set)) return // when the host has a buffer
  }
  chunkRelease(st.flashChunk)
  st.flashChunk = 0
}

function deliverRead(set: u32): bool {
  const st = state()
  const header = st.udpHeader
  clearBytes(header, RX_HEADER_BYTES)
  store<u16>(header + RX_TYPE, <u16>RX_FLASH)
  store<u32>(header + RX_SOCKET, st.flashCookie)
  store<u32>(header + RX_LENGTH, st.flashBytes)
  const payload = chunkAddress(st.flashChunk) + COMMAND_HEADER_BYTES
  return deliverRecord(set, header, RX_HEADER_BYTES, payload, st.flashBytes, true)
}

function answer(set: u32, cookie: u32, status: u32, value: u32): void {
  const event = eventScratch()
  store<u16>(event + EVENT_TYPE, <u16>EVENT_FLASH)
  store<u16>(event + EVENT_STATUS, <u16>status)
  store<u32>(event + EVENT_COOKIE, cookie)
  store<u32>(event + EVENT_VALUE, value)
  deliverAnswer(set, event)
}
