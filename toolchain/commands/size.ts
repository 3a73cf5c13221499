import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { type FarmSelection, withFarm } from '../control/client.ts'
import { FirmwareLibrary } from '../debug/session/firmware.ts'
import { createProgram, type Program } from '../debug/symbols/index.ts'
import { errorMessage, usageError } from '../errors.ts'
import { readIfPresentSync } from '../files.ts'
import { artifacts, type BuildTarget } from '../firmware/artifacts.ts'
import { encodeHex } from '../image/hex.ts'
import { decodeImage } from '../image/image.ts'
import { tableObjects } from '../inspect/table.ts'
import { packageRoot } from '../package-root.ts'
import { type CodeSize, codeSize, type Growth, growth, sizeByFolder } from '../profile/code-size.ts'
import { knownProjects } from '../project.ts'
import { formatTable, note, paint, print, printJson } from '../terminal.ts'

interface SizeCommandOptions extends FarmSelection {
  readonly target: BuildTarget
  readonly against?: string
  readonly server?: string | true
  readonly top: number
  readonly json?: boolean
}

const DEFAULT_TOP = 25
/** An image begins with MCUboot's magic, a module with this. */
const WASM_MAGIC = '0061736d'

export function addSizeCommand(program: Command): void {
  program
    .command('size')
    .summary('what a firmware takes: code by function and file, data; INIC memory by pool')
    .description(
      'Shows where the bytes of a firmware come from, by function and file of its source, and how it grew; or what INIC memory of a running farm is used for.',
    )
    .argument('[file]', 'an image or a firmware.wasm (default: what was built last in this folder, or ipOS)')
    .addOption(new Option('--target <target>', 'of what was built').choices(['debug', 'release']).default('release'))
    .option('--against <file>', 'what it was before: an image or a firmware.wasm')
    .option('-s, --server [name]', 'INIC memory by pool, of one server or all of a running farm')
    .option('-f, --farm <file>', 'with --server: the farm, if more than one is running')
    .option('--state <dir>', 'with --server: where that farm keeps its state')
    .option('--top <n>', 'functions that are shown', countArgument, DEFAULT_TOP)
    .option('--json', 'everything as JSON')
    .addHelpText(
      'after',
      `
Code that the optimizer put inline counts to the function that it was written in; "copies" tells in how many places it stands. What is known of
the source comes from the build beside the module, or from the build in this folder if it holds the same module.

Examples:
  inic size                                    what inic build --release made
  cp build/release/firmware.* /tmp/before/     then change something, build, and see what it costs:
  inic size --against /tmp/before/firmware.wasm
  inic size --server server1                   pools of a running INIC`,
    )
    .action(async (file: string | undefined, options: SizeCommandOptions) => {
      if (options.server !== undefined) return showMemory(file, options)
      const after = open(file ?? defaultFile(options.target))
      if (options.against === undefined) {
        const size = codeSize(after.program)
        if (options.json)
          printJson({ file: after.path, ...size, files: Object.fromEntries(sizeByFolder(size.functions)) })
        else showSize(after, size, options.top)
      } else compare(open(options.against), after, options)
    })
}

/** A module with what is known of its source. */
interface Opened {
  readonly path: string
  readonly program: Program
  readonly hasSource: boolean
}

function defaultFile(target: BuildTarget): string {
  const here = artifacts(process.cwd(), target).wasm
  const path = existsSync(here) ? here : artifacts(packageRoot, target).wasm
  if (existsSync(path)) return path
  throw usageError('nothing has been built', `build it: inic build${target === 'release' ? ' --release' : ''}`)
}

function open(path: string): Opened {
  const wasm = readModule(path)
  try {
    const beside = readBeside(path, wasm)
    const program = beside ?? new FirmwareLibrary(knownProjects()).find(wasm, relative(process.cwd(), path)).program
    return { path, program, hasSource: program.files.length > 0 }
  } catch (error) {
    throw usageError(`${path} is no firmware: ${errorMessage(error)}`)
  }
}

function readModule(path: string): Uint8Array {
  let bytes: Buffer
  try {
    bytes = readFileSync(path)
  } catch (error) {
    throw usageError(`${path} cannot be read: ${errorMessage(error)}`)
  }
  if (encodeHex(bytes.subarray(0, 4)) === WASM_MAGIC) return bytes
  try {
    return decodeImage(bytes).payload
  } catch (error) {
    throw usageError(`${path} is neither an image nor a module: ${errorMessage(error)}`)
  }
}

/** From the files of a build that lie in the same folder, if they are of this very module. */
function readBeside(path: string, wasm: Uint8Array): Program | undefined {
  const directory = dirname(resolve(path))
  const read = (name: string) => readIfPresentSync(join(directory, name))?.toString()
  const built = readIfPresentSync(join(directory, 'firmware.wasm'))
  const sourceMap = read('firmware.wasm.map')
  if (built === undefined || sourceMap === undefined || Buffer.compare(built, wasm) !== 0) return undefined
  return createProgram({ wasm, sourceMap, symbols: read('firmware.symbols.json') })
}

function showSize({ path, hasSource }: Opened, size: CodeSize, top: number): void {
  print(`${paint(process.stdout, 'bold', relative(process.cwd(), path) || path)}: ${number(size.bytes)} bytes`)
  if (!hasSource) note('nothing is known of its source: functions are those of the module')
  const share = (bytes: number) => ((100 * bytes) / size.bytes).toFixed(1)
  table(
    ['bytes', '%', 'section'],
    size.sections.map(({ name, bytes }) => [number(bytes), share(bytes), name]),
  )
  if (size.data.length > 0) {
    table(
      ['bytes', 'data at'],
      size.data.map(({ address, bytes }) => [number(bytes), address === undefined ? '-' : `0x${address.toString(16)}`]),
    )
  }
  if (hasSource) {
    table(
      ['bytes', '%', 'code of'],
      [...sizeByFolder(size.functions)].map(([name, bytes]) => [number(bytes), share(bytes), indented(name)]),
    )
  }
  table(
    ['bytes', '%', 'copies', 'function', 'declared at'],
    size.functions
      .slice(0, top)
      .map(({ bytes, copies, name, file, line }) => [
        ...[number(bytes), share(bytes), String(copies), name],
        file === undefined ? '-' : line === undefined ? file : `${file}:${line}`,
      ]),
  )
  if (size.functions.length > top) note(`… ${size.functions.length - top} more functions; --top shows them`)
}

/** By the source if it is known on both sides, else by the functions of the modules. */
function compare(before: Opened, after: Opened, { json, top }: SizeCommandOptions): void {
  const bySource = before.hasSource && after.hasSource
  const [old, now] = [codeSize(before.program, bySource), codeSize(after.program, bySource)]
  const functions = growth(old.functions, now.functions)
  const [oldSections, nowSections] = [sectionSizes(old), sectionSizes(now)]
  const sections = [...new Set([...nowSections.keys(), ...oldSections.keys()])].map(
    (name): Growth => ({
      name,
      file: undefined,
      before: oldSections.get(name) ?? 0,
      after: nowSections.get(name) ?? 0,
    }),
  )
  if (json) {
    const side = ({ path }: Opened, { bytes }: CodeSize) => ({ file: path, bytes })
    printJson({ before: side(before, old), after: side(after, now), bySource, sections, functions })
    return
  }
  if (!bySource) note('the source of one of them is not known: functions are those of the modules')
  print(`${number(old.bytes)} → ${number(now.bytes)} bytes, ${signed(now.bytes - old.bytes)}`)
  const changed = sections.filter((one) => one.before !== one.after)
  if (changed.length > 0)
    table(
      ['growth', '%', 'before', 'after', 'section'],
      changed.map((one) => growthCells(one)),
    )
  if (functions.length === 0) return print('\nno function changed its size')
  const rows = functions.slice(0, top).map((one) => [...growthCells(one), one.file ?? '-'])
  table(['growth', '%', 'before', 'after', 'function', 'file'], rows)
  if (functions.length > top) note(`… ${functions.length - top} more functions; --top shows them`)
}

/** Sections may bear one name: custom ones. */
function sectionSizes({ sections }: CodeSize): Map<string, number> {
  const sizes = new Map<string, number>()
  for (const { name, bytes } of sections) sizes.set(name, (sizes.get(name) ?? 0) + bytes)
  return sizes
}

function growthCells({ name, before, after }: Growth): string[] {
  const share =
    before === 0
      ? 'new'
      : after === 0
        ? 'gone'
        : `${after > before ? '+' : ''}${(((after - before) * 100) / before).toFixed(1)}`
  return [signed(after - before), share, number(before), number(after), name]
}

async function showMemory(file: string | undefined, options: SizeCommandOptions): Promise<void> {
  if (file !== undefined || options.against !== undefined)
    throw usageError('--server shows INIC memory of a running farm, and goes without files')
  const server = options.server === true ? {} : { server: options.server! }
  await withFarm(options, async (client) => {
    const found = await client.request('inspect', { what: 'memory', ...server })
    const memories = found.map(({ server: name, tables, remark }) => ({ name, pools: tables[0], remark }))
    if (options.json) {
      printJson(
        memories.map(({ name, pools }) => ({ server: name, pools: pools === undefined ? [] : tableObjects(pools) })),
      )
      return
    }
    for (const { name, pools, remark } of memories) {
      print(`${paint(process.stdout, 'bold', name)}${remark === undefined ? '' : `: ${remark}`}`)
      if (pools === undefined) continue
      const rows = tableObjects(pools)
      const total = rows.reduce((sum, row) => sum + Number(row.bytes), 0)
      table(
        ['bytes', '%', 'rows', 'used', 'used %', 'pool'],
        rows
          .sort((a, b) => Number(b.bytes) - Number(a.bytes))
          .map(({ bytes, rows: count, used, what }) => [
            ...[number(Number(bytes)), ((100 * Number(bytes)) / total).toFixed(1), number(Number(count))],
            ...(used === null ? ['-', '-'] : [number(Number(used)), ((100 * Number(used)) / Number(count)).toFixed(1)]),
            String(what),
          ]),
      )
      print(`${number(total)} bytes in ${rows.length} pools`)
    }
  })
}

function table(header: readonly string[], rows: readonly (readonly string[])[]): void {
  print('')
  for (const line of formatTable(header, rows)) print(line)
}

/** A file stands below its folder. */
function indented(name: string): string {
  const depth = name.replace(/\/$/, '').split('/').length - 1
  const last = name.replace(/\/$/, '').split('/').at(-1)!
  return `${'  '.repeat(depth)}${last}${name.endsWith('/') ? '/' : ''}`
}

function number(value: number): string {
  return value.toLocaleString('en-GB')
}

function signed(value: number): string {
  return `${value > 0 ? '+' : ''}${number(value)}`
}

function countArgument(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('Write a whole number.')
  return Number(text)
}
