/** Boards in real time, whose fuel is counted for those alone who ask. */
import test from 'ava'
import type { CrashReport } from '../emulator/board.ts'
import { hasAddon } from '../emulator/cpu/addon.ts'
import { Farm } from '../emulator/farm.ts'
import { FarmRecorder } from '../emulator/record/farm-recorder.ts'
import { Recorder } from '../emulator/record/recorder.ts'
import { BoardReplay } from '../emulator/record/replay.ts'
import { firmware, TEST_MEMORY_BYTES, TestPort, testFrame } from './emulator-kit.ts'

const onWasmtime = hasAddon() ? test.serial : test.serial.skip
const BROADCAST = Uint8Array.of(255, 255, 255, 255, 255, 255)
const PEER = Uint8Array.of(2, 0, 0, 0, 0, 9)

onWasmtime('firmware that loops for ever is stopped with its line, and the farm goes on', async (t) => {
  const farm = new Farm()
  const resolveSource = () => ({ file: 'misbehave.as.ts', line: 61, column: 5 })
  const bad = farm.addBoard('bad', { cpu: 'wasmtime', memoryBytes: TEST_MEMORY_BYTES, resolveSource })
  const good = farm.addBoard('good', { cpu: 'wasmtime', memoryBytes: TEST_MEMORY_BYTES })
  const crashes: [string, CrashReport][] = []
  farm.on('crash', ({ name }, report) => crashes.push([name, report]))
  const wasm = await firmware('misbehave')
  bad.powerOn({ wasm, boot: { flags: 2 } })
  good.powerOn({ wasm, boot: { flags: 20 } })
  const before = performance.now()
  await farm.run(() => crashes.length > 0)
  t.true(performance.now() - before < 5000)
  const [[name, report]] = crashes
  t.is(name, 'bad')
  t.is(report.kind, 'watchdog')
  t.regex(report.message, /ran for 500 ms without returning/)
  t.is(report.frames[0].source!.line, 61)
  t.regex(report.frames[0].function, /misbehave/)
  const { slices } = good
  await farm.run(farm.now() + 50e6)
  t.true(good.slices > slices)
  // The page is its own again.
  bad.powerOn({ wasm, boot: { flags: 20 } })
  await farm.run(farm.now() + 50e6)
  t.is(bad.crash, null)
  t.is(bad.fuel, 0)
  await farm.stop()
})

onWasmtime('a recording that begins and ends while the board runs replays, fuel and all', async (t) => {
  const farm = new Farm()
  const board = farm.addBoard('board', { cpu: 'wasmtime', memoryBytes: TEST_MEMORY_BYTES })
  const peer = new TestPort('peer')
  farm.connect(peer, board.ports[0])
  board.powerOn({ wasm: await firmware('misbehave'), boot: { flags: 20 } })
  const frames = async (count: number) => {
    for (let n = 0; n < count; n++) {
      peer.send(testFrame(BROADCAST, PEER), farm.now())
      const { slices } = board
      await farm.run(() => board.slices > slices)
    }
  }
  await frames(10)
  t.is(board.fuel, 0)
  const watcher = new FarmRecorder(farm, new Recorder())
  const { recorder } = watcher
  const life = recorder.lifeOf(board)!
  const { slices } = board
  await frames(20)
  const recorded = board.slices - slices
  t.true(board.fuel > 0)
  watcher.close()
  const { fuel } = board
  await frames(10)
  t.is(board.fuel, fuel, 'nobody asks any more')
  t.is(board.crash, null)
  const replay = new BoardReplay(life, recorder.log)
  t.is(replay.seek(Number.POSITIVE_INFINITY), recorded)
  replay.dispose()
  await farm.stop()
})
