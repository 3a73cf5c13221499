/** What the test firmware shares: registers, rings carved at fixed addresses, the UART. */
import { REGISTER_BASE } from '../../abi/memory.ts'
import {
  DELIVER_BASE,
  DELIVER_ENTRIES,
  FETCH_BASE,
  FETCH_ENTRIES,
  IRQ_ALL,
  IRQ_ENABLE,
  MAC_BLOCK,
  MAC_RX_BASE,
  MAC_RX_ENTRIES,
  MAC_STRIDE,
  MAC_TX_BASE,
  MAC_TX_ENTRIES,
  QUEUE_STATUS_BASE,
  SYS_READY,
  UART_BASE,
  UART_BYTES,
  UART_HEAD,
} from '../../abi/registers.ts'
import { DESCRIPTOR_BYTES, OWNER_DEVICE } from '../../abi/rings.ts'

export const RING_ENTRIES: u32 = 64
export const SLOT_BYTES: u32 = 2048
export const UART_RING: u32 = 0x20000
export const UART_RING_BYTES: u32 = 1024
export const STATUS_TABLE: u32 = 0x21000
/** Firmware variables, 4 KiB. */
export const VARIABLES: u32 = 0x22000
/** Rings of descriptors: RX and TX of each port, fetch, deliver; 4 KiB each. */
export const RINGS: u32 = 0x30000
/** Buffers: 128 KiB for each ring. */
export const BUFFERS: u32 = 0x100000

export const FETCH_RING: u32 = 6
export const DELIVER_RING: u32 = 7

export function get(register: u32): u32 {
  return load<u32>(REGISTER_BASE + register)
}

export function set(register: u32, value: u32): void {
  store<u32>(REGISTER_BASE + register, value)
}

export function ring(index: u32): u32 {
  return RINGS + index * 0x1000
}

export function buffer(index: u32, slot: u32): u32 {
  return BUFFERS + index * 0x20000 + slot * SLOT_BYTES
}

/** Gives each descriptor of a ring a buffer of SLOT_BYTES. */
export function fillRing(index: u32, owner: u32): void {
  for (let slot: u32 = 0; slot < RING_ENTRIES; slot++) {
    const at = ring(index) + slot * DESCRIPTOR_BYTES
    store<u32>(at, buffer(index, slot))
    store<u32>(at, SLOT_BYTES, 4)
    store<u32>(at, owner, 12)
  }
}

/** Switches a port on; RX ring 2 * port, TX ring 2 * port + 1. */
export function startPort(port: u32): void {
  const block = MAC_BLOCK + port * MAC_STRIDE
  fillRing(2 * port, OWNER_DEVICE)
  fillRing(2 * port + 1, 0)
  set(block + MAC_RX_BASE, ring(2 * port))
  set(block + MAC_RX_ENTRIES, RING_ENTRIES)
  set(block + MAC_TX_BASE, ring(2 * port + 1))
  set(block + MAC_TX_ENTRIES, RING_ENTRIES)
}

export function startDma(): void {
  fillRing(FETCH_RING, OWNER_DEVICE)
  fillRing(DELIVER_RING, 0)
  set(FETCH_BASE, ring(FETCH_RING))
  set(FETCH_ENTRIES, RING_ENTRIES)
  set(DELIVER_BASE, ring(DELIVER_RING))
  set(DELIVER_ENTRIES, RING_ENTRIES)
  set(QUEUE_STATUS_BASE, STATUS_TABLE)
}

export function start(): void {
  set(UART_BASE, UART_RING)
  set(UART_BYTES, UART_RING_BYTES)
  set(IRQ_ENABLE, IRQ_ALL)
  set(SYS_READY, 1)
}

export function putByte(byte: u32): void {
  const head = get(UART_HEAD)
  store<u8>(UART_RING + (head & (UART_RING_BYTES - 1)), <u8>byte)
  set(UART_HEAD, head + 1)
}

/** Prints the characters of a string, which lies in the data segment. */
export function print(text: string): void {
  for (let i = 0; i < text.length; i++) putByte(text.charCodeAt(i))
}

export function printNumber(value: u32): void {
  if (value >= 10) printNumber(value / 10)
  putByte(48 + (value % 10))
}

export function abort(_message: string | null, _file: string | null, _line: u32, _column: u32): void {
  unreachable()
}
