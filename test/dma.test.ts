/** The DMA engine and its virtqueues, driven as a driver should. */
import test from 'ava'
import { QUEUE_RX, QUEUE_STATE_DISABLED, QUEUE_STATE_ENABLED, QUEUE_TX } from '../abi/rings.ts'
import {
  BUS_FEATURES,
  BUS_INTERRUPT_ACK,
  BUS_INTERRUPT_STATUS,
  BUS_QUEUE_ENABLE,
  BUS_QUEUE_STATE,
  BUS_WINDOW_BYTES,
  QUEUE_ERROR_NONE,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTQ_AVAIL_F_NO_INTERRUPT,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_USED_F_NO_NOTIFY,
} from '../abi/virtio.ts'
import { firmware } from './emulator-kit.ts'
import { BUFFERS, bench, bytesAt, fill } from './support/dma-bench.ts'

for (const shared of [false, true]) {
  test(`records go round, gathered and scattered, in ${shared ? 'shared' : 'private'} RAM`, async (t) => {
    const { bus, queues, settle, board } = await bench({ shared, bufferBytes: 64 })
    const [, tx, rx] = queues
    const sent = fill(bus, BUFFERS, 40)
    rx.add(
      [
        { address: BUFFERS + 0x1000, length: 5 },
        { address: BUFFERS + 0x1101, length: 100 },
      ],
      true,
    )
    tx.add(
      [
        { address: BUFFERS, length: 3 },
        { address: BUFFERS + 3, length: 0 },
        { address: BUFFERS + 3, length: 37 },
      ],
      false,
    )
    tx.kick()
    await settle()
    t.deepEqual(tx.takeUsed(), [{ id: 0, length: 0 }])
    t.deepEqual(rx.takeUsed(), [{ id: 0, length: 40 }])
    t.deepEqual([...bytesAt(bus, BUFFERS + 0x1000, 5), ...bytesAt(bus, BUFFERS + 0x1101, 35)], sent)
    t.is(bytesAt(bus, BUFFERS + 0x1101 + 35, 1)[0], 0, 'nothing behind the record')
    t.like(board.statistics().dma, { fetched: 1, fetchedBytes: 40, delivered: 1, deliveredBytes: 40, dropped: 0 })
  })
}

test('a record longer than a fetch buffer arrives in one piece', async (t) => {
  const { bus, queues, settle } = await bench({ bufferBytes: 65552 })
  const [, tx, rx] = queues
  const sent = fill(bus, 0x20000, 65552)
  rx.add(
    [
      { address: 0x30010, length: 0xfff0 },
      { address: 0x1f000, length: 32 },
    ],
    true,
  )
  tx.add([{ address: 0x20000, length: 65552 }], false)
  tx.kick()
  await settle()
  t.deepEqual(rx.takeUsed(), [{ id: 0, length: 65552 }])
  t.deepEqual([...bytesAt(bus, 0x30010, 0xfff0), ...bytesAt(bus, 0x1f000, 32)], sent)
})

test('a queue that is disabled in the middle of a record ends it early', async (t) => {
  const { bus, board, queues, settle } = await bench({ bufferBytes: 65552 })
  const [, tx, rx] = queues
  // Without buffers for it the firmware holds on to the pieces of 64 KiB, and the rest waits in RAM.
  for (let n = 0; n < 3; n++) tx.add([{ address: 0x20000, length: 65552 }], false)
  tx.kick()
  await settle()
  t.is(tx.takeUsed().length, 1)
  tx.write(BUS_QUEUE_ENABLE, 0)
  bus.ram.fill(0, 0, 0x20000)
  tx.enable()
  tx.nextDescriptor = 0
  rx.add([{ address: 0x20000, length: 65552 }], true)
  rx.add([{ address: 0x20000, length: 65552 }], true)
  rx.kick()
  await settle()
  t.is(board.crash, null)
})

test('rings wrap: a thousand records through queues of four', async (t) => {
  const { bus, queues, settle } = await bench({ size: 4, bufferBytes: 64 })
  const [, tx, rx] = queues
  for (let n = 0; n < 1000; n++) {
    const sent = fill(bus, BUFFERS, 16 + (n % 48), n)
    const to = BUFFERS + 0x1000
    bus.ram.fill(0, to, to + 64)
    rx.add([{ address: to, length: 64 }], true)
    tx.add([{ address: BUFFERS, length: sent.length }], false)
    tx.kick()
    await settle()
    const used = rx.takeUsed()
    if (used.length !== 1 || used[0].length !== sent.length) t.fail(`record ${n}: ${JSON.stringify(used)}`)
    if (Buffer.compare(bus.ram.subarray(to, to + sent.length), Uint8Array.from(sent)) !== 0)
      t.fail(`record ${n} changed`)
    tx.takeUsed()
  }
  t.is(rx.usedIdx, 1000)
})

test('a record waits for a buffer, and the doorbell of the buffer wakes the card', async (t) => {
  const { bus, queues, settle } = await bench()
  const [control, , , event] = queues
  fill(bus, BUFFERS, 20)
  control.add([{ address: BUFFERS, length: 20 }], false)
  control.kick()
  await settle()
  t.deepEqual(event.takeUsed(), [])
  event.add([{ address: BUFFERS + 0x100, length: 256 }], true)
  event.kick()
  await settle()
  t.deepEqual(event.takeUsed(), [{ id: 0, length: 20 }])
})

test('interrupts: one for a batch, none where the driver asks for none, status and acknowledgement', async (t) => {
  const it = await bench()
  const { bus, queues, settle } = it
  const [, tx, rx] = queues
  const batch = () => {
    for (let n = 0; n < 4; n++) rx.add([{ address: BUFFERS + 0x1000 + 0x100 * n, length: 256 }], true)
    for (let n = 0; n < 4; n++) tx.add([{ address: BUFFERS, length: 16 }], false)
    tx.kick()
  }
  batch()
  await settle()
  // One for what was fetched and delivered in the first slice, one for what the second delivered.
  t.true(it.interrupts >= 1 && it.interrupts <= 2, String(it.interrupts))
  t.is(bus.read(BUS_INTERRUPT_STATUS), (1 << QUEUE_TX) | (1 << QUEUE_RX))
  bus.write(BUS_INTERRUPT_ACK, 1 << QUEUE_TX)
  t.is(bus.read(BUS_INTERRUPT_STATUS), 1 << QUEUE_RX)
  it.interrupts = 0
  rx.availFlags = VIRTQ_AVAIL_F_NO_INTERRUPT
  tx.availFlags = VIRTQ_AVAIL_F_NO_INTERRUPT
  batch()
  await settle()
  t.is(it.interrupts, 0)
  t.is(rx.takeUsed().length, 8)
})

test('EVENT_IDX: an interrupt when the used index passes used_event, and avail_event asks for the next doorbell', async (t) => {
  const it = await bench({ features: VIRTIO_F_EVENT_IDX })
  const { queues, settle } = it
  const [, tx, rx] = queues
  rx.usedEvent = 2
  tx.usedEvent = 1000
  for (let n = 0; n < 8; n++) rx.add([{ address: BUFFERS + 0x1000 + 0x100 * n, length: 256 }], true)
  for (let n = 0; n < 4; n++) {
    tx.add([{ address: BUFFERS, length: 16 }], false)
    tx.kick()
    await settle()
    t.is(it.interrupts, n < 2 ? 0 : 1, `after record ${n}`)
    t.is(tx.availEvent, n + 1)
  }
})

test('NO_NOTIFY: set while the card has no room for what is offered, cleared once it looked at everything', async (t) => {
  const { bus, queues, settle } = await bench({ size: 256, bufferBytes: 64 })
  const [, tx, rx] = queues
  fill(bus, BUFFERS, 16)
  for (let n = 0; n < 200; n++) tx.add([{ address: BUFFERS, length: 16 }], false)
  tx.kick()
  await settle()
  // The fetch ring has 64 entries, and the firmware holds them: nothing can be delivered.
  t.is(tx.usedFlags, VIRTQ_USED_F_NO_NOTIFY)
  t.is(tx.takeUsed().length, 64)
  for (let n = 0; n < 200; n++) rx.add([{ address: BUFFERS + 0x1000, length: 64 }], true)
  rx.kick()
  await settle()
  t.is(rx.takeUsed().length, 200)
  t.is(tx.usedFlags, 0)
})

test('indirect descriptors: after direct ones, and alone', async (t) => {
  const { bus, queues, settle } = await bench({ features: VIRTIO_F_INDIRECT_DESC })
  const [, tx, rx] = queues
  const sent = fill(bus, BUFFERS, 48)
  const table = BUFFERS + 0x4000
  rx.add([{ address: BUFFERS + 0x1000, length: 256 }], true)
  tx.setDescriptor(0, BUFFERS, 16, VIRTQ_DESC_F_NEXT, 1)
  tx.setDescriptor(1, table, 32, VIRTQ_DESC_F_INDIRECT)
  tx.setDescriptor(0, BUFFERS + 16, 16, VIRTQ_DESC_F_NEXT, 1, table)
  tx.setDescriptor(1, BUFFERS + 32, 16, 0, 0, table)
  tx.offer(0)
  tx.kick()
  await settle()
  t.is(tx.error, QUEUE_ERROR_NONE)
  t.deepEqual(bytesAt(bus, BUFFERS + 0x1000, 48), sent)
})

test('offsets that are no register throw; read-only registers ignore what is stored', async (t) => {
  const { bus } = await bench()
  for (const offset of [
    -4,
    1,
    2,
    0x19,
    0x24,
    0x3c,
    0x110,
    0x13c,
    BUS_WINDOW_BYTES,
    0x1000,
    0xffffffff,
    0.5,
    Number.NaN,
  ]) {
    t.throws(() => bus.read(offset), { instanceOf: RangeError }, String(offset))
    t.throws(() => bus.write(offset, 1), { instanceOf: RangeError }, String(offset))
  }
  bus.write(BUS_QUEUE_STATE, 7)
  t.is(bus.read(BUS_QUEUE_STATE), QUEUE_STATE_ENABLED)
  bus.write(BUS_FEATURES, VIRTIO_F_EVENT_IDX)
  t.is(bus.read(BUS_FEATURES), 0, 'features are settled before a queue is enabled')
})

test('processes come and go: queue sets run out, come back, and an old bus does nothing', async (t) => {
  const { board, bus, queues, set, settle } = await bench()
  const others = Array.from({ length: 15 }, () => board.attachProcess({ ramBytes: 4096 }))
  t.throws(() => board.attachProcess({ ramBytes: 4096 }), { instanceOf: RangeError, message: /16 queue sets/ })
  for (const ramBytes of [0, 100, -4096, 2 ** 31, Number.NaN])
    t.throws(() => board.attachProcess({ ramBytes }), { instanceOf: RangeError })
  board.detachProcess(set)
  t.throws(() => board.detachProcess(set), { instanceOf: RangeError })
  const again = board.attachProcess({ ramBytes: 4096 })
  t.is(again.set, set)
  queues[QUEUE_TX].enable()
  queues[QUEUE_TX].kick()
  await settle()
  t.is(bus.read(BUS_QUEUE_STATE), QUEUE_STATE_DISABLED)
  t.is(others[14].set, 15)
  t.is(board.crash, null)
})

test('the card stops: queues are disabled and the process told', async (t) => {
  const it = await bench()
  it.board.powerOff()
  await it.settle()
  t.is(it.interrupts, 1)
  for (const queue of it.queues) t.is(queue.state, QUEUE_STATE_DISABLED)
  it.board.powerOn({ wasm: await firmware('records') })
  for (const queue of it.queues) queue.enable()
  await it.settle()
  it.queues[QUEUE_RX].add([{ address: BUFFERS, length: 256 }], true)
})
