/** Measures a recording: every slice of its boards, run again. */
import type { DebugCall } from '../../emulator/cpu/index.ts'
import type { Life } from '../../emulator/record/recorder.ts'
import type { Recording } from '../../emulator/record/recording.ts'
import { BoardReplay, ReplayError, type SliceEntry } from '../../emulator/record/replay.ts'
import type { Sites } from '../debug/session/walk.ts'
import { createMeter, type Measurement, type Meter, type MeterHow } from './meter.ts'

/** Runs the slices of a board's life from its first to its last, under a meter. `onSlice` hears the number of each. */
export function measureLife(
  life: Life,
  recording: Recording,
  how: MeterHow,
  sites: () => Sites,
  onSlice: (slice: number) => void = () => {},
): Measurement {
  const replay = new BoardReplay(life, recording.log)
  try {
    replay.seek(Math.max(life.firstSlice, recording.oldestSlice))
    const { twin } = replay
    const meter = createMeter(twin, how, sites)
    for (let entry = replay.open(); entry !== undefined; entry = replay.open()) {
      onSlice(entry.slice)
      runSlice(meter, entry, replay.memory.bytes)
      if (!entry.faulted && twin.cycles !== entry.fuel) {
        throw new ReplayError(
          `${life.board}: slice ${entry.slice} spends ${twin.cycles} units of fuel, and spent ${entry.fuel} when it was recorded`,
        )
      }
      replay.close(true)
    }
    return meter.end()
  } finally {
    replay.dispose()
  }
}

/** With the bytes that somebody stored by hand in its midst. */
function runSlice(meter: Meter, { isReset, irqs, edits }: SliceEntry, memory: Uint8Array): void {
  let call: DebugCall = isReset ? 'reset' : irqs
  let at = -1
  for (const { step, address, bytes } of edits) {
    if (step !== at) {
      if (meter.run(call, step).state !== 'stopped') return
      call = 'resume'
      at = step
    }
    memory.set(bytes, address)
  }
  meter.run(call)
}
