/**
 * The least that is firmware, in a folder of its own: what the tests of build, flash and farm use where ipOS itself is not
 * what they test.
 */
import { rmSync } from 'node:fs'
import { mkdir, mkdtemp, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { packageRoot } from '../../toolchain/package-root.ts'

/** Serves nothing: counts its polls, and tells the board that it is ready. */
export const TINY_SOURCE = `
import './abort'

@unmanaged
class Counters {
  polls: u32
  flag: bool
  lastIrqs: u32
  nowNs: u64
}

const COUNTERS: usize = 0x20000

function counters(): Counters {
  return changetype<Counters>(COUNTERS)
}

export function reset(): void {
  counters().polls = 0
  store<u32>(0x1014, 1)
}

export function poll(irqs: u32): u32 {
  const c = counters()
  c.polls += 1
  c.lastIrqs = irqs
  return 1000000
}
`

const ASCONFIG = {
  entries: ['firmware/index.ts'],
  options: {
    runtime: 'stub',
    importMemory: true,
    noExportMemory: true,
    initialMemory: 16,
    memoryBase: 0x12000,
    stackSize: 0,
    use: ['abort=firmware/abort/abort'],
    sourceMap: true,
  },
  targets: { debug: { debug: true }, release: { optimizeLevel: 3, debug: true } },
}

const ABORT_SOURCE =
  'export function abort(message: usize, file: usize, line: u32, column: u32): void { unreachable() }\n'

export interface TinyFirmware {
  readonly source?: string
  readonly options?: Readonly<Record<string, unknown>>
  readonly files?: Readonly<Record<string, string>>
}

/** Writes a firmware project into a new temporary folder and gives its path. */
export async function tinyFirmware({
  source = TINY_SOURCE,
  options = {},
  files = {},
}: TinyFirmware = {}): Promise<string> {
  const directory = await temporaryDirectory()
  const contents: Record<string, string> = {
    'asconfig.json': JSON.stringify({ ...ASCONFIG, options: { ...ASCONFIG.options, ...options } }),
    'package.json': JSON.stringify({ name: 'tiny', version: '1.2.3' }),
    'firmware/index.ts': source,
    'firmware/abort.ts': ABORT_SOURCE,
    ...files,
  }
  for (const [name, text] of Object.entries(contents)) {
    await mkdir(dirname(join(directory, name)), { recursive: true })
    await writeFile(join(directory, name), text)
  }
  await symlink(join(packageRoot, 'node_modules'), join(directory, 'node_modules'))
  return directory
}

const temporary: string[] = []

/** A new folder that goes when this process does. */
export async function temporaryDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'inic-test-'))
  if (temporary.length === 0) {
    process.once('exit', () => {
      for (const path of temporary) rmSync(path, { recursive: true, force: true })
    })
  }
  temporary.push(directory)
  return directory
}
