/**
 * Answers every frame with the same frame, source and destination exchanged, on the port it came from; at most 16 a poll. The first
 * frame of a port that has BOOT_INTERFACE_ADDRESS set is its own: it sends that many frames of 64 bytes at its first poll.
 */
import {
  BOOT_INTERFACE_ADDRESS,
  BOOT_INTERFACE_BYTES,
  BOOT_INTERFACE_GATEWAY,
  BOOT_INTERFACES,
} from '../../abi/boot.ts'
import { BOOT_BASE } from '../../abi/memory.ts'
import { MAC_ADDRESS_HIGH, MAC_ADDRESS_LOW, MAC_BLOCK, MAC_STRIDE } from '../../abi/registers.ts'
import { DESCRIPTOR_BYTES, OWNER_DEVICE, OWNER_FIRMWARE } from '../../abi/rings.ts'
import { buffer, get, RING_ENTRIES, ring, SLOT_BYTES, start, startPort, VARIABLES } from './card.as.ts'

export function reset(): void {
  startPort(0)
  startPort(1)
  start()
}

export function poll(_irqs: u32): u32 {
  if (!load<u32>(VARIABLES, 0x800)) {
    store<u32>(VARIABLES, 1, 0x800)
    for (let port: u32 = 0; port < 2; port++) send(port)
  }
  let more: u32 = 0xffffffff
  for (let port: u32 = 0; port < 2; port++) if (serve(port)) more = 0
  return more
}

function transmit(port: u32, length: u32): u32 {
  const txNext = load<u32>(VARIABLES + port * 8, 4)
  const slot = txNext & (RING_ENTRIES - 1)
  const at = ring(2 * port + 1) + slot * DESCRIPTOR_BYTES
  if (load<u32>(at, 12) != OWNER_FIRMWARE) return 0
  store<u32>(at, length, 4)
  store<u32>(at, OWNER_DEVICE, 12)
  store<u32>(VARIABLES + port * 8, txNext + 1, 4)
  return buffer(2 * port + 1, slot)
}

function own(port: u32, at: u32): void {
  const block = MAC_BLOCK + port * MAC_STRIDE
  store<u16>(at, bswap<u16>(<u16>get(block + MAC_ADDRESS_HIGH)))
  store<u32>(at, bswap<u32>(get(block + MAC_ADDRESS_LOW)), 2)
}

function send(port: u32): void {
  const settings = BOOT_BASE + BOOT_INTERFACES + port * BOOT_INTERFACE_BYTES
  const frames = load<u32>(settings + BOOT_INTERFACE_ADDRESS)
  let length = load<u32>(settings + BOOT_INTERFACE_GATEWAY)
  if (!length) length = 64
  for (let n: u32 = 0; n < frames; n++) {
    const at = transmit(port, length)
    if (!at) return
    store<u32>(at, 0xffffffff)
    store<u16>(at, 0xffff, 4)
    own(port, at + 6)
    store<u16>(at, 0xb588, 12) // IEEE 802 local experimental EtherType 0x88b5
    store<u32>(at, n, 14)
  }
}

/** True if frames are left. */
function serve(port: u32): bool {
  for (let n = 0; n < 16; n++) {
    const rxNext = load<u32>(VARIABLES + port * 8)
    const at = ring(2 * port) + (rxNext & (RING_ENTRIES - 1)) * DESCRIPTOR_BYTES
    if (load<u32>(at, 12) != OWNER_FIRMWARE) return false
    const length = load<u32>(at, 4)
    const from = load<u32>(at)
    const to = transmit(port, length)
    if (to) {
      memory.copy(to, from, length)
      memory.copy(to, from + 6, 6)
      own(port, to + 6)
    }
    store<u32>(at, SLOT_BYTES, 4)
    store<u32>(at, OWNER_DEVICE, 12)
    store<u32>(VARIABLES + port * 8, rxNext + 1)
  }
  return true
}
