/** Profiles: counts of instructions by function and line, of recordings and of running farms. */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { CountingCpu, type CountSink, WasmtimeCpu } from '../emulator/cpu/index.ts'
import { FarmRecorder } from '../emulator/record/farm-recorder.ts'
import { readRecording } from '../emulator/record/file.ts'
import { Recorder } from '../emulator/record/recorder.ts'
import { FirmwareLibrary } from '../toolchain/debug/session/firmware.ts'
import { Sandbox } from '../toolchain/debug/session/sandbox.ts'
import { packageRoot } from '../toolchain/package-root.ts'
import { cpuProfile } from '../toolchain/profile/cpuprofile.ts'
import type { Measurement } from '../toolchain/profile/meter.ts'
import { MeteredBoard } from '../toolchain/profile/metered-board.ts'
import { measureLife } from '../toolchain/profile/replay.ts'
import {
  functionCosts,
  lineCosts,
  ProfileBuilder,
  type SourceProfile,
  totalWeight,
} from '../toolchain/profile/source-profile.ts'
import { speedscopeFile } from '../toolchain/profile/speedscope.ts'
import { inic, refusals, startInic } from './support/cli.ts'
import { builtFirmware, FarmKit, recordRequest } from './support/farm-kit.ts'
import { temporaryDirectory } from './support/tiny-firmware.ts'

const library = new FirmwareLibrary([packageRoot])
const { program, sites } = library.find(builtFirmware.wasm, 'ipOS')

let recorded: Promise<string> | undefined

/** A short recording of one server; made once. */
function record(): Promise<string> {
  recorded ??= makeRecording()
  return recorded
}

async function makeRecording(): Promise<string> {
  const path = join(await temporaryDirectory(), 'farm.rec')
  await recordRequest(path, 1)
  return path
}

function profileOf(measurement: Measurement, period: number): SourceProfile {
  const builder = new ProfileBuilder('server1', period)
  builder.add(measurement, program)
  return builder.build()
}

const sum = (numbers: Iterable<number>) => [...numbers].reduce((total, number) => total + number, 0)

test('of a recording: what is counted is what a walk through the same slices finds, instruction by instruction', async (t) => {
  const recording = readRecording(await record())
  const [life] = recording.lives
  const measure = (how: Parameters<typeof measureLife>[2]) => measureLife(life!, recording, how, () => sites)
  const counted = measure({ mode: 'count' })
  const exact = measure({ mode: 'exact' })
  const each = measure({ mode: 'sample', period: 1 })

  const walked = new Map<number, number>()
  const sandbox = new Sandbox(life!, recording.log, sites)
  let [instructions, slices] = [0, 0]
  for (const slice of [...sandbox.slices(0, recording.slice)]) {
    const { pcs } = sandbox.walk(slice)
    slices++
    instructions += pcs.length
    for (const pc of pcs) walked.set(pc, (walked.get(pc) ?? 0) + 1)
  }
  sandbox.dispose()
  t.true(slices >= 5 && instructions > 10_000, `${slices} slices, ${instructions} instructions`)
  const expected = [...walked].sort(([a], [b]) => a - b)
  for (const [name, found] of Object.entries({ counted, exact, each })) {
    t.is(found.instructions, instructions, name)
    t.is(found.slices, slices, name)
    t.deepEqual(found.counts, expected, name)
  }
  // Call stacks: those that the engine walks at each instruction are those that follow from calls and returns.
  const byStack = ({ stacks, weights }: Measurement) =>
    new Map(stacks.map((stack, index) => [stack.join(' '), weights[index]!]))
  t.deepEqual(byStack(exact), byStack(each))
  t.is(sum(exact.weights), instructions)

  const sampled = measure({ mode: 'sample', period: 97 })
  t.is(sampled.order.length, Math.floor(instructions / 97))
  t.is(sampled.lostSamples, 0)
  t.deepEqual(measure({ mode: 'sample', period: 97 }), sampled, 'the same again')
})

test('functions and lines: inlined functions are their own, callers have what they call', async (t) => {
  const recording = readRecording(await record())
  const exact = measureLife(recording.lives[0]!, recording, { mode: 'exact' }, () => sites)
  const profile = profileOf(exact, 0)
  t.is(totalWeight(profile), exact.instructions)
  const costs = functionCosts([profile])
  t.is(sum(costs.map(({ self }) => self)), exact.instructions)
  t.is(sum(lineCosts([profile]).map(({ self }) => self)), exact.instructions)
  const cost = (name: string) => costs.find((one) => one.name === name)!
  // It was on when the recording began.
  t.is(cost('poll').total, exact.instructions)
  t.like(cost('poll'), { file: 'firmware/index.ts' })
  t.true(cost('poll').self > 0 && cost('poll').self < cost('poll').total)
  // The optimizer leaves no function of its own of this one.
  t.is(program.findFunctions('seqLt').length, 0)
  t.like(cost('seqLt'), { file: 'firmware/tcp/sequence.ts', line: 3 })
  t.true(cost('seqLt').self > 0)
  for (const { self, total } of costs) t.true(self <= total)
})

/** What speedscope's schema demands of a file with sampled profiles: https://www.speedscope.app/file-format-schema.json */
function checkSpeedscope(t: ExecutionContext, file: ReturnType<typeof speedscopeFile>): void {
  t.is(file.$schema, 'https://www.speedscope.app/file-format-schema.json')
  for (const { name, file: source, line, col } of file.shared.frames) {
    t.is(typeof name, 'string')
    if (source !== undefined) t.regex(source, /^(firmware|abi|~lib)\/.*\.ts$/)
    for (const number of [line, col]) t.true(number === undefined || (Number.isInteger(number) && number > 0))
  }
  for (const profile of file.profiles) {
    t.deepEqual(Object.keys(profile).sort(), ['endValue', 'name', 'samples', 'startValue', 'type', 'unit', 'weights'])
    t.is(profile.type, 'sampled')
    t.is(profile.unit, 'none')
    t.is(profile.samples.length, profile.weights.length)
    t.is(profile.startValue, 0)
    t.is(profile.endValue, sum(profile.weights))
    for (const frame of profile.samples.flat())
      t.true(Number.isInteger(frame) && file.shared.frames[frame] !== undefined)
  }
}

test('files: speedscope and Chrome get every sample with its stack, outermost first', async (t) => {
  const recording = readRecording(await record())
  for (const period of [0, 97]) {
    const how = period === 0 ? ({ mode: 'exact' } as const) : ({ mode: 'sample', period } as const)
    const measurement = measureLife(recording.lives[0]!, recording, how, () => sites)
    const profile = profileOf(measurement, period)
    const file = speedscopeFile('a recording', [profile, profile])
    checkSpeedscope(t, file)
    t.is(file.profiles.length, 2)
    const [{ samples, endValue }] = file.profiles as [(typeof file.profiles)[0]]
    t.is(endValue, period === 0 ? measurement.instructions : measurement.order.length * period)
    for (const [outermost] of samples) t.regex(file.shared.frames[outermost!]!.name, /^(poll|reset)$/)

    const { nodes, samples: ends, timeDeltas, startTime, endTime } = cpuProfile([profile])
    t.deepEqual(
      nodes.map(({ id }) => id),
      nodes.map((_, index) => index + 1),
    )
    t.is(ends.length, samples.length)
    t.is(timeDeltas.length, ends.length)
    t.is(endTime - startTime, endValue)
    t.is(sum(nodes.map(({ hitCount }) => hitCount)), ends.length)
    const parents = nodes.flatMap(({ children }) => children)
    t.deepEqual(
      parents.sort((a, b) => a - b),
      nodes.slice(1).map(({ id }) => id),
      'one parent each, the root none',
    )
    for (const end of ends) t.true(nodes[end - 1] !== undefined)
    const { callFrame } = nodes.find(({ callFrame }) => callFrame.functionName === 'seqLt')!
    t.like(callFrame, { url: 'firmware/tcp/sequence.ts', lineNumber: 2 })
  }
})

test('a board of a running farm: measured for a while, it does what it would have done', async (t) => {
  const memories: Buffer[] = []
  for (const measured of [false, true]) {
    const kit = new FarmKit({ servers: 1, memoryBytes: 16 << 20, countFuel: true })
    const { board } = kit.server(1)
    const { recorder } = new FarmRecorder(kit.farm, new Recorder(), (one) => one === board)
    const from = recorder.slice
    const meter = measured ? new MeteredBoard(board, { mode: 'sample', period: 50 }, () => sites) : undefined
    if (measured) {
      t.throws(() => new MeteredBoard(board, { mode: 'count' }, () => sites), {
        message: /profiled or debugged already/,
      })
    }
    await kit.oneRequest()
    if (meter !== undefined) {
      const found = meter.end()
      t.is(found.slices, recorder.slice - from)
      // The recording of the same slices has as many instructions.
      const replayed = measureLife(recorder.lifeOf(board)!, recorder, { mode: 'sample', period: 50 }, () => sites)
      t.deepEqual(found, replayed)
      new MeteredBoard(board, { mode: 'exact' }, () => sites).end()
    }
    kit.client().net.connect(80, kit.server(1).address).resume().end('once more')
    await kit.run(1000)
    t.true(board.cpu instanceof WasmtimeCpu, 'it has its own CPU back')
    memories.push(Buffer.from(board.memory!.bytes))
    await kit.close()
  }
  t.is(Buffer.compare(memories[0]!, memories[1]!), 0)
})

test('a board that cannot be measured says why, and one that is switched off meanwhile has been measured until then', async (t) => {
  const v8 = new FarmKit({ servers: 1, clients: 0, cpu: 'v8', memoryBytes: 16 << 20 })
  const measure = (kit: FarmKit) => new MeteredBoard(kit.server(1).board, { mode: 'count' }, () => sites)
  t.throws(() => measure(v8), { message: /server1 runs on v8/ })
  await v8.close()
  const kit = new FarmKit({ servers: 1, clients: 1, memoryBytes: 16 << 20 })
  const metered = measure(kit)
  await kit.oneRequest()
  kit.server(1).board.powerOff()
  t.throws(() => measure(kit), { message: /server1 is off/ })
  t.true(metered.end().instructions > 0)
  await kit.close()
})

test('a CPU that counts: one that a debugger has had is counted on', (t) => {
  const counts = new Map<Uint32Array, boolean>()
  const sink: CountSink = {
    began: (_module, histogram) => counts.set(histogram, false),
    ended: (histogram) => counts.set(histogram, true),
  }
  const cpu = new CountingCpu({ module: builtFirmware.wasm, memoryBytes: 16 << 20 }, sink)
  const twin = cpu.debugTwin()
  cpu.reset()
  const first = sum(twin.histogram)
  t.true(first > 0)
  cpu.reset()
  t.true(sum(twin.histogram) > first)
  t.is(cpu.cycles, twin.cycles)
  twin.dispose()
  cpu.reset()
  cpu.dispose()
  t.deepEqual([...counts.values()], [true, true])
  const [, second] = [...counts.keys()]
  t.true(sum(second!) > 0)
})

refusals('profile', {
  'no farm': { args: ['--state', '/nonexistent'], code: 3, says: /no farm is running/ },
  'no such file': { args: ['--replay', '/nonexistent.rec'], says: /nonexistent\.rec cannot be read/ },
  'no recording': { args: ['--replay', 'package.json'], says: /cannot be replayed: this is no recording/ },
  'an output of no kind': { args: ['-o', 'x.txt'], says: /'x\.txt' is no name of a profile/ },
  'a period of every instruction': { args: ['--period', '1'], says: /Write a number of instructions, 10 or more/ },
  'exact samples': { args: ['--exact', '--period', '100'], says: /--exact looks at every instruction/ },
  'no time': { args: ['-n', '0'], says: /Write a number of seconds above 0/ },
  'an hour': { args: ['-n', '3600'], says: /600 at most/ },
  'a recording for a while': { args: ['--replay', 'x.rec', '-n', '1'], says: /--replay goes without --seconds/ },
})

test('inic profile of a recording: tables, files, and a server that is not in it', async (t) => {
  const recording = await record()
  const output = join(recording, '..', 'farm.json')
  const shown = await inic(['profile', '--replay', recording, '--top', '3', '-o', output])
  t.is(shown.code, 0, shown.stderr)
  t.regex(shown.stdout, /^server1: [\d,]+ instructions in \d+ slices, \d+ samples, one each 997$/m)
  t.regex(shown.stdout, /^ +self +self % +total % +function +declared at$/m)
  checkSpeedscope(t, JSON.parse(await readFile(output, 'utf8')))
  const json = JSON.parse((await inic(['profile', 'server1', '--replay', recording, '--exact', '--json'])).stdout)
  t.is(json.boards.length, 1)
  t.is(json.functions[0].self + json.functions[0].total > 0, true)
  const refused = await inic(['profile', 'server2', '--replay', recording])
  t.is(refused.code, 2)
  t.regex(refused.stderr, /has no server 'server2'/)
})

test.serial('inic profile of a running farm: it goes on, and can be profiled again', async (t) => {
  const directory = await temporaryDirectory()
  const file = join(directory, 'farm.json')
  const application = `{ "name": "shop", "program": ${JSON.stringify(join(packageRoot, 'examples/shop/server.mjs'))}, "env": { "PORT": "80" } }`
  await writeFile(
    file,
    `{ "networks": [{ "name": "lan-a" }], "publish": ["0:server1:80"], "servers": [{ "name": "server1",
       "interfaces": [{ "network": "lan-a", "address": "10.0.0.1/24" }], "applications": [${application}] }] }`,
  )
  const farm = startInic(t, ['run', file])
  await farm.until(/shop: listening on port 80/)
  const [, url] = await farm.until(/(http:\/\/127\.0\.0\.1:\d+) → server1:80/)
  t.regex((await inic(['profile', 'server9', '--farm', file])).stderr, /there is no server 'server9'/)
  for (const args of [['--period', '10'], ['--exact']]) {
    const profile = startInic(t, ['profile', '--farm', file, '-n', '60', '--json', ...args])
    await profile.until(/counting for 60 s; Ctrl-C ends it/)
    const other = await inic(['profile', '--farm', file, '-n', '1'])
    t.regex(other.stderr, /server1 is profiled or debugged already/)
    t.is((await fetch(url)).status, 200)
    const { code, stdout, stderr } = await profile.interrupt()
    t.is(code, 0, stderr)
    const { boards, functions, lines } = JSON.parse(stdout)
    t.is(boards[0].server, 'server1')
    t.true(boards[0].instructions > 1000)
    t.true(functions.length > 0 && lines.length > 0)
  }
  // Whoever goes without asking for the result leaves nothing behind.
  const killed = startInic(t, ['profile', '--farm', file, '-n', '60'])
  await killed.until(/counting/)
  killed.child.kill('SIGKILL')
  t.is((await fetch(url)).status, 200)
  const last = await inic(['profile', '--farm', file, '-n', '0.2', '--json'])
  t.is(last.code, 0, last.stderr)
  t.is((await farm.interrupt()).code, 0)
})
