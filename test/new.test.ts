/** inic new: what it makes, what it refuses, and what commands do inside of a project. */
import { execFile } from 'node:child_process'
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test from 'ava'
import { dependencyOn } from '../toolchain/new/dependency.ts'
import { TEMPLATE_NAMES } from '../toolchain/new/templates.ts'
import { packageRoot, packageVersion } from '../toolchain/package-root.ts'
import { inic } from './support/cli.ts'
import { linkedProject } from './support/project.ts'
import { temporaryDirectory } from './support/tiny-firmware.ts'

const execute = promisify(execFile)
const TSC = join(packageRoot, 'node_modules/typescript/bin/tsc')

test('makes a folder, and says what to do next', async (t) => {
  const cwd = await temporaryDirectory()
  const { code, stdout, stderr } = await inic(['new', 'my-nic', '--template', 'echo'], { cwd })
  t.is(code, 0, stderr)
  t.regex(stdout, /^my-nic: a firmware project, answers ARP/)
  t.regex(stderr, /cd my-nic && npm install && npm test/)
  t.deepEqual((await readdir(join(cwd, 'my-nic'))).sort(), [
    '.gitignore',
    'README.md',
    'asconfig.json',
    'client.mjs',
    'farm.json',
    'firmware',
    'package.json',
    'test',
  ])
  const { name, devDependencies } = JSON.parse(await readFile(join(cwd, 'my-nic/package.json'), 'utf8'))
  t.is(name, 'my-nic')
  t.regex(devDependencies.inic, /^file:/)
  for (const file of await readdir(join(cwd, 'my-nic'), { recursive: true, withFileTypes: true })) {
    if (!file.isFile()) continue
    t.notRegex(await readFile(join(file.parentPath, file.name), 'utf8'), /\{\{/, file.name)
  }
})

test('says what it made as JSON', async (t) => {
  const cwd = await temporaryDirectory()
  const { stdout } = await inic(['new', 'deep/down/nic', '--json'], { cwd })
  const made = JSON.parse(stdout)
  t.is(made.template, 'hello')
  t.is(made.directory, join(cwd, 'deep/down/nic'))
  t.true(made.files.includes('firmware/index.ts'))
})

const REFUSED: Readonly<Record<string, { args: string[]; says: RegExp }>> = {
  'a name that no package can have': {
    args: ['new', 'My Nic'],
    says: /'My Nic' cannot be the name[\s\S]*inic new my-nic/,
  },
  'a folder with something in it': { args: ['new', 'full'], says: /full is not empty/ },
  'a file': { args: ['new', 'file'], says: /there is a file .*file/ },
  'a template that there is not': { args: ['new', 'x', '--template', 'l3router'], says: /l2switch/ },
  'no name': { args: ['new'], says: /missing required argument 'name'/ },
}
for (const [name, { args, says }] of Object.entries(REFUSED)) {
  test(`refused: ${name}`, async (t) => {
    const cwd = await temporaryDirectory()
    await mkdir(join(cwd, 'full'))
    await writeFile(join(cwd, 'full', 'x'), '')
    await writeFile(join(cwd, 'file'), '')
    const { code, stderr } = await inic(args, { cwd })
    t.is(code, 2)
    t.regex(stderr, says)
  })
}

/** A folder with this package in its node_modules, as npm leaves it; `lock` is what npm notes of where it came from. */
async function installed(lock: object | string | undefined): Promise<string> {
  const home = await temporaryDirectory()
  await mkdir(join(home, 'node_modules/inic'), { recursive: true })
  await writeFile(join(home, 'inic-0.1.0.tgz'), '')
  await mkdir(join(home, 'cloned inic'))
  if (lock !== undefined) {
    const text = typeof lock === 'string' ? lock : JSON.stringify({ packages: { 'node_modules/inic': lock } })
    await writeFile(join(home, 'node_modules/.package-lock.json'), text)
  }
  return home
}

const RANGE = `^${packageVersion}`
const INSTALLED: Readonly<Record<string, { lock: object | string | undefined; dependency: string }>> = {
  'from the registry': { lock: { resolved: 'https://registry.npmjs.org/inic/-/inic-0.1.0.tgz' }, dependency: RANGE },
  'from a packed file': { lock: { resolved: 'file:inic-0.1.0.tgz' }, dependency: 'file:../inic-0.1.0.tgz' },
  'from a folder with a space in its name': {
    lock: { resolved: 'file:cloned%20inic' },
    dependency: 'file:../cloned inic',
  },
  'from a packed file that is gone': { lock: { resolved: 'file:elsewhere.tgz' }, dependency: RANGE },
  'by a package manager that keeps no such record': { lock: undefined, dependency: RANGE },
  'with a record of another form': { lock: '[]', dependency: RANGE },
  'with a damaged record': { lock: '{', dependency: RANGE },
}
for (const [name, { lock, dependency }] of Object.entries(INSTALLED)) {
  test(`how a project asks for a package installed ${name}`, async (t) => {
    const home = await installed(lock)
    t.is(dependencyOn(join(home, 'x'), join(home, 'node_modules/inic')), dependency)
  })
}

test('a cloned package is asked for by its folder', (t) => {
  t.is(dependencyOn('/home/a/x', '/home/a/inic'), 'file:../inic')
  t.is(dependencyOn('/home/a', '/home/a/inic'), 'file:./inic')
})

for (const template of TEMPLATE_NAMES) {
  test(`${template}: editors find no fault in it`, async (t) => {
    const directory = await linkedProject(template)
    const { stdout } = await execute(process.execPath, [TSC, '-p', 'firmware'], { cwd: directory }).catch(
      (error) => error,
    )
    t.is(stdout, '')
  })
}

test('commands without an argument mean the project that they are run in', async (t) => {
  t.timeout(300_000)
  const directory = await linkedProject('hello')
  const run = (...args: string[]) => inic(args, { cwd: join(directory, 'firmware') })

  const early = await run('flash')
  t.is(early.code, 2)
  t.regex(early.stderr, /there is no firmware image [\s\S]*make it with: inic build --release\n/)

  const build = await run('build', '--release', '--json')
  t.is(build.code, 0, build.stderr)
  const { image, sha256 } = JSON.parse(build.stdout)
  t.is(image, join(directory, 'build/release/firmware.img'))

  const check = await run('check', '--json')
  t.is(JSON.parse(check.stdout).farm.name, 'hello')

  const flash = await run('flash', '--json')
  t.is(flash.code, 0, flash.stderr)
  const flashed = JSON.parse(flash.stdout)
  t.is(flashed.sha256, sha256)
  t.is(flashed.flash, join(directory, '.inic/hello/card.flash'))

  const farm = await run('run', '--virtual', '--for', '3s')
  t.is(farm.code, 0, farm.stderr)
  t.regex(farm.stderr, /card \| hello from hello, with 64 MiB/)
  t.regex(farm.stdout, /virtual time: 3\.000000 s/)
})

test('a farm without applications has no end in virtual time, and says so', async (t) => {
  t.timeout(300_000)
  const directory = await linkedProject('hello')
  await inic(['build', '--release'], { cwd: directory })
  const { code, stderr } = await inic(['run', '--virtual'], { cwd: directory })
  t.is(code, 2)
  t.regex(stderr, /--for 10s/)
})

test('a program on a server whose firmware has no sockets is not started', async (t) => {
  t.timeout(300_000)
  const directory = await linkedProject('hello')
  await inic(['build', '--release'], { cwd: directory })
  await writeFile(join(directory, 'program.mjs'), 'export function main() {}')
  const farm = join(directory, 'farm.json')
  const text = await readFile(farm, 'utf8')
  await writeFile(
    farm,
    text.replace(
      '"name": "card",',
      '"name": "card", "applications": [{ "name": "app", "program": "program.mjs", "kind": "board" }],',
    ),
  )
  const { code, stderr } = await inic(['run', '--for', '1s'], { cwd: directory })
  t.is(code, 0, stderr)
  t.regex(stderr, /card: its firmware has no sockets, so 'app' is not started/)
})

test('farm files: firmware that is not there', async (t) => {
  const directory = await temporaryDirectory()
  const file = join(directory, 'farm.json')
  const farm = (firmware: string) =>
    `{ "networks": [{ "name": "n" }], "servers": [{ "name": "s", "firmware": "${firmware}", "interfaces": [{ "network": "n" }] }] }`
  await writeFile(file, farm('nowhere'))
  t.regex((await inic(['check', file])).stderr, /there is no file or folder .*nowhere/)
  await mkdir(join(directory, 'empty'))
  await writeFile(file, farm('empty'))
  t.regex((await inic(['check', file])).stderr, /no firmware project: there is no asconfig\.json in it/)
})
