import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'

/** The crate's sources, which stay where they are when TypeScript is compiled to dist/. */
const CRATE = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'emulator', 'cpu')
const SOURCES = ['build.mjs', 'Cargo.toml', 'Cargo.lock', 'build.rs', 'src']
const ADDON = /^inic-cpu\..*\.node$/

const isBuilt = readdirSync(CRATE).some((file) => ADDON.test(file))
const hasRust = [...(process.env.PATH ?? '').split(':'), join(homedir(), '.cargo/bin')].some((folder) =>
  existsSync(join(folder, 'rustc')),
)
const withRust = isBuilt && hasRust && process.platform !== 'win32' ? test : test.skip

/** A clone of the crate, as far as asked for, and a home of its own. */
function clone(t: ExecutionContext, files: readonly string[] = SOURCES) {
  const root = mkdtempSync(join(tmpdir(), 'inic-cpu-'))
  t.teardown(() => rmSync(root, { recursive: true }))
  const crate = join(root, 'cpu')
  for (const file of files) cpSync(join(CRATE, file), join(crate, file), { recursive: true })
  const run = (env: NodeJS.ProcessEnv = process.env) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [join(crate, 'build.mjs')], {
      env,
      encoding: 'utf8',
    })
    return { status, output: stdout + stderr }
  }
  const addons = () => readdirSync(crate).filter((file) => ADDON.test(file))
  return { root, crate, run, addons, home: { HOME: root, XDG_CACHE_HOME: join(root, 'cache') } }
}

withRust('does nothing when the addon is there', (t) => {
  t.is(execFileSync(process.execPath, [join(CRATE, 'build.mjs')], { encoding: 'utf8', stdio: 'pipe' }), '')
})

withRust('a second clone takes the addon from the cache', (t) => {
  // The first put it there.
  execFileSync(process.execPath, [join(CRATE, 'build.mjs')])
  const { run, addons } = clone(t)
  const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'inic', 'addon')
  if (!existsSync(cache)) return t.pass('the addon came with the package')
  t.deepEqual(run(), { status: 0, output: '' })
  t.is(addons().length, 1)
  t.deepEqual(run(), { status: 0, output: '' })
})

test('without cargo it says so, and that is no failure', (t) => {
  const { run, addons, home } = clone(t)
  const { status, output } = run({ ...home, PATH: '' })
  t.is(status, 0)
  t.regex(output, /^inic-cpu: cargo not found: .*--cpu v8.*rustup.*\n$/)
  t.deepEqual(addons(), [])
})

test('an installed package has nothing to build', (t) => {
  const { run, home } = clone(t, ['build.mjs'])
  t.deepEqual(run({ ...home, PATH: '' }), { status: 0, output: '' })
})

test('a build that fails is a failure', (t) => {
  const { root, run, addons, home } = clone(t)
  const bin = join(root, 'bin')
  mkdirSync(bin)
  writeFileSync(join(bin, 'rustc'), '#!/bin/sh\necho host: x86_64-unknown-linux-gnu\n')
  writeFileSync(join(bin, 'cargo'), '#!/bin/sh\necho error: no such thing >&2\nexit 101\n')
  for (const program of ['rustc', 'cargo']) chmodSync(join(bin, program), 0o755)
  const { status, output } = run({ ...home, PATH: bin })
  t.is(status, 1)
  t.regex(output, /about 4 minutes the first time/)
  t.regex(output, /no such thing/)
  t.regex(output, /was not built/)
  t.deepEqual(addons(), [])
})
