/**
 * Every fault at every frame and slice of every scenario (support/fault-scenarios.ts), and several at once, drawn from a seed. A run
 * of the tests takes an even share of them.
 *
 *     INIC_FAULT_CASES=all      every single fault, and ten thousand runs of several: an hour
 *     INIC_FAULT_CASES=5000     so many
 *     INIC_FAULT_SEED=monday    other combinations
 *     INIC_FAULT='request/drop/17+off2-on1000/3'   one run, with what was sent
 */
import test, { type ExecutionContext } from 'ava'
import { RandomSource } from '../emulator/random.ts'
import { everyFault } from './support/fault-list.ts'
import { type Fault, faultName, type Outcome, parseFault, runCase, type Scenario } from './support/fault-run.ts'
import { scenarios } from './support/fault-scenarios.ts'

const { INIC_FAULT, INIC_FAULT_CASES = '1200', INIC_FAULT_SEED = 'ci' } = process.env
const CASES = INIC_FAULT_CASES === 'all' ? Number.POSITIVE_INFINITY : Number(INIC_FAULT_CASES)
/** Of so many cases one has several faults. */
const SEVERAL_SHARE = 5
const SEVERAL_ALL = 10_000
const MOST_FAULTS = 3
/** Failures that are shown; the others are counted. */
const SHOWN = 5
const LONG_MS = 4 * 3600_000

function caseName({ name }: Scenario, faults: readonly Fault[]): string {
  return `${name}/${faults.map(faultName).join('+')}`
}

/** Runs cases one after the other, and fails with how to replay what went wrong. */
async function search(t: ExecutionContext, cases: Iterable<[Scenario, readonly Fault[]]>): Promise<void> {
  let count = 0
  const failures: string[] = []
  for (const [scenario, faults] of cases) {
    count++
    const { violations } = await runCase(scenario, faults)
    if (violations.length === 0) continue
    const replay = `INIC_FAULT='${caseName(scenario, faults)}' npx ava dist/test/fault-search.test.js`
    failures.push([replay, ...violations.map((violation) => `  ${violation}`)].join('\n'))
  }
  t.log(`${count} cases`)
  for (const failure of failures.slice(0, SHOWN)) t.log(failure)
  t.is(failures.length, 0, 'what went wrong, and how to see it again, is above')
}

function scenarioNamed(name: string): Scenario {
  const found = scenarios.find((scenario) => scenario.name === name)
  if (!found) throw new Error(`no scenario '${name}'; there are: ${scenarios.map((each) => each.name).join(', ')}`)
  return found
}

/** The runs without faults; each is needed to list the faults of its scenario. */
const bases = new Map<Scenario, Promise<Outcome>>()

function baseOf(scenario: Scenario): Promise<Outcome> {
  const base = bases.get(scenario) ?? runCase(scenario, [])
  bases.set(scenario, base)
  return base
}

/** An even share, with a different start in each list. */
function* shareOf<T>(list: readonly T[], count: number, start: number): Iterable<T> {
  const step = Math.max(list.length / count, 1)
  for (let at = start % step; at < list.length; at += step) yield list[Math.floor(at)]!
}

if (INIC_FAULT !== undefined) {
  test('one run', async (t) => {
    const slash = INIC_FAULT.indexOf('/')
    const scenario = scenarioNamed(INIC_FAULT.slice(0, slash))
    const faults = INIC_FAULT.slice(slash + 1).split('+')
    const { frames, violations, statuses } = await runCase(scenario, faults.map(parseFault))
    for (const [n, frame] of frames.entries()) t.log(`${n} ${frame}`)
    t.log(statuses.join(', '))
    t.deepEqual(violations, [])
  })
} else {
  for (const [n, scenario] of scenarios.entries()) {
    test.serial(`a fault: ${scenario.name}`, async (t) => {
      t.timeout(LONG_MS)
      const base = await baseOf(scenario)
      t.deepEqual(base.violations, [])
      t.true(base.statuses.every((status) => status === 'complete'))
      t.deepEqual({ moved: base.moved, servedOn: base.servedOn }, scenario.goes)
      const faults = everyFault(base)
      const share = (CASES * (1 - 1 / SEVERAL_SHARE)) / scenarios.length
      const chosen = [...shareOf(faults, share, n * 7)]
      await search(
        t,
        chosen.map((fault) => [scenario, [fault]]),
      )
    })
  }

  test.serial('several faults at once', async (t) => {
    t.timeout(LONG_MS)
    const random = new RandomSource(INIC_FAULT_SEED).stream('faults')
    const lists = await Promise.all(scenarios.map(async (scenario) => everyFault(await baseOf(scenario))))
    const count = Math.min(CASES / SEVERAL_SHARE, SEVERAL_ALL)
    const cases = Array.from({ length: count }, (): [Scenario, readonly Fault[]] => {
      const n = random.below(scenarios.length)
      const list = lists[n]!
      const faults = Array.from({ length: 2 + random.below(MOST_FAULTS - 1) }, () => list[random.below(list.length)]!)
      return [scenarios[n]!, faults]
    })
    await search(t, cases)
  })
}
