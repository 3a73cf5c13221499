import { basename, extname, resolve } from 'node:path'
import { type Command, InvalidArgumentError } from 'commander'
import type { FarmSelection } from '../control/client.ts'
import { errorMessage, usageError } from '../errors.ts'
import { replaceFile } from '../files.ts'
import { cpuProfile } from '../profile/cpuprofile.ts'
import { type BoardMeasurement, MAXIMUM_SECONDS, measureFarm, measureRecording } from '../profile/measure.ts'
import { checkPeriod, DEFAULT_PERIOD, MINIMUM_PERIOD } from '../profile/meter.ts'
import {
  functionCosts,
  lineCosts,
  ProfileBuilder,
  type ProfileFunction,
  type SourceProfile,
  totalWeight,
} from '../profile/source-profile.ts'
import { speedscopeFile } from '../profile/speedscope.ts'
import { formatTable, note, paint, print, printJson, warn } from '../terminal.ts'

interface ProfileCommandOptions extends FarmSelection {
  readonly seconds?: number
  readonly output?: string
  readonly exact?: boolean
  readonly period?: number
  readonly replay?: string
  readonly top: number
  readonly json?: boolean
}

const DEFAULT_SECONDS = 5
const DEFAULT_TOP = 15

export function addProfileCommand(program: Command): void {
  program
    .command('profile')
    .summary('where the firmware of a running farm, or of a recording, spends its instructions')
    .description(
      'Samples the call stack of the firmware each so many instructions, or follows every one, and shows functions and lines by what they cost.',
    )
    .argument('[server]', 'one server only')
    .option('-n, --seconds <n>', `how long to look at a running farm (default: ${DEFAULT_SECONDS})`, secondsArgument)
    .option('-o, --output <file>', 'write the profile: .json for speedscope, .cpuprofile for Chrome and VS Code')
    .option('--exact', 'every instruction, not samples')
    .option('--period <n>', `instructions from one sample to the next (default: ${DEFAULT_PERIOD})`, periodArgument)
    .option('--replay <file>', 'a recording (inic run --record FILE), in place of a running farm')
    .option('--top <n>', 'rows of each table', countArgument, DEFAULT_TOP)
    .option('-f, --farm <file>', 'the farm, if more than one is running')
    .option('--state <dir>', 'where that farm keeps its state')
    .option('--json', 'the tables as JSON')
    .addHelpText(
      'after',
      `
Costs are instructions of the firmware, not time: the same slices always give the same profile. Functions that the optimizer put into others
are shown as their own.

While a running farm is looked at, an instruction costs about a microsecond, some hundred times what it costs otherwise: keep it to a
few seconds, or profile a recording, which does not disturb the farm at all.

Examples:
  inic profile                                      all servers, five seconds
  inic profile server1 -n 2 -o server1.json         then: https://www.speedscope.app
  inic profile --replay farm.rec --exact -o farm.cpuprofile`,
    )
    .action(async (server: string | undefined, options: ProfileCommandOptions) => {
      checkOptions(options)
      const { period = DEFAULT_PERIOD, exact = false } = options
      const measured = await measure(server, options)
      const profiles = sourceProfiles(measured, exact ? 0 : period)
      remark(measured, profiles)
      if (options.output !== undefined) await writeProfile(options.output, profiles)
      if (options.json) printJson(describe(profiles, options.top))
      else printTables(profiles, options.top)
    })
}

function checkOptions({ seconds, exact, period, replay, output, farm, state }: ProfileCommandOptions): void {
  if (exact && period !== undefined) throw usageError('--exact looks at every instruction, and --period at some')
  if (replay !== undefined && (seconds ?? farm ?? state) !== undefined)
    throw usageError('--replay goes without --seconds, --farm and --state', 'a recording is looked at as a whole')
  if (output !== undefined && !['.json', '.cpuprofile'].includes(extname(output)))
    throw usageError(`'${output}' is no name of a profile`, 'end it in .json (speedscope) or .cpuprofile (Chrome)')
}

async function measure(server: string | undefined, options: ProfileCommandOptions): Promise<BoardMeasurement[]> {
  const { exact, period = DEFAULT_PERIOD, seconds = DEFAULT_SECONDS, replay } = options
  const how = exact ? ({ mode: 'exact' } as const) : ({ mode: 'sample', period } as const)
  if (replay !== undefined) return measureRecording(replay, server, how)
  return measureFarm(options, server, how, seconds)
}

/** One for each board, however often it was switched on. */
function sourceProfiles(measured: readonly BoardMeasurement[], period: number): SourceProfile[] {
  const builders = new Map<string, ProfileBuilder>()
  for (const { board, firmware, measurement } of measured) {
    const builder = builders.get(board) ?? new ProfileBuilder(board, period)
    builders.set(board, builder)
    builder.add(measurement, firmware.program)
  }
  return [...builders.values()].map((builder) => builder.build())
}

function remark(measured: readonly BoardMeasurement[], profiles: readonly SourceProfile[]): void {
  for (const { name, lostSamples } of profiles) {
    if (lostSamples > 0) warn(`${name}: no room for ${lostSamples} samples; a larger --period makes them fewer`)
  }
  const unknown = new Set(measured.filter(({ firmware }) => firmware.texts.sourceMap === undefined))
  for (const { board } of unknown) warn(`${board}: its firmware was not built here: there are no source lines`)
}

async function writeProfile(output: string, profiles: readonly SourceProfile[]): Promise<void> {
  const name = basename(output, extname(output))
  const contents = extname(output) === '.json' ? speedscopeFile(name, profiles) : cpuProfile(profiles)
  try {
    await replaceFile(resolve(output), `${JSON.stringify(contents)}\n`)
  } catch (error) {
    throw usageError(`${output} cannot be written: ${errorMessage(error)}`)
  }
  note(`${output}: ${extname(output) === '.json' ? 'open it at https://www.speedscope.app' : 'for Chrome and VS Code'}`)
}

function printTables(profiles: readonly SourceProfile[], top: number): void {
  const sum = profiles.reduce((total, profile) => total + totalWeight(profile), 0)
  for (const { name, instructions, slices, period, order } of profiles) {
    const how = period === 0 ? 'every one followed' : `${number(order.length)} samples, one each ${number(period)}`
    print(
      `${paint(process.stdout, 'bold', name)}: ${number(instructions)} instructions in ${number(slices)} slices, ${how}`,
    )
  }
  if (sum === 0) {
    print('nothing was executed')
    return
  }
  print('')
  const share = (part: number) => ((100 * part) / sum).toFixed(1)
  const functions = functionCosts(profiles).slice(0, top)
  const header = ['self', 'self %', 'total %', 'function', 'declared at']
  for (const line of formatTable(
    header,
    functions.map((one) => [number(one.self), share(one.self), share(one.total), one.name, placeOf(one)]),
  ))
    print(line)
  const lines = lineCosts(profiles).slice(0, top)
  if (lines.length === 0) return
  print('')
  for (const line of formatTable(
    ['self', 'self %', 'line', 'function'],
    lines.map(({ self, file, line, name }) => [number(self), share(self), `${file}:${line}`, name]),
  ))
    print(line)
}

function describe(profiles: readonly SourceProfile[], top: number): object {
  return {
    boards: profiles.map(({ name, instructions, slices, period, order, lostSamples }) => ({
      ...{ server: name, instructions, slices },
      ...(period > 0 && { period, samples: order.length, lostSamples }),
    })),
    functions: functionCosts(profiles).slice(0, top),
    lines: lineCosts(profiles).slice(0, top),
  }
}

function placeOf({ file, line }: ProfileFunction): string {
  if (file === undefined) return '-'
  return line === undefined ? file : `${file}:${line}`
}

function number(value: number): string {
  return value.toLocaleString('en-GB')
}

function secondsArgument(text: string): number {
  const seconds = Number(text)
  if (!/^\d+(\.\d+)?$/.test(text) || seconds <= 0 || seconds > MAXIMUM_SECONDS)
    throw new InvalidArgumentError(`Write a number of seconds above 0, and ${MAXIMUM_SECONDS} at most.`)
  return seconds
}

function periodArgument(text: string): number {
  try {
    return checkPeriod(/^\d+$/.test(text) ? Number(text) : Number.NaN)
  } catch {
    throw new InvalidArgumentError(`Write a number of instructions, ${MINIMUM_PERIOD} or more.`)
  }
}

function countArgument(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('Write a whole number.')
  return Number(text)
}
