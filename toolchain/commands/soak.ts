import { readFile } from 'node:fs/promises'
import type { Command } from 'commander'
import { MAXIMUM_PEERS } from '../../abi/boot.ts'
import { wallNs } from '../../emulator/clock.ts'
import { CommandError, usageError } from '../errors.ts'
import { artifacts } from '../firmware/artifacts.ts'
import type { Layouts } from '../firmware/layouts.ts'
import { packageRoot } from '../package-root.ts'
import { type SoakReport, soak } from '../soak/soak.ts'
import { note, print, printJson, startProgress } from '../terminal.ts'
import type { FarmFirmware } from '../testing/firmware.ts'

interface SoakCommandOptions {
  readonly seed: string
  readonly hours: number
  readonly servers: number
  readonly capture?: string
  readonly json?: boolean
}

const HOUR_MS = 3600_000

export function addSoakCommand(program: Command): void {
  program
    .command('soak')
    .summary('search for faults that bring the farm out of step')
    .description(
      `Runs a farm in virtual time, idle time skipped, under connections of all kinds: answers, uploads and downloads that move between
servers, drains, ports that are used again. Frames are lost, doubled, late, swapped and broken; cables are cut; servers are switched off.
All of it is drawn from the seed. Watched is that every client gets every byte or an error, that of each connection one server
speaks, in the order of its moves, and that nothing is left when all is over.`,
    )
    .option('--seed <text>', 'what all is drawn from; the same seed brings the same run', 'soak')
    .option('--hours <number>', 'virtual time', number('hours', 0.01, 100_000), 1)
    .option('--servers <number>', 'how many there are', number('servers', 2, MAXIMUM_PEERS + 1), 3)
    .option(
      '--capture <file>',
      'write the frames of the last half hour of storms, and of the silence after it, as pcapng',
    )
    .option('--json', 'the report as JSON')
    .addHelpText(
      'after',
      `
Examples:
  inic soak --hours 24                   a day of the farm, in some minutes
  inic soak --seed tuesday --servers 5
  inic soak --seed tuesday --capture tuesday.pcapng   what led to a violation, frame by frame

Exit code 1: something happened that must not; the command that shows it again is printed.`,
    )
    .action(run)
}

function number(name: string, least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (!(value >= least && value <= most))
      throw usageError(`--${name} ${text}: give a number from ${least} to ${most}`)
    return value
  }
}

async function run({ seed, hours, servers, capture, json = false }: SoakCommandOptions): Promise<void> {
  const firmware = await loadFirmware()
  const progress = startProgress('soaking')
  const startNs = wallNs()
  const onProgress = (virtualMs: number) => progress.update(`soaking: ${clock(virtualMs)} of ${hours} h`)
  const options = { seed, hours, servers, onProgress, ...(capture !== undefined && { capture }) }
  const report = await soak(firmware, options).finally(() => progress.end())
  const wallMs = (wallNs() - startNs) / 1e6
  const replay = `inic soak --seed ${JSON.stringify(seed)} --hours ${hours} --servers ${servers}`
  if (json) printJson({ ...report, wallMs, ratio: report.virtualMs / wallMs, replay })
  else printReport(report, wallMs)
  if (report.violations.length === 0) return
  const count = report.violations.length
  throw new CommandError(`${count} ${count === 1 ? 'thing' : 'things'} happened that must not`, {
    hint: `again: ${replay}`,
  })
}

async function loadFirmware(): Promise<FarmFirmware> {
  const { wasm, layouts } = artifacts(packageRoot, 'release')
  try {
    const [module, text] = await Promise.all([readFile(wasm), readFile(layouts, 'utf8')])
    return { wasm: module, layouts: JSON.parse(text) as Layouts }
  } catch {
    throw usageError('there is no firmware', 'make it with: inic build --release')
  }
}

function printReport(report: SoakReport, wallMs: number): void {
  const { virtualMs, conversations, endings, excused, moved, stayed, disasters, framesStruck, before, violations } =
    report
  const ratio = Math.round(virtualMs / wallMs)
  print(`${clock(virtualMs)} of a farm of ${report.servers} servers in ${clock(wallMs)}: ${ratio} times as fast`)
  print(
    `${conversations} connections: ${counts(endings)}; ${excused} had a server or a lease less and were free to fail`,
  )
  print(`${moved} live moves; others failed: ${counts(stayed)}`)
  print(`${framesStruck} frames struck; ${counts(disasters)}`)
  for (const { ms, what } of before) note(`${clock(ms)} ${what}`)
  for (const { ms, what } of violations) note(`${clock(ms)} ${what}`)
}

function counts(record: Readonly<Record<string, number>>): string {
  return Object.entries(record)
    .sort(([, a], [, b]) => b - a)
    .map(([name, count]) => `${count} ${name}`)
    .join(', ')
}

/** Hours, minutes, seconds and milliseconds. */
function clock(ms: number): string {
  const two = (value: number) => String(Math.floor(value)).padStart(2, '0')
  const seconds = ((ms / 1000) % 60).toFixed(3).padStart(6, '0')
  return `${two(ms / HOUR_MS)}:${two((ms / 60_000) % 60)}:${seconds}`
}
