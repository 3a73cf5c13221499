/** A farm that is halted: nothing happens and the clock stands still until it goes on. */
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import { Farm } from '../emulator/farm.ts'
import { builtFirmware } from './support/farm-kit.ts'

for (const clock of ['real', 'virtual'] as const) {
  test(`${clock} time: an alarm that halts the farm is followed by no slice, until it goes on`, async (t) => {
    const farm = new Farm({ clock })
    const board = farm.addBoard('card', { memoryBytes: 16 << 20 })
    const switched = farm.addSwitch('lan')
    const cable = farm.connect(board.ports[0]!, switched.addPort())
    board.powerOn({ wasm: builtFirmware.wasm, boot: { interfaces: [{ address: 0xc0000201, prefix: 24 }] } })
    farm.start()
    t.teardown(async () => {
      await farm.stop()
      board.powerOff()
    })
    let slices = -1
    let haltedNs = -1
    const alarm = {
      ...{ slot: -1, dueNs: Number.POSITIVE_INFINITY, sequence: 0, precise: false },
      fire() {
        farm.halt()
        slices = board.slices
        haltedNs = farm.now()
        // News for the firmware: the board is ready for a slice at once.
        cable.cut()
        cable.mend()
      },
    }
    farm.setAlarm(alarm, farm.now() + 5e6)
    while (slices < 0) await sleep(1)
    await sleep(20)
    t.is(board.slices, slices)
    t.is(farm.now(), haltedNs)
    const resumedMs = performance.now()
    farm.resume()
    while (board.slices === slices) await sleep(1)
    const passedNs = farm.now() - haltedNs
    // Virtual time runs on as fast as it can.
    if (clock === 'real')
      t.true(passedNs < (performance.now() - resumedMs) * 1e6 + 1e6, 'the time that it was halted has not passed')
  })
}
