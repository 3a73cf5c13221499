/**
 * The package as npm packs it: installed into an empty folder it needs no Rust and no compiler of ours, and a project of each template
 * installs, tests, flashes and runs from there.
 */
import { execFile } from 'node:child_process'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'
import test from 'ava'
import { availableCpu } from '../emulator/cpu/index.ts'
import { TEMPLATE_NAMES } from '../toolchain/new/templates.ts'
import { packageRoot } from '../toolchain/package-root.ts'
import { temporaryDirectory } from './support/tiny-firmware.ts'

const execute = promisify(execFile)
const TIMEOUT_MS = 240_000

/** The environment of somebody who has Node and nothing else, not even what npm tells the programs that it runs. */
const ENVIRONMENT = Object.fromEntries(
  Object.entries({
    ...process.env,
    NODE_OPTIONS: '',
    PATH: (process.env.PATH ?? '')
      .split(delimiter)
      .filter((folder) => !/cargo|node_modules/.test(folder))
      .join(delimiter),
  }).filter(([name]) => !/^(npm_|INIT_CWD$|NODE_TEST_CONTEXT$)/i.test(name)),
)

async function run(cwd: string, command: string, ...args: string[]): Promise<string> {
  try {
    const { stdout, stderr } = await execute(command, args, { cwd, env: ENVIRONMENT, timeout: TIMEOUT_MS })
    return stdout + stderr
  } catch (error) {
    const { stdout, stderr, message } = error as Error & { stdout?: string; stderr?: string }
    throw new Error(`${[command, ...args].join(' ')}: ${message}\n${stdout}\n${stderr}`)
  }
}

const npm = (cwd: string, ...args: string[]) => run(cwd, 'npm', ...args)
const INSTALL = ['install', '--prefer-offline', '--no-audit', '--no-fund']

let home: string

test.before('pack, and install into an empty folder', async (t) => {
  t.timeout(TIMEOUT_MS)
  home = await temporaryDirectory()
  // Built already: npm would build again before it packs.
  await npm(packageRoot, 'pack', '--ignore-scripts', '--pack-destination', home)
  const [tarball] = (await readdir(home)).filter((file) => file.endsWith('.tgz'))
  await npm(home, ...INSTALL, `./${tarball}`)
})

test.serial(
  'it brings the addon, the image, the sources of the firmware and the documentation; no tests, no stale parts',
  async (t) => {
    const root = join(home, 'node_modules/inic')
    const has = async (folder: string, pattern: RegExp) =>
      (await readdir(join(root, folder))).some((file) => pattern.test(file))
    t.true(await has('build/release', /^firmware\.img$/))
    t.true(await has('firmware/hal', /^mac\.ts$/))
    t.true(await has('docs', /^datasheet\.md$/))
    t.is(await has('emulator/cpu', /^inic-cpu\.\w+-\w+(-\w+)?\.node$/), availableCpu() === 'wasmtime')
    t.false(await has('dist', /^test$/))
    t.false(await has('.', /^(node_modules|test|tsconfig\.json)$/))
  },
)

for (const template of TEMPLATE_NAMES) {
  test.serial(`${template}: from nothing to a farm that runs`, async (t) => {
    t.timeout(3 * TIMEOUT_MS)
    const name = `my-${template}`
    await run(home, 'npx', 'inic', 'new', name, '--template', template)
    const project = join(home, name)
    const { devDependencies } = JSON.parse(await readFile(join(project, 'package.json'), 'utf8'))
    t.regex(devDependencies.inic, /^file:\.\.\/inic-.*\.tgz$/)
    await npm(project, ...INSTALL)
    t.regex(await npm(project, 'test', '--', '--test-reporter=tap'), /# fail 0/)
    await npm(project, 'run', 'build')
    t.regex(await run(project, 'npx', 'inic', 'flash'), /written and verified/)
    const cpu = availableCpu()
    const publish = template === 'ipos' ? ['--publish', '0:server1:80'] : []
    const output = await run(project, 'npx', 'inic', 'run', '--cpu', cpu, '--for', '1s', ...publish)
    t.regex(output, /firmware 0\.1\.0 \(primary slot\), running/)
    // Flashed by hand and the same as the build: nothing to remark.
    t.notRegex(output, /flashed by hand/)
  })
}

test.serial('inic/testing has types', async (t) => {
  const project = join(home, 'typed')
  await mkdir(project)
  await writeFile(
    join(project, 'a.test.mts'),
    `import { bootCard, frames, projectFirmware } from 'inic/testing'
const card = bootCard({ firmware: await projectFirmware() })
const packet = await card.port(0).expectFrame({ udp: { sourcePort: 7 } })
const mac: string = packet.sourceMac
const bytes: Uint8Array = frames.padded(packet.frame)
// @ts-expect-error it is text
const wrong: number = packet.sourceMac
console.log(mac, bytes, wrong)
`,
  )
  const tsc = join(packageRoot, 'node_modules/typescript/bin/tsc')
  const types = ['--types', 'node', '--typeRoots', join(packageRoot, 'node_modules/@types')]
  const options = ['--noEmit', '--strict', '--skipLibCheck', '--target', 'es2023', '--module', 'nodenext', ...types]
  await run(project, process.execPath, tsc, ...options, 'a.test.mts')
  t.pass()
})
