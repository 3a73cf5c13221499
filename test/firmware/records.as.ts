/**
 * Sends each record that the DMA engine fetches back to the same queue set: from the TX queue to the RX queue, from the control queue to
 * the event queue. A record waits while its queue has no buffer, and is dropped if the queue is off.
 */
import {
  DESCRIPTOR_BYTES,
  INFO_FIRST,
  INFO_LAST,
  OWNER_DEVICE,
  OWNER_FIRMWARE,
  QUEUE_STATUS_BYTES,
} from '../../abi/rings.ts'
import {
  DELIVER_RING,
  FETCH_RING,
  RING_ENTRIES,
  ring,
  SLOT_BYTES,
  STATUS_TABLE,
  start,
  startDma,
  VARIABLES,
} from './card.as.ts'

const FETCH_NEXT: u32 = 0
const DELIVER_NEXT: u32 = 4
/** The record under way is dropped. */
const DROPPING: u32 = 8
/** 64 counts of records delivered, and 64 epochs. */
const DELIVERED: u32 = 256
const EPOCHS: u32 = 512

export function reset(): void {
  startDma()
  start()
}

export function poll(_irqs: u32): u32 {
  for (let n = 0; n < 64; n++) {
    const next = load<u32>(VARIABLES, FETCH_NEXT)
    const at = ring(FETCH_RING) + (next & (RING_ENTRIES - 1)) * DESCRIPTOR_BYTES
    if (load<u32>(at, 12) != OWNER_FIRMWARE) return 0xffffffff
    if (!echo(load<u32>(at), load<u32>(at, 4), load<u32>(at, 8))) return 0xffffffff
    store<u32>(at, SLOT_BYTES, 4)
    store<u32>(at, OWNER_DEVICE, 12)
    store<u32>(VARIABLES, next + 1, FETCH_NEXT)
  }
  return 0
}

/** False if the piece has to wait. */
function echo(from: u32, length: u32, info: u32): bool {
  const target = (info & 1) == 1 ? (info & 0xfc) + 2 : (info & 0xfc) + 3
  const status = STATUS_TABLE + target * QUEUE_STATUS_BYTES
  const counts = VARIABLES + DELIVERED + target * 4
  const epochs = VARIABLES + EPOCHS + target * 4
  if (load<u32>(epochs) != load<u32>(status, 8)) {
    store<u32>(epochs, load<u32>(status, 8))
    store<u32>(counts, 0)
  }
  const next = load<u32>(VARIABLES, DELIVER_NEXT)
  const at = ring(DELIVER_RING) + (next & (RING_ENTRIES - 1)) * DESCRIPTOR_BYTES
  if (load<u32>(at, 12) != OWNER_FIRMWARE) return false
  if (info & INFO_FIRST) {
    const on = load<u32>(status, 4) == 1
    store<u32>(VARIABLES, on ? 0 : 1, DROPPING)
    if (on && load<u32>(status) == load<u32>(counts)) return false
    if (on) store<u32>(counts, load<u32>(counts) + 1)
  }
  if (load<u32>(VARIABLES, DROPPING)) return true
  // The bytes stay in the fetch buffer: the device delivers before it fetches.
  store<u32>(at, from)
  store<u32>(at, length, 4)
  store<u32>(at, target | (info & (INFO_FIRST | INFO_LAST)), 8)
  store<u32>(at, OWNER_DEVICE, 12)
  store<u32>(VARIABLES, next + 1, DELIVER_NEXT)
  return true
}
