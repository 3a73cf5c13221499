/** A few hours of the soak (toolchain/soak/): a day and more of it, `inic soak --hours 24` with any seed. */
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { Leases } from '../toolchain/soak/leases.ts'
import { type SoakOptions, type SoakReport, soak } from '../toolchain/soak/soak.ts'
import { VirtualFarm } from '../toolchain/testing/virtual-farm.ts'
import { inic } from './support/cli.ts'
import { builtFirmware } from './support/farm-kit.ts'
import { BROADCAST_MAC, iposFrame } from './support/packets.ts'
import { temporaryDirectory } from './support/tiny-firmware.ts'

const MINUTES_MS = 60_000
/** Section header of pcapng. */
const PCAPNG_MAGIC = 0x0a0d0d0a

const RUNS: readonly SoakOptions[] = [
  { seed: 'two', servers: 2, hours: 1 },
  { seed: 'three', servers: 3, hours: 2 },
  { seed: 'five', servers: 5, hours: 1 },
]
for (const options of RUNS) {
  test.serial(`${options.hours} h of ${options.servers} servers`, async (t) => {
    t.timeout(10 * MINUTES_MS)
    const { violations, conversations, endings, excused, moved } = await soak(builtFirmware, options)
    t.deepEqual(violations, [])
    t.true(conversations > 500 && moved > conversations / 4)
    t.true(excused < conversations / 10, 'most connections have to come to a good end')
    t.true(endings.complete! > conversations * 0.9)
  })
}

test.serial('the same seed brings the same run', async (t) => {
  t.timeout(10 * MINUTES_MS)
  const options = { seed: 'again', hours: 0.01 }
  t.deepEqual(await soak(builtFirmware, options), await soak(builtFirmware, options))
})

test.serial('inic soak: a report, and the frames', async (t) => {
  t.timeout(10 * MINUTES_MS)
  const path = join(await temporaryDirectory(), 'soak.pcapng')
  const words = ['soak', '--seed', 'cli', '--hours', '0.01', '--servers', '2', '--json', '--capture', path]
  const { code, stdout } = await inic(words, { timeoutMs: 5 * MINUTES_MS })
  t.is(code, 0)
  const report = JSON.parse(stdout) as SoakReport
  t.like(report, { seed: 'cli', servers: 2, violations: [] })
  const file = await open(path)
  const { buffer } = await file.read(Buffer.alloc(4), 0, 4, 0)
  t.is(buffer.readUInt32LE(), PCAPNG_MAGIC)
  t.true((await file.stat()).size > report.conversations * 1000)
  await file.close()
})

test('a lease is over so long after the last message that was answered', async (t) => {
  const farm = new VirtualFarm(builtFirmware, { servers: 2, clients: 0 })
  t.teardown(() => farm.close())
  const [one, two] = farm.servers as [(typeof farm.servers)[0], (typeof farm.servers)[0]]
  let nowMs = 0
  const over: string[] = []
  const leases = new Leases(
    farm.servers,
    2000,
    () => nowMs,
    (holder, from) => over.push(`${holder.name} of ${from.name} at ${nowMs}`),
  )
  const say = (heard: readonly object[], sequence: number) =>
    iposFrame('state', {
      ...{ sourceMac: `02:00:00:00:0${heard.length ? 2 : 1}:02`, destinationMac: BROADCAST_MAC },
      ...{ source: heard.length ? two.address : one.address, destination: '255.255.255.255' },
      ...{ incarnation: heard.length ? 22 : 11, sequence, heard: heard as [] },
    })
  const heard = (sequence: number, incarnation = 11) => [{ address: one.address, incarnation, sequence }]
  leases.pass(one, 'in', say([], 1))
  nowMs = 100
  leases.pass(one, 'out', say(heard(1), 1))
  nowMs = 1000
  leases.pass(one, 'in', say([], 2))
  nowMs = 1990
  leases.look()
  leases.pass(one, 'out', say(heard(2, 10), 2))
  const broken = say(heard(2), 3)
  broken[60]! ^= 1
  leases.pass(one, 'out', broken)
  leases.pass(one, 'out', say(heard(2), 4))
  nowMs = 2990
  leases.look()
  t.deepEqual(over, [])
  nowMs = 3000
  leases.look()
  leases.look()
  t.deepEqual(over, ['server1 of server2 at 3000'])
})
