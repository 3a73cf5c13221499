import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { availableCpu, type CpuKind } from '../emulator/cpu/index.ts'
import { Farm, type FarmOptions } from '../emulator/farm.ts'
import { PcapngWriter } from '../emulator/link/pcapng.ts'
import { TestQueue } from './dma-driver.ts'
import { firmware, TEST_MEMORY_BYTES } from './emulator-kit.ts'

const folder = mkdtempSync(join(tmpdir(), 'inic-farm-'))
test.after.always(() => rmSync(folder, { recursive: true }))
let captures = 0

/** Three boards on a lossy LAN that echo each other's frames for a while; the capture of it. */
async function lan(options: FarmOptions & { cpu: CpuKind; idleNs?: number }): Promise<Buffer> {
  const path = join(folder, `${captures++}.pcapng`)
  const farm = new Farm({ clock: 'virtual', ...options })
  const writer = farm.own(new PcapngWriter(path))
  const lan = farm.addSwitch('lan')
  const wasm = await firmware('echo')
  for (let n = 0; n < 3; n++) {
    const board = farm.addBoard(`board${n}`, { cpu: options.cpu, memoryBytes: TEST_MEMORY_BYTES })
    const wire = {
      delayNs: 5000,
      rateBps: 1e9,
      loss: 0.02,
      duplication: 0.01,
      reordering: 0.05,
      reorderNs: 20_000,
      corruption: 0.005,
    }
    const cable = farm.connect(board.ports[0], lan.addPort(), { wire })
    cable.capture(writer.interface(cable.name))
    board.powerOn({ wasm, boot: { interfaces: [{ address: 2 + n, gateway: 100 * (n + 1) }] } })
  }
  await farm.run(3e6)
  await farm.stop()
  return readFileSync(path)
}

test('the same seed gives the same capture, another seed another one', async (t) => {
  const one = await lan({ cpu: 'v8' })
  t.log(`${one.length} bytes`)
  t.true(one.length > 50_000, String(one.length))
  t.true(one.equals(await lan({ cpu: 'v8' })))
  t.false(one.equals(await lan({ cpu: 'v8', seed: 'other' })))
})

test('Wasmtime and V8 give the same capture where fuel is not counted, and the same again where it is', async (t) => {
  if (availableCpu() !== 'wasmtime') {
    t.log('skipped: the CPU addon is not built')
    t.pass()
    return
  }
  const plain = await lan({ cpu: 'wasmtime' })
  t.true(plain.equals(await lan({ cpu: 'v8' })))
  const counted = await lan({ cpu: 'wasmtime', countFuel: true })
  t.true(counted.equals(await lan({ cpu: 'wasmtime', countFuel: true })))
  t.false(counted.equals(plain))
})

/** A board with the record echo, and a program that sends `rounds` records, each after the echo of the one before. */
async function pingPong(farm: Farm, rounds: number, onEcho: (next: () => void, round: number) => void) {
  const board = farm.addBoard('board', { cpu: 'v8', memoryBytes: TEST_MEMORY_BYTES })
  const { bus } = board.attachProcess({ ramBytes: 0x40000 })
  const [, tx, rx] = [0, 1, 2].map((index) => new TestQueue(bus, index, 0x8000 * index))
  board.powerOn({ wasm: await firmware('records') })
  tx.enable()
  rx.enable()
  let round = 0
  const send = () => {
    rx.add([{ address: 0x20000, length: 256 }], true)
    tx.add([{ address: 0x21000, length: 32 }], false)
    tx.kick()
  }
  bus.onInterrupt(() => {
    tx.takeUsed()
    if (rx.takeUsed().length === 0) return
    round++
    onEcho(() => {
      if (round < rounds) send()
    }, round)
  })
  return { board, send, done: () => round >= rounds }
}

test('virtual time: host code is charged its latency, and time waits for its ticks and promises', async (t) => {
  const farm = new Farm({ clock: 'virtual', sliceNs: 2000, hostLatencyNs: 500 })
  const times: number[] = []
  const { send, done } = await pingPong(farm, 20, async (next, round) => {
    times.push(farm.now())
    for (let n = 0; n < round; n++) {
      await null
      await new Promise((resolve) => process.nextTick(resolve))
    }
    next()
  })
  await farm.run(100_000)
  send()
  t.is(await farm.run(done), 'condition')
  const rounds = times.slice(1).map((time, n) => time - times[n])
  t.deepEqual(rounds, new Array(19).fill(rounds[0]), 'each round takes the same time, however long its promises are')
  t.is(rounds[0], 2500)
})

test('virtual time: run ends at a time, at a condition, when nothing is left, and when stopped', async (t) => {
  const farm = new Farm({ clock: 'virtual' })
  t.is(await farm.run(5000), 'time')
  t.is(farm.now(), 5000)
  t.is(await farm.run(() => false), 'idle')
  const board = farm.addBoard('board', { cpu: 'v8', memoryBytes: TEST_MEMORY_BYTES })
  const rung: number[] = []
  board.hostClock.schedule(1000, () => rung.push(board.hostClock.now()))
  board.hostClock.schedule(500, () => rung.push(board.hostClock.now()))
  const cleared = board.hostClock.schedule(100, () => rung.push(0))
  board.hostClock.clear(cleared)
  t.is(await farm.run(() => rung.length === 2), 'condition')
  t.deepEqual(rung, [5500, 6000])
  const again = () => board.hostClock.schedule(10, again)
  again()
  const running = farm.run(() => false)
  await t.throwsAsync(farm.run(1e9), { message: /runs already/ })
  await farm.stop()
  t.is(await running, 'stopped')
  await t.throwsAsync(
    farm.run(() => {
      throw new Error('from the condition')
    }),
    { message: 'from the condition' },
  )
})

test.serial('real time: records go round, and promises of handlers run in between', async (t) => {
  const farm = new Farm()
  const order: string[] = []
  const { board, send, done } = await pingPong(farm, 50, (next, round) => {
    if (round > 2) return next()
    order.push(`handler ${round}`)
    queueMicrotask(() => order.push(`microtask ${round}`))
    process.nextTick(() => {
      order.push(`tick ${round}`)
      next()
    })
  })
  farm.start()
  send()
  t.is(await farm.run(done), 'condition')
  t.deepEqual(order.slice(0, 6).sort(), order.slice(0, 6).sort())
  t.deepEqual(
    order.filter((entry) => entry.startsWith('handler')),
    ['handler 1', 'handler 2'],
  )
  t.true(order.indexOf('microtask 1') < order.indexOf('handler 2'))
  t.is(board.crash, null)
  await farm.stop()
})

test.serial('real time: a busy board leaves the event loop to others', async (t) => {
  const farm = new Farm()
  const board = farm.addBoard('spin', { cpu: 'v8', memoryBytes: TEST_MEMORY_BYTES })
  board.powerOn({ wasm: await firmware('spin') })
  farm.start()
  const start = performance.now()
  let turns = 0
  while (performance.now() - start < 200) {
    await new Promise((resolve) => setImmediate(resolve))
    turns++
  }
  await farm.stop()
  t.true(turns > 3, `${turns} turns`)
  t.true(board.slices > 20 * turns, `${board.slices} slices`)
  const { slices } = board
  await sleep(20)
  t.is(board.slices, slices, 'a stopped farm stands still')
})

test.serial('real time: alarms ring in time, cleared ones do not', async (t) => {
  const farm = new Farm()
  const board = farm.addBoard('board', { cpu: 'v8', memoryBytes: TEST_MEMORY_BYTES })
  farm.start()
  const start = performance.now()
  const rung: number[] = []
  board.hostClock.schedule(30e6, () => rung.push(performance.now() - start))
  board.hostClock.clear(board.hostClock.schedule(10e6, () => rung.push(-1)))
  await farm.run(() => rung.length > 0)
  t.is(rung.length, 1)
  t.true(rung[0] >= 29.9 && rung[0] < 80, String(rung))
  await farm.stop()
})

test.serial('real time: an idle farm sleeps', async (t) => {
  const farm = new Farm()
  const wasm = await firmware('misbehave')
  // It kicks its watchdog every 5 ms.
  const board = farm.addBoard('idle', { cpu: 'v8', memoryBytes: TEST_MEMORY_BYTES })
  board.powerOn({ wasm, boot: { flags: 20 } })
  farm.start()
  await sleep(100)
  const { slices } = board
  await sleep(500)
  const spent = board.slices - slices
  t.true(spent > 50 && spent <= 105, `${spent} slices in 500 ms`)
  t.is(board.crash, null)
  await farm.stop()
})

test.serial('an error of host code surfaces, and the farm goes on', async (t) => {
  const script = `
    import { Farm } from ${JSON.stringify(new URL('../emulator/farm.js', import.meta.url).href)}
    for (const clock of ['virtual', 'real']) {
      const farm = new Farm({ clock })
      const { hostClock } = farm.addBoard('board', { cpu: 'v8', memoryBytes: 0x200000 })
      const errors = []
      process.on('uncaughtException', (error) => errors.push(error.message))
      let rung = false
      hostClock.schedule(1000, () => { throw new Error('of host code') })
      hostClock.schedule(2000, () => { rung = true })
      await farm.run(() => rung)
      console.log(clock, rung, errors.join())
      process.removeAllListeners('uncaughtException')
      await farm.stop()
    }`
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', script])
  t.is(stdout.toString(), 'virtual true of host code\nreal true of host code\n', stderr.toString())
})

test.serial('a running farm keeps the process alive until it is stopped or unref', async (t) => {
  const farm = JSON.stringify(new URL('../emulator/farm.js', import.meta.url).href)
  for (const [then, code] of [
    ['farm.unref()', 0],
    ['await farm.stop()', 0],
    ['setTimeout(() => process.exit(7), 300)', 7],
  ] as const) {
    const script = `import { Farm } from ${farm}; const farm = new Farm(); farm.start(); ${then}`
    const { status } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { timeout: 5000 })
    t.is(status, code, then)
  }
  t.truthy(fileURLToPath(import.meta.url))
})

test('statistics and profile name every part', async (t) => {
  const farm = new Farm({ clock: 'virtual' })
  const wasm = await firmware('echo')
  const [a, b] = ['a', 'b'].map((name) => farm.addBoard(name, { cpu: 'v8', memoryBytes: TEST_MEMORY_BYTES }))
  farm.connect(a.ports[0], b.ports[0])
  b.powerOn({ wasm })
  a.powerOn({ wasm, boot: { interfaces: [{ address: 4 }] } })
  farm.setProfiling(true)
  await farm.run(1e6)
  const { boards, cables } = farm.statistics()
  t.true(boards.a.ports[0].rxFrames > 100)
  t.is(cables['a.0-b.0'].forward.frames, boards.a.ports[0].txFrames)
  const { firmwareNs, linkNs, dmaNs, slices } = farm.profile!
  t.true(firmwareNs > 0 && linkNs > 0 && dmaNs > 0 && slices > 100)
  farm.setProfiling(false)
  t.is(farm.profile, null)
})
