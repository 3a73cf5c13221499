import { existsSync } from 'node:fs'
import type { Command } from 'commander'
import type { BenchEngine, BenchFigure, BenchReport } from '../bench-engine.ts'
import { suggest } from '../config/issues.ts'
import { CommandError, usageError } from '../errors.ts'
import { formatTable, note, paint, print, printJson, startProgress } from '../terminal.ts'

interface BenchCommandOptions {
  readonly quick?: boolean
  readonly list?: boolean
  readonly peer: string[]
  readonly json?: boolean
}

/** Found at run time: the toolchain compiles and runs where there are no benchmarks. */
const ENGINE_URL = new URL('../../bench/index.js', import.meta.url)

export function addBenchCommand(program: Command): void {
  program
    .command('bench')
    .summary('measure, beside the kernel and other stacks')
    .description(
      "Measures the farm against Node's net over the kernel's loopback, and other stacks, in one run on this machine.",
    )
    .argument('[case...]', 'what to measure; everything if left out')
    .option('-q, --quick', 'shorter runs: for a look, not for a comparison')
    .option('-l, --list', 'list what can be measured')
    .option('--peer <command>', 'a command that prints figures of another stack; may be repeated', collect, [])
    .option('--json', 'figures as JSON')
    .addHelpText(
      'after',
      `
Examples:
  inic bench --list
  inic bench --json > figures.json
  inic bench --quick
  inic bench bulk --peer ./lwip/run      beside a stack whose benchmark prints lines of JSON:
                                         {"peer":"lwip","bench":"bulk","unit":"Gbit/s","median":7.5}

Exit code 1: a figure misses its bar.`,
    )
    .action(async (names: string[], options: BenchCommandOptions) => {
      const engine = await loadEngine()
      if (options.list) {
        if (options.json) printJson(engine.cases)
        else
          for (const line of formatTable(
            ['case', 'measures'],
            engine.cases.map(({ name, summary }) => [name, summary]),
          ))
            print(line)
        return
      }
      const report = await run(engine, chooseCases(engine, names), options)
      if (options.json) printJson(report)
      else printReport(report)
      const missed = report.figures.filter((figure) => figure.reached === false)
      if (missed.length > 0)
        throw new CommandError(`${missed.length} of ${report.figures.length} figures miss their bar`)
    })
}

function collect(value: string, values: string[]): string[] {
  return [...values, value]
}

async function run(
  engine: BenchEngine,
  cases: readonly string[],
  { quick = false, peer: peers }: BenchCommandOptions,
): Promise<BenchReport> {
  const progress = startProgress('measuring')
  try {
    return await engine.run({ cases, quick, peers, onProgress: (text) => progress.update(text) })
  } finally {
    progress.end()
  }
}

async function loadEngine(): Promise<BenchEngine> {
  if (!existsSync(ENGINE_URL)) {
    throw new CommandError('this installation has no benchmarks', {
      hint: 'they come with the repository: bench/index.ts',
    })
  }
  const { engine } = (await import(ENGINE_URL.href)) as { engine: BenchEngine }
  return engine
}

function chooseCases(engine: BenchEngine, names: readonly string[]): string[] {
  const known = engine.cases.map((item) => item.name)
  const unknown = names.find((name) => !known.includes(name))
  if (unknown !== undefined)
    throw usageError(`there is no case '${unknown}'`, suggest(unknown, known) ?? `there are: ${known.join(', ')}`)
  return names.length > 0 ? [...names] : known
}

function printReport({ figures, environment }: BenchReport): void {
  const rows = figures.map((figure) => [
    figure.case,
    figure.name,
    formatNumber(figure.value),
    figure.unit,
    ...compare(figure),
  ])
  for (const line of formatTable(['case', 'figure', 'value', 'unit', 'beside', 'ratio', 'bar'], rows)) print(line)
  note(
    Object.entries(environment)
      .map(([name, value]) => `${name} ${value}`)
      .join(', '),
  )
}

function compare({ value, reference, bar, reached }: BenchFigure): string[] {
  const verdict =
    bar === undefined ? '' : `${reached === false ? paint(process.stdout, 'red', 'missed') : 'reached'}: ${bar}`
  if (reference === undefined) return ['', '', verdict]
  return [`${reference.name} ${formatNumber(reference.value)}`, (value / reference.value).toFixed(2), verdict]
}

function formatNumber(value: number): string {
  return value.toLocaleString('en', { maximumSignificantDigits: 4 })
}
