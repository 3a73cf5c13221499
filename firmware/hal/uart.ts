import { UART_BASE, UART_BYTES, UART_HEAD, UART_TAIL } from '../../abi/registers.ts'
import { carve } from '../mem/carve.ts'
import { readRegister, writeRegister } from './registers.ts'
import { hal } from './state.ts'

const RING_BYTES: u32 = 4096

export function uartInitialize(): void {
  const st = hal()
  st.uartBase = carve(RING_BYTES)
  writeRegister(UART_BASE, st.uartBase)
  writeRegister(UART_BYTES, RING_BYTES)
}

/** Writes one byte to the console; lost if the ring is full. */
export function uartByte(byte: u32): void {
  const st = hal()
  if (st.uartHead - readRegister(UART_TAIL) >= RING_BYTES) return
  store<u8>(st.uartBase + (st.uartHead & (RING_BYTES - 1)), byte)
  st.uartHead++
  writeRegister(UART_HEAD, st.uartHead)
}

/** Writes the characters of a string constant (Latin-1); no newline is added. */
export function uartText(text: string): void {
  for (let i = 0; i < text.length; i++) uartByte(text.charCodeAt(i))
}

/** Writes a number in decimal. */
export function uartNumber(value: u32): void {
  let divisor: u32 = 1000000000
  while (divisor > 1 && value < divisor) divisor /= 10
  for (; divisor > 0; divisor /= 10) uartByte(48 + ((value / divisor) % 10))
}

/** Writes an IPv4 address in dotted form. */
export function uartIpv4(address: u32): void {
  uartNumber(address >>> 24)
  uartByte(46)
  uartNumber((address >>> 16) & 255)
  uartByte(46)
  uartNumber((address >>> 8) & 255)
  uartByte(46)
  uartNumber(address & 255)
}

/** Writes a MAC address: twelve digits, a colon after each two. @param mac first byte highest */
export function uartMac(mac: u64): void {
  for (let shift = 44; shift >= 0; shift -= 4) {
    const digit = <u32>(mac >> shift) & 15
    uartByte(digit < 10 ? 48 + digit : 87 + digit)
    if (shift % 8 == 0 && shift > 0) uartByte(58)
  }
}

export function uartLine(): void {
  uartByte(10)
}
