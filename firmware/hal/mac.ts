import {
  MAC_ADDRESS_HIGH,
  MAC_ADDRESS_LOW,
  MAC_BLOCK,
  MAC_PORTS,
  MAC_RX_BASE,
  MAC_RX_ENTRIES,
  MAC_STRIDE,
  MAC_TX_BASE,
  MAC_TX_ENTRIES,
} from '../../abi/registers.ts'
import {
  DESCRIPTOR_ADDRESS,
  DESCRIPTOR_BYTES,
  DESCRIPTOR_LENGTH,
  DESCRIPTOR_OWNER,
  OWNER_DEVICE,
  OWNER_FIRMWARE,
} from '../../abi/rings.ts'
import { carve, carveBuffers } from '../mem/carve.ts'
import { readRegister, writeRegister } from './registers.ts'
import { halCounters, LOOPBACK_PORT, Port, port } from './state.ts'

/**
 * MAC rings. Nothing is allocated for a frame: entry i of a receive ring owns buffer i for good, and transmit buffers are taken in turn, from the
 * first on as soon as all have been sent, so that few of them are in use and those in the cache. The loopback port has the same rings, but the
 * firmware is at both ends of them.
 */
const RX_ENTRIES: u32 = 256
const TX_ENTRIES: u32 = 128
const LOOPBACK_ENTRIES: u32 = 128
/** Room for a frame of MAC_MAXIMUM_FRAME bytes. */
const SLOT_BYTES: u32 = 2048
/**
 * Of a frame in its slot. Behind 14 bytes of Ethernet header the packet begins at a multiple of 4, and the payload of most packets does: DMA
 * copies by words, and so does a link from slot to slot.
 */
const FRAME_OFFSET: u32 = 2
const FRAME_BYTES: u32 = SLOT_BYTES - FRAME_OFFSET

export function macInitialize(): void {
  for (let i: u32 = 0; i < <u32>MAC_PORTS; i++) {
    const p = port(i)
    receiveRing(p, carve(RX_ENTRIES * DESCRIPTOR_BYTES), RX_ENTRIES, OWNER_FIRMWARE)
    const rxBuffers = carveBuffers(RX_ENTRIES * SLOT_BYTES)
    for (let slot: u32 = 0; slot < RX_ENTRIES; slot++) {
      const descriptor = p.rxBase + slot * DESCRIPTOR_BYTES
      store<u32>(descriptor + DESCRIPTOR_ADDRESS, rxBuffers + slot * SLOT_BYTES + FRAME_OFFSET)
      store<u32>(descriptor + DESCRIPTOR_LENGTH, FRAME_BYTES)
      store<u32>(descriptor + DESCRIPTOR_OWNER, OWNER_DEVICE)
    }
    transmitRing(i, TX_ENTRIES)
    const block = MAC_BLOCK + i * MAC_STRIDE
    writeRegister(block + MAC_RX_BASE, p.rxBase)
    writeRegister(block + MAC_RX_ENTRIES, RX_ENTRIES)
    writeRegister(block + MAC_TX_BASE, p.txBase)
    writeRegister(block + MAC_TX_ENTRIES, TX_ENTRIES)
  }
  transmitRing(LOOPBACK_PORT, LOOPBACK_ENTRIES)
  // Here the sender's "device" is the receiver.
  const loopback = port(LOOPBACK_PORT)
  receiveRing(loopback, loopback.txBase, LOOPBACK_ENTRIES, OWNER_DEVICE)
}

function receiveRing(p: Port, base: u32, entries: u32, owner: u32): void {
  p.rxBase = p.rxNext = base
  p.rxEnd = base + entries * DESCRIPTOR_BYTES
  p.rxOwner = owner
}

function transmitRing(index: u32, entries: u32): void {
  const p = port(index)
  p.txBase = p.txNext = carve(entries * DESCRIPTOR_BYTES)
  p.txEnd = p.txBase + entries * DESCRIPTOR_BYTES
  p.txBuffers = carveBuffers(entries * SLOT_BYTES) + FRAME_OFFSET
}

/** The port's own MAC address as a 48-bit number, first byte highest. */
export function macAddress(index: u32): u64 {
  const block = MAC_BLOCK + index * MAC_STRIDE
  return ((<u64>readRegister(block + MAC_ADDRESS_HIGH)) << 32) | readRegister(block + MAC_ADDRESS_LOW)
}

/** Address of the buffer of the next transmit slot, SLOT_BYTES long, or 0 if the ring is full. Nothing is sent until `transmitCommit`. */
export function transmitClaim(index: u32): u32 {
  const p = port(index)
  const descriptor = p.txNext
  if (load<u32>(descriptor + DESCRIPTOR_OWNER) != OWNER_FIRMWARE) {
    halCounters().transmitBusy++
    return 0
  }
  // Slots come free in order: where the last one is, all are.
  const last = (descriptor == p.txBase ? p.txEnd : descriptor) - DESCRIPTOR_BYTES
  let buffer = p.txBuffers
  if (load<u32>(last + DESCRIPTOR_OWNER) != OWNER_FIRMWARE) {
    const next = load<u32>(last + DESCRIPTOR_ADDRESS) + SLOT_BYTES
    if (next != buffer + ((p.txEnd - p.txBase) / DESCRIPTOR_BYTES) * SLOT_BYTES) buffer = next
  }
  store<u32>(descriptor + DESCRIPTOR_ADDRESS, buffer)
  return buffer
}

/** Sends the slot that `transmitClaim` gave. @param bytes of the frame, 14..MAC_MAXIMUM_FRAME */
export function transmitCommit(index: u32, bytes: u32): void {
  const p = port(index)
  const descriptor = p.txNext
  store<u32>(descriptor + DESCRIPTOR_LENGTH, bytes)
  store<u32>(descriptor + DESCRIPTOR_OWNER, OWNER_DEVICE)
  const next = descriptor + DESCRIPTOR_BYTES
  p.txNext = next == p.txEnd ? p.txBase : next
  halCounters().framesOut++
}

/** True if the next `count` transmit slots are free. Slots come free in order, so the last one speaks for all. */
export function transmitHasRoom(index: u32, count: u32): bool {
  const p = port(index)
  const bytes = count * DESCRIPTOR_BYTES
  if (bytes > p.txEnd - p.txBase) return false
  let last = p.txNext + bytes - DESCRIPTOR_BYTES
  if (last >= p.txEnd) last -= p.txEnd - p.txBase
  return load<u32>(last + DESCRIPTOR_OWNER) == OWNER_FIRMWARE
}

/** Descriptor of the next received frame, or 0 if there is none. Its buffer stays the firmware's until `receiveDone`. */
export function receiveNext(index: u32): u32 {
  const p = port(index)
  const descriptor = p.rxNext
  return load<u32>(descriptor + DESCRIPTOR_OWNER) == p.rxOwner ? descriptor : 0
}

/**
 * Gives the received frame's slot back. Devices act only between polls and deliver before they receive, so a deliver
 * record may still point into it until the end of this poll.
 */
export function receiveDone(index: u32, descriptor: u32): void {
  const p = port(index)
  const next = descriptor + DESCRIPTOR_BYTES
  p.rxNext = next == p.rxEnd ? p.rxBase : next
  if (index == LOOPBACK_PORT) {
    // Reused within a poll, so what was delivered from it has been copied (socket/deliver.ts).
    store<u32>(descriptor + DESCRIPTOR_OWNER, OWNER_FIRMWARE)
    return
  }
  store<u32>(descriptor + DESCRIPTOR_LENGTH, FRAME_BYTES)
  store<u32>(descriptor + DESCRIPTOR_OWNER, OWNER_DEVICE)
}
