/**
 * ipOS, extended: everything that the package's firmware does, and one thing more. What is yours stands between the two lines below; ipOS itself
 * lies in node_modules/inic/firmware, to be read, stepped through and, once that is not enough, copied.
 */
import { CARVE_BASE } from 'inic/abi/memory.ts'
import { MAC_BLOCK, MAC_PORTS, MAC_RX_ENTRIES, MAC_RX_FRAMES, MAC_STRIDE } from 'inic/abi/registers.ts'
import { DESCRIPTOR_ADDRESS, DESCRIPTOR_BYTES, DESCRIPTOR_LENGTH } from 'inic/abi/rings.ts'
import { readRegister } from 'inic/firmware/hal/registers.ts'
import { port } from 'inic/firmware/hal/state.ts'
import { poll as iposPoll, reset as iposReset } from 'inic/firmware/index.ts'
import { carve } from 'inic/firmware/mem/carve.ts'
import { directoryTable } from 'inic/firmware/mem/directory.ts'
import { State } from 'inic/firmware/state.ts'
import { ETHERNET_HEADER_BYTES, ethernetType } from 'inic/firmware/wire/ethernet.ts'

/** What ipOS keeps, and then what is ours: in INIC memory, as everything that a firmware keeps. */
@unmanaged
class OwnState extends State {
  census: u32
}

function state(): OwnState {
  return changetype<OwnState>(CARVE_BASE)
}

export function reset(): void {
  iposReset()
  ownReset()
}

export function poll(irqs: u32): u32 {
  // Frames that have come since the last slice stand in the receive rings: here they are looked at, then ipOS takes them.
  ownPoll()
  return iposPoll(irqs)
}

// ── from here on it is yours ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/** How many frames of one EtherType have come: a table for `inic inspect tables`, the debugger and tests. */
@unmanaged
class Census {
  frames: u64
  bytes: u64
  etherType: u16
  inUse: u8
}

const CENSUS_BYTES: u32 = 24
/** EtherTypes that are counted; the last row is for all others. */
const CENSUS_ROWS: u32 = 16
/** Where the census keeps how many frames of each port it has seen, behind its rows. */
const SEEN: u32 = CENSUS_ROWS * CENSUS_BYTES

/** ipOS has made pools of nearly all memory: it leaves 64 KiB to carve. */
function ownReset(): void {
  state().census = carve(SEEN + MAC_PORTS * 4)
  directoryTable<Census>(state().census, CENSUS_BYTES, CENSUS_ROWS)
}

/** Counts what has come. Slot n of a receive ring holds the frames n, n + entries, ... that the port has received. */
function ownPoll(): void {
  for (let index: u32 = 0; index < <u32>MAC_PORTS; index++) {
    const block = MAC_BLOCK + index * MAC_STRIDE
    const entries = readRegister(block + MAC_RX_ENTRIES)
    const received = readRegister(block + MAC_RX_FRAMES)
    const counter = state().census + SEEN + index * 4
    for (let seen = load<u32>(counter); seen != received; seen++) {
      const descriptor = port(index).rxBase + (seen & (entries - 1)) * DESCRIPTOR_BYTES
      count(load<u32>(descriptor + DESCRIPTOR_ADDRESS), load<u32>(descriptor + DESCRIPTOR_LENGTH))
    }
    store<u32>(counter, received)
  }
}

function count(frame: u32, bytes: u32): void {
  const type: u32 = bytes < ETHERNET_HEADER_BYTES ? 0 : ethernetType(frame)
  for (let row: u32 = 0; row < CENSUS_ROWS; row++) {
    const census = changetype<Census>(state().census + row * CENSUS_BYTES)
    if (census.inUse && census.etherType != type && row < CENSUS_ROWS - 1) continue
    if (!census.inUse) census.etherType = <u16>(row < CENSUS_ROWS - 1 ? type : 0)
    census.inUse = 1
    census.frames++
    census.bytes += bytes
    return
  }
}

// ── up to here ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
