import test from 'ava'
import fc from 'fast-check'
import { formatIPv4, parseIPv4 } from '../host/addresses.ts'
import { Arena } from '../host/driver/arena.ts'
import { HandleTable } from '../host/driver/handle-table.ts'
import { layoutRam, MINIMUM_RAM_BYTES, RX_BUFFER_BYTES, RX_STRIDE } from '../host/driver/layout.ts'
import { Ram } from '../host/driver/ram.ts'
import { QueueFault, Virtqueue } from '../host/driver/virtqueue.ts'
import { IdleTimer } from '../host/idle-timer.ts'
import { LineSplitter } from '../host/output.ts'
import { FakeQueue } from './support/fake-queue.ts'

test('a handle table does what a Map does', (t) => {
  const operation = fc.record({
    delete: fc.boolean(),
    key: fc.oneof(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: 0xffffffff })),
  })
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 600 }), (operations) => {
      const table = new HandleTable<{ key: number }>()
      const map = new Map<number, { key: number }>()
      for (const { key, delete: remove } of operations) {
        if (remove) t.is(table.delete(key), map.delete(key))
        else {
          const value = { key }
          table.set(key, value)
          map.set(key, value)
        }
        t.is(table.size, map.size)
      }
      for (const { key } of operations) t.is(table.get(key), map.get(key))
      const byKey = (a: { key: number }, b: { key: number }) => a.key - b.key
      t.deepEqual(table.values().sort(byKey), [...map.values()].sort(byKey))
      table.clear()
      t.is(table.size, 0)
      t.is(table.get(operations[0]?.key ?? 0), undefined)
    }),
    { numRuns: 200 },
  )
})

test('an arena never hands out the same byte twice, and all of it again once all is back', (t) => {
  const BASE = 4096
  const BYTES = 8192
  const IDS = 64
  const step = fc.record({ bytes: fc.integer({ min: 1, max: 3000 }), releases: fc.array(fc.nat(63), { maxLength: 3 }) })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
      const arena = new Arena(BASE, BYTES, IDS)
      const out = new Map<number, [from: number, to: number]>()
      const free = Array.from({ length: IDS }, (_, i) => i)
      for (const { bytes, releases } of steps) {
        const id = free.at(-1)
        if (id !== undefined) {
          const at = arena.allocate(id, bytes)
          if (at >= 0) {
            free.pop()
            if (at % 16 !== 0 || at < BASE || at + bytes > BASE + BYTES)
              throw new Error(`${at}..${at + bytes} is outside`)
            for (const [from, to] of out.values()) if (at < to && from < at + bytes) throw new Error('overlap')
            out.set(id, [at, at + bytes])
          }
        }
        for (const pick of releases) {
          const taken = [...out.keys()]
          if (taken.length === 0) break
          const which = taken[pick % taken.length]!
          arena.release(which)
          out.delete(which)
          free.push(which)
        }
      }
      for (const id of out.keys()) {
        arena.release(id)
        free.push(id)
      }
      t.is(arena.allocate(free[0]!, BYTES), BASE)
    }),
    { numRuns: 200 },
  )
})

test('a layout keeps everything apart and inside', (t) => {
  for (const bytes of [MINIMUM_RAM_BYTES, 4 << 20, 8 << 20, 32 << 20, 64 << 20]) {
    const layout = layoutRam(bytes)
    const parts: [number, number][] = [layout.control, layout.tx, layout.rx, layout.event].flatMap(
      (q): [number, number][] => [
        [q.desc, q.size * 16],
        [q.avail, 6 + 2 * q.size],
        [q.used, 6 + 8 * q.size],
      ],
    )
    parts.push([layout.controlSlots, layout.control.size * 64], [layout.eventBuffers, layout.event.size * 48])
    parts.push(
      [layout.rxBuffers, (layout.rx.size - 1) * RX_STRIDE + RX_BUFFER_BYTES],
      [layout.txArena, layout.txArenaBytes],
    )
    parts.sort((a, b) => a[0] - b[0])
    for (const [i, [at, length]] of parts.entries()) {
      t.true(at + length <= (parts[i + 1]?.[0] ?? bytes), `${bytes}: part ${i}`)
    }
    for (const q of [layout.control, layout.tx, layout.rx, layout.event]) t.is(Math.log2(q.size) % 1, 0)
    t.true(layout.rx.size >= 8)
    t.true(layout.txArenaBytes >= 4 * 65552)
  }
  t.throws(() => layoutRam(MINIMUM_RAM_BYTES - 1), { instanceOf: RangeError, message: /at least 2097152 bytes/ })
})

function giveAll(device: FakeQueue, ids: readonly number[]): void {
  for (const id of ids) device.give(id, 0)
}

for (const shared of [false, true]) {
  const kind = shared ? 'shared' : 'plain'
  const make = () => {
    const layout = layoutRam(MINIMUM_RAM_BYTES)
    const ram = new Ram(
      new Uint8Array(shared ? new SharedArrayBuffer(MINIMUM_RAM_BYTES) : new ArrayBuffer(MINIMUM_RAM_BYTES)),
    )
    const queue = new Virtqueue('test', ram, layout.tx)
    const device = new FakeQueue(ram.bytes)
    Object.assign(device, layout.tx)
    device.enable()
    return { queue, device, size: layout.tx.size }
  }

  test(`${kind} RAM: chains go round, indices wrap, and doorbells and interrupts are rung when asked for`, (t) => {
    const { queue, device, size } = make()
    let doorbells = 0
    let interrupts = 0
    device.requestDoorbell()
    queue.requestInterrupt()
    // Three times around the 16-bit index.
    for (let sent = 0; sent < 200_000; ) {
      const batch = 1 + (sent % size)
      for (let i = 0; i < batch; i++) {
        queue.describe(i, 4096 + i * 16, i + 1, 0)
        queue.offer(i)
      }
      if (queue.publish()) doorbells++
      if (queue.publish()) t.fail('nothing new')
      for (let i = 0; i < batch; i++) {
        const id = device.next()
        if (id !== i || device.address !== 4096 + i * 16 || device.length !== i + 1) t.fail('wrong chain')
        device.give(id, i)
      }
      if (device.publish()) interrupts++
      for (let i = 0; i < batch; i++) {
        if (queue.peek() !== i || queue.usedBytes !== i) t.fail('wrong used entry')
        queue.take()
      }
      if (queue.peek() !== -1 || queue.inFlight !== 0) t.fail('more than was sent')
      sent += batch
      // The device and the driver ask every other time.
      if (sent % 2 === 0) device.requestDoorbell()
      else doorbells++
      if (sent % 2 === 0) queue.requestInterrupt()
      else interrupts++
    }
    t.true(doorbells > 0 && interrupts > 0)
  })

  test(`${kind} RAM: an interrupt is asked for after as many as one wants, or never`, (t) => {
    const { queue, device } = make()
    const send = (count: number) => {
      for (let i = 0; i < count; i++) queue.offer(i)
      queue.publish()
      let interrupts = 0
      for (let i = 0; i < count; i++) {
        device.give(device.next(), 0)
        if (device.publish()) interrupts++
      }
      return interrupts
    }
    const drain = () => {
      while (queue.peek() >= 0) queue.take()
    }
    t.false(queue.requestInterrupt(3))
    t.is(send(2), 0)
    t.is(send(0), 0)
    drain()
    queue.declineInterrupt()
    t.is(send(20), 0)
    drain()
    t.false(queue.requestInterrupt(5))
    t.is(send(5), 1)
    t.true(queue.requestInterrupt(), 'some have come before it was asked')
    drain()
  })

  test(`${kind} RAM: a device that breaks the rules is found out`, (t) => {
    const cases: [string, (device: FakeQueue, queue: Virtqueue, size: number) => void, RegExp][] = [
      [
        'a descriptor it never had',
        (device) => device.give(3, 0),
        /descriptor 3 of the test queue, which it did not have/,
      ],
      ['a descriptor that is none', (device, _queue, size) => device.give(size, 0), /descriptor 256/],
      [
        'one descriptor twice',
        (device) => giveAll(device, [0, 0]),
        /descriptor 0 of the test queue, which it did not have/,
      ],
      [
        'more than it had',
        (device) => giveAll(device, [0, 1, 2, 3]),
        /gave back 4 descriptors of the test queue, but it had 2/,
      ],
    ]
    for (const [name, act, message] of cases) {
      const { queue, device, size } = make()
      queue.offer(0)
      queue.offer(1)
      queue.publish()
      act(device, queue, size)
      device.publish()
      t.throws(
        () => {
          while (queue.peek() >= 0) queue.take()
        },
        { instanceOf: QueueFault, message },
        name,
      )
    }
  })
}

test('IPv4 addresses are read as strictly as Node reads them, and written back', (t) => {
  fc.assert(
    fc.property(fc.ipV4(), (text) => {
      t.is(formatIPv4(parseIPv4(text)), text)
    }),
  )
  t.is(parseIPv4('192.0.2.1'), 0xc0000201)
  t.is(parseIPv4('255.255.255.255'), 0xffffffff)
  for (const bad of [
    '',
    '1',
    '1.2.3',
    '1.2.3.4.5',
    '256.0.0.1',
    '01.2.3.4',
    '1..2.3',
    '.1.2.3',
    '1.2.3.',
    ' 1.2.3.4',
    '1.2.3.4 ',
    '1.2.3.x',
    '::1',
    'localhost',
    '1.2.3.0x4',
  ]) {
    t.is(parseIPv4(bad), -1, bad)
  }
})

test('an idle timer is exact in virtual time, and moves the clock’s timer seldom', (t) => {
  let now = 0
  let last = 0
  let scheduled = 0
  const timers = new Map<number, { due: number; run: () => void }>()
  const clock = {
    now: () => now,
    schedule(delay: number, run: () => void) {
      scheduled++
      timers.set(++last, { due: now + delay, run })
      return last
    },
    clear: (handle: number) => void timers.delete(handle),
  }
  const advance = (until: number) => {
    for (;;) {
      const next = [...timers].filter(([, timer]) => timer.due <= until).sort((a, b) => a[1].due - b[1].due)[0]
      if (next === undefined) break
      timers.delete(next[0])
      now = next[1].due
      next[1].run()
    }
    now = until
  }
  const fired: number[] = []
  const timer = new IdleTimer(clock, () => fired.push(now))
  timer.set(100)
  for (let i = 1; i <= 1000; i++) {
    advance(i * 1e6)
    timer.touch()
  }
  t.true(scheduled <= 12, `${scheduled} timers for a thousand touches`)
  advance(1500e6)
  t.deepEqual(fired, [1100e6], 'a hundred milliseconds after the last touch, and once')
  timer.touch()
  advance(1600e6)
  t.deepEqual(fired, [1100e6, 1600e6], 'again after activity')
  timer.touch()
  timer.set(0)
  advance(2000e6)
  timer.set(1000)
  timer.set(10)
  advance(2010e6)
  t.deepEqual(fired, [1100e6, 1600e6, 2010e6], 'the shorter one counts')
  timer.touch()
  timer.clear()
  t.is(timers.size, 0)
})

test('output is cut into lines, however it comes', (t) => {
  const lines: string[] = []
  const splitter = new LineSplitter((line) => lines.push(line))
  for (const text of ['one\ntw', 'o\r\n', '\n', 'three', ' four\nfive']) splitter.write(text)
  t.deepEqual(lines, ['one', 'two', '', 'three four'])
  splitter.end()
  t.is(lines.at(-1), 'five')
  splitter.write('x'.repeat(200_000))
  splitter.end()
  t.is(lines.slice(5).join('').length, 200_000)
  t.true(lines.every((line) => line.length <= 65536))
})
