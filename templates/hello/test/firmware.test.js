import assert from 'node:assert/strict'
import test from 'node:test'
import { bootCard, projectFirmware } from 'inic/testing'

const firmware = await projectFirmware()

test('greets on the console', async () => {
  const card = bootCard({ firmware })
  await card.expectConsole(/^hello from {{name}}, with 64 MiB/)
  await card.close()
})

test('blinks once a second', async () => {
  const card = bootCard({ firmware })
  await card.run(2500)
  assert.deepEqual(
    card.trace().map(({ a, b, timeNs }) => ({ on: a, blinks: b, second: Math.round(timeNs / 1e9) })),
    [
      { on: 1, blinks: 1, second: 0 },
      { on: 0, blinks: 2, second: 1 },
      { on: 1, blinks: 3, second: 2 },
    ],
  )
  assert.equal(card.table('State')[0].blinks, 3)
  await card.close()
})
