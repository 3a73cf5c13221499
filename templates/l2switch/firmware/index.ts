/**
 * A learning switch over the card's three MAC ports (IEEE 802.1D §7): remembers on which port a station was last heard, sends frames there
 * alone, and floods what it does not know. A station that is silent for five minutes is forgotten, and all of a port when its link goes down.
 */
import { CARVE_BASE } from 'inic/abi/memory.ts'
import {
  IRQ_ENABLE,
  IRQ_LINK,
  IRQ_MAC0,
  IRQ_MAC1,
  IRQ_MAC2,
  MAC_BLOCK,
  MAC_LINK,
  MAC_PORTS,
  MAC_PROMISCUOUS,
  MAC_STRIDE,
  SYS_READY,
} from 'inic/abi/registers.ts'
import { DESCRIPTOR_ADDRESS, DESCRIPTOR_LENGTH } from 'inic/abi/rings.ts'
import { DROP_ETHERNET_SHORT } from 'inic/abi/trace.ts'
import { receiveDone, receiveNext, transmitClaim, transmitCommit } from 'inic/firmware/hal/mac.ts'
import { halInitialize } from 'inic/firmware/hal/power.ts'
import { readRegister, writeRegister } from 'inic/firmware/hal/registers.ts'
import { COUNTERS_BASE, HalCounters } from 'inic/firmware/hal/state.ts'
import { msReached, timerLatch } from 'inic/firmware/hal/timer.ts'
import { drop } from 'inic/firmware/hal/trace.ts'
import { uartLine, uartMac, uartNumber, uartText } from 'inic/firmware/hal/uart.ts'
import { copyBytes } from 'inic/firmware/mem/bytes.ts'
import { carve } from 'inic/firmware/mem/carve.ts'
import { directoryTable } from 'inic/firmware/mem/directory.ts'
import { ETHERNET_HEADER_BYTES, ethernetDestination, ethernetSource, macIsGroup } from 'inic/firmware/wire/ethernet.ts'
import {
  forgetPort,
  forgetSilent,
  learn,
  lookup,
  NO_PORT,
  ROWS,
  STATION_BYTES,
  State,
  Station,
  state,
} from './stations.ts'

/** Frames that one poll takes from a port before the others have their turn. */
const FRAMES_PER_PORT: u32 = 64
const SWEEP_MS: u32 = 1000
/** 01-80-C2-00-00-00 to -0F go no further than the next station (IEEE 802.1D §7.12.6). */
const RESERVED_GROUPS: u64 = 0x0180c2000000

@unmanaged
class Counters extends HalCounters {
  forwarded: u64
  flooded: u64
  /** Not sent on: the station is on the port that the frame came from, or the address is reserved. */
  filtered: u64
}

function counters(): Counters {
  return changetype<Counters>(COUNTERS_BASE)
}

function linkIsUp(port: u32): bool {
  return readRegister(MAC_BLOCK + port * MAC_STRIDE + MAC_LINK) != 0
}

export function reset(): void {
  halInitialize(offsetof<State>())
  state().stations = carve(ROWS * STATION_BYTES)
  directoryTable<Station>(state().stations, STATION_BYTES, ROWS)
  directoryTable<State>(CARVE_BASE, offsetof<State>(), 1)
  directoryTable<Counters>(COUNTERS_BASE, offsetof<Counters>(), 1)
  for (let port: u32 = 0; port < <u32>MAC_PORTS; port++) {
    writeRegister(MAC_BLOCK + port * MAC_STRIDE + MAC_PROMISCUOUS, 1)
  }
  uartText('{{name}}: a switch for ')
  uartNumber(ROWS)
  uartText(' stations')
  uartLine()
  writeRegister(IRQ_ENABLE, IRQ_MAC0 | IRQ_MAC1 | IRQ_MAC2 | IRQ_LINK)
  writeRegister(SYS_READY, 1)
}

/**
 * One slice.
 *
 * @param irqs IRQ_* that are pending
 * @returns microseconds until it wants to run again; 0 while frames are left
 */
export function poll(irqs: u32): u32 {
  timerLatch()
  const st = state()
  if (irqs & IRQ_LINK) {
    for (let port: u32 = 0; port < <u32>MAC_PORTS; port++) if (!linkIsUp(port)) forgetPort(port)
  }
  if (msReached(st.nowMs, st.sweepMs)) {
    st.sweepMs = st.nowMs + SWEEP_MS
    forgetSilent()
  }
  let again = false
  for (let port: u32 = 0; port < <u32>MAC_PORTS; port++) {
    for (let n: u32 = 0; n < FRAMES_PER_PORT; n++) {
      const descriptor = receiveNext(port)
      if (!descriptor) break
      frameInput(port, load<u32>(descriptor + DESCRIPTOR_ADDRESS), load<u32>(descriptor + DESCRIPTOR_LENGTH))
      receiveDone(port, descriptor)
    }
    if (receiveNext(port)) again = true
  }
  return again ? 0 : (st.sweepMs - st.nowMs) * 1000
}

function frameInput(ingress: u32, frame: u32, bytes: u32): void {
  if (bytes < ETHERNET_HEADER_BYTES) return drop(DROP_ETHERNET_SHORT, ingress, bytes)
  counters().framesIn++
  const source = ethernetSource(frame)
  if (!macIsGroup(source) && learn(source, ingress)) greet(source, ingress)
  const destination = ethernetDestination(frame)
  if ((destination & ~(<u64>15)) == RESERVED_GROUPS) {
    counters().filtered++
    return
  }
  const egress = macIsGroup(destination) ? NO_PORT : lookup(destination)
  if (egress == NO_PORT) {
    counters().flooded++
    for (let port: u32 = 0; port < <u32>MAC_PORTS; port++) {
      if (port != ingress && linkIsUp(port)) send(port, frame, bytes)
    }
  } else if (egress == ingress) {
    counters().filtered++
  } else {
    counters().forwarded++
    send(egress, frame, bytes)
  }
}

/** Copies a frame into the next transmit slot of a port; with none free it is lost, as in any switch whose queue is full. */
function send(port: u32, frame: u32, bytes: u32): void {
  const slot = transmitClaim(port)
  if (!slot) return
  copyBytes(slot, frame, bytes)
  transmitCommit(port, bytes)
}

function greet(mac: u64, port: u32): void {
  uartMac(mac)
  uartText(' is on port ')
  uartNumber(port)
  uartLine()
}
