/** What a live migration takes, in virtual time at 1 GHz, over links of 10 Gbit/s and 1 µs (bench/blackout.ts). */
import test from 'ava'
import { measureBlackout } from '../bench/blackout.ts'
import { mean, percentile } from '../bench/statistics.ts'
import { inic } from './support/cli.ts'
import { builtFirmware } from './support/farm-kit.ts'

const MIGRATIONS = 300
const SETTINGS = { firmware: builtFirmware, migrations: MIGRATIONS, hostLatencyNs: 1000 }

for (const [name, servers] of Object.entries({ 'to and fro': 2, 'round three servers': 3 })) {
  test(`the client misses its segments for 20 µs at most, ${name}`, async (t) => {
    const settings = { ...SETTINGS, servers }
    const figures = await measureBlackout(settings)
    t.is(figures.blackoutNs.length, MIGRATIONS)
    const beyond = figures.blackoutNs.map((ns) => ns - figures.spacingNs)
    t.true(mean(beyond) <= 20_000, `mean ${mean(beyond)} ns`)
    t.true(percentile(beyond, 99) <= 20_000, `99th percentile ${percentile(beyond, 99)} ns`)
    t.deepEqual(await measureBlackout(settings), figures, 'the same on every run and machine')
  })
}

test('the control block takes 5 µs of each INIC at most', async (t) => {
  const { giveNs, takeNs } = await measureBlackout({ ...SETTINGS, writes: false })
  t.is(giveNs.length, MIGRATIONS)
  t.is(takeNs.length, MIGRATIONS)
  t.true(percentile(giveNs, 100) <= 5000, `giving ${percentile(giveNs, 100)} ns`)
  t.true(percentile(takeNs, 100) <= 5000, `taking ${percentile(takeNs, 100)} ns`)
})

test('inic bench tells of it, in figures with their bars', async (t) => {
  const { code, stdout } = await inic(['bench', 'blackout', 'forwards', '--quick', '--json'])
  t.is(code, 0, 'every bar is reached')
  const { figures } = JSON.parse(stdout) as { figures: { case: string; bar?: string; reached?: boolean }[] }
  t.deepEqual(
    figures.filter(({ bar }) => bar !== undefined).map((figure) => `${figure.case}: ${figure.bar}`),
    [
      ...Array<string>(4).fill('blackout: at most 20 µs'),
      ...Array<string>(2).fill('blackout: at most 5 µs'),
      'forwards: below 2',
    ],
  )
})
