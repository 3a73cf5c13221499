import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { type Command, InvalidArgumentError } from 'commander'
import { COUNT_FOLDER_VARIABLE } from '../../emulator/count-folder.ts'
import type { FarmSelection } from '../control/client.ts'
import { FirmwareLibrary } from '../debug/session/firmware.ts'
import type { LoadedFirmware } from '../debug/session/inic.ts'
import { CommandError, errorMessage, usageError } from '../errors.ts'
import { replaceFile } from '../files.ts'
import { readCountFolder } from '../profile/count-files.ts'
import { Coverage, type FileCoverage, lcovText } from '../profile/coverage.ts'
import { MAXIMUM_SECONDS, measureFarm, measureRecording } from '../profile/measure.ts'
import { knownProjects } from '../project.ts'
import { formatTable, note, print, printJson, warn } from '../terminal.ts'

interface CoverageCommandOptions extends FarmSelection {
  readonly output?: string
  readonly seconds?: number
  readonly server?: string
  readonly replay?: string
  readonly json?: boolean
}

/** What ran, and how often each of its instructions. */
interface Counted {
  readonly firmware: LoadedFirmware
  readonly counts: Iterable<readonly [number, number]>
}

const DEFAULT_SECONDS = 5

export function addCoverageCommand(program: Command): void {
  program
    .command('coverage')
    .summary('which lines of the firmware were executed')
    .description(
      'Counts how often each line and function of the firmware is executed: while a command runs, in a running farm, or in a recording.',
    )
    .argument('[command...]', 'behind --: a command, as npm test, all whose farms in virtual time count')
    .option('-o, --output <file>', 'write an lcov trace file, as genhtml and editors read it')
    .option('-n, --seconds <n>', `how long to look at a running farm (default: ${DEFAULT_SECONDS})`, secondsArgument)
    .option('-s, --server <name>', 'one server only')
    .option('--replay <file>', 'a recording (inic run --record FILE), in place of a running farm')
    .option('-f, --farm <file>', 'the farm, if more than one is running')
    .option('--state <dir>', 'where that farm keeps its state')
    .option('--json', 'the table as JSON')
    .passThroughOptions()
    .addHelpText(
      'after',
      `
Lines are those of the AssemblyScript source, by the source map of the build: build first, and cover what was built. A line that the compiler
made no code from is not counted; the debug build has the most lines.

Around a command, every board of a farm in virtual time counts, at about a microsecond an instruction; farms in real time go on as ever. The
exit code is the command's own.

Examples:
  inic coverage -o lcov.info -- npm test
  inic coverage --replay farm.rec -o lcov.info && genhtml lcov.info -o html
  inic coverage --server server1 -n 2                 of a running farm`,
    )
    .action(async (command: readonly string[], options: CoverageCommandOptions) => {
      checkOptions(command, options)
      if (command.length === 0) return report(counted(options), options)
      const directory = mkdtempSync(join(tmpdir(), 'inic-coverage-'))
      try {
        const exitCode = await run(command, directory)
        await report(fromFolder(directory), options)
        if (exitCode !== 0) {
          throw new CommandError(`${command[0]} ended with ${exitCode}; what it covered is counted all the same`, {
            exitCode,
          })
        }
      } finally {
        rmSync(directory, { recursive: true, force: true })
      }
    })
}

function checkOptions(command: readonly string[], options: CoverageCommandOptions): void {
  const { replay, seconds, server, farm, state } = options
  if (command.length > 0 && (replay ?? seconds ?? server ?? farm ?? state) !== undefined)
    throw usageError('--replay, --seconds, --server, --farm and --state go without a command')
  if (replay !== undefined && (seconds ?? farm ?? state) !== undefined)
    throw usageError('--replay goes without --seconds, --farm and --state', 'a recording is looked at as a whole')
}

async function counted({ replay, server, seconds, ...farm }: CoverageCommandOptions): Promise<Counted[]> {
  const how = { mode: 'count' } as const
  const measured =
    replay !== undefined
      ? measureRecording(replay, server, how)
      : await measureFarm(farm, server, how, seconds ?? DEFAULT_SECONDS)
  return measured.map(({ firmware, measurement }) => ({ firmware, counts: measurement.counts }))
}

async function fromFolder(directory: string): Promise<Counted[]> {
  const library = new FirmwareLibrary(knownProjects())
  return readCountFolder(directory).map(({ wasm, counts }) => ({ firmware: library.find(wasm, 'firmware'), counts }))
}

/** Runs the command to its end; gives its exit code. */
async function run([program, ...words]: readonly string[], directory: string): Promise<number> {
  const child = spawn(program!, words, {
    stdio: 'inherit',
    env: { ...process.env, [COUNT_FOLDER_VARIABLE]: directory },
  })
  // The terminal sends Ctrl-C to the command too; what it covered until then counts.
  const ignore = () => {}
  process.on('SIGINT', ignore).on('SIGTERM', ignore)
  try {
    const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null]
    return code ?? 128 + constants.signals[signal!]
  } catch (error) {
    throw usageError(`${program} cannot be run: ${errorMessage(error)}`)
  } finally {
    process.off('SIGINT', ignore).off('SIGTERM', ignore)
  }
}

async function report(found: Promise<Counted[]>, options: CoverageCommandOptions): Promise<void> {
  const coverage = new Coverage()
  let unknown = 0
  for (const { firmware, counts } of await found) {
    if (firmware.texts.sourceMap === undefined) unknown++
    else coverage.add(firmware.program, counts)
  }
  if (unknown > 0) warn(`${unknown} firmware without a build here: its lines are not known, and not counted`)
  const { files } = coverage
  if (options.output !== undefined) {
    try {
      await replaceFile(resolve(options.output), lcovText(files))
    } catch (error) {
      throw usageError(`${options.output} cannot be written: ${errorMessage(error)}`)
    }
    note(`${options.output}: ${files.length} files`)
  }
  if (options.json) printJson(files.map(summary))
  else printTable(files)
}

interface Summary {
  readonly file: string
  readonly lines: number
  readonly linesHit: number
  readonly functions: number
  readonly functionsHit: number
}

function summary({ name, lines, functions }: FileCoverage): Summary {
  const hit = (counts: Iterable<number>) => [...counts].filter((count) => count > 0).length
  return {
    ...{ file: name, lines: lines.size, linesHit: hit(lines.values()), functions: functions.size },
    functionsHit: hit([...functions.values()].map(({ calls }) => calls)),
  }
}

function printTable(files: readonly FileCoverage[]): void {
  if (files.length === 0) {
    print('nothing was executed whose source is known')
    return
  }
  const rows = files.map(summary)
  const total = rows.reduce((sum, row) => ({
    ...{ file: 'all', lines: sum.lines + row.lines, linesHit: sum.linesHit + row.linesHit },
    ...{ functions: sum.functions + row.functions, functionsHit: sum.functionsHit + row.functionsHit },
  }))
  const share = (part: number, whole: number) => (whole === 0 ? '-' : ((100 * part) / whole).toFixed(1))
  const cells = ({ file, lines, linesHit, functions, functionsHit }: Summary) => [
    ...[file, share(linesHit, lines), `${linesHit} of ${lines}`],
    ...[share(functionsHit, functions), `${functionsHit} of ${functions}`],
  ]
  const header = ['file', 'lines %', 'lines', 'functions %', 'functions']
  for (const line of formatTable(header, [...rows, total].map(cells))) print(line)
}

function secondsArgument(text: string): number {
  const seconds = Number(text)
  if (!/^\d+(\.\d+)?$/.test(text) || seconds <= 0 || seconds > MAXIMUM_SECONDS)
    throw new InvalidArgumentError(`Write a number of seconds above 0, and ${MAXIMUM_SECONDS} at most.`)
  return seconds
}
