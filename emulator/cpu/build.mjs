/**
 * Builds the CPU addon if it is not there: `node emulator/cpu/build.mjs`.
 *
 * The addon carries a fingerprint of what it was built from. The same fingerprint in place: nothing to do. In the user's
 * cache: copied from there, so that a second clone or a CI run does not compile. Else cargo builds it, in a target folder
 * of that cache too. Without cargo the emulator runs on `--cpu v8`, and that is no failure.
 */

import { execFileSync, spawnSync } from 'node:child_process'
import { createHash, randomUUID } from 'node:crypto'
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const PROFILE = 'release'

/** Clones that build at once share a target folder, and one may find the other's addon there: it builds again. */
const ATTEMPTS = 3

/** Addons kept in the cache, of some 12 MB each. One that is wanted again is built in seconds. */
const KEPT_ADDONS = 8

const crate = dirname(fileURLToPath(import.meta.url))
const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'inic')

/** A line for the person who waits. */
function say(line) {
  process.stderr.write(`inic-cpu: ${line}\n`)
}

/** A program of the Rust toolchain: on the PATH, or where rustup puts it. */
function find(program) {
  const folders = [...(process.env.PATH ?? '').split(delimiter), join(homedir(), '.cargo', 'bin')]
  return folders.map((folder) => join(folder, program)).find((file) => existsSync(file))
}

/** napi-rs's name for a compiler target: x86_64-unknown-linux-gnu is linux-x64-gnu. */
function platformOf(target) {
  const [cpu, , system, abi] = target.split('-')
  const arch = { x86_64: 'x64', aarch64: 'arm64' }[cpu] ?? cpu
  return [system, arch, abi].filter(Boolean).join('-')
}

/** Everything that decides what cargo makes of the crate. */
function fingerprintOf(compiler) {
  const hash = createHash('sha256')
  hash.update(JSON.stringify([compiler, process.platform, process.arch, PROFILE, process.env.RUSTFLAGS ?? '']))
  const sources = readdirSync(join(crate, 'src'), { recursive: true }).filter((file) => file.endsWith('.rs'))
  for (const file of ['Cargo.toml', 'Cargo.lock', 'build.rs', ...sources.sort().map((file) => join('src', file))]) {
    const content = readFileSync(join(crate, file))
    hash.update(`${file}\0${content.length}\0`).update(content)
  }
  return hash.digest('hex')
}

/** The file is there and is the addon of that fingerprint. */
function isAddon(file, fingerprint) {
  return existsSync(file) && readFileSync(file).includes(fingerprint)
}

/** Copies so that others see the whole file or none, and the old one stays whole for those who have it loaded. */
function place(from, to) {
  mkdirSync(dirname(to), { recursive: true })
  const part = join(dirname(to), `.${randomUUID()}.node`)
  try {
    copyFileSync(from, part)
    renameSync(part, to)
  } finally {
    rmSync(part, { force: true })
  }
}

/** The file loads, in a process of its own, and reports that fingerprint: nobody was writing to it when it was copied. */
function isSound(file, fingerprint) {
  const script = 'process.stdout.write(String(require(process.argv[1]).fingerprint()))'
  const { stdout } = spawnSync(process.execPath, ['-e', script, file], { encoding: 'utf8' })
  return stdout === fingerprint
}

/** Forgets the oldest addons of the cache. */
function prune() {
  const folder = join(cache, 'addon')
  const made = readdirSync(folder).map((name) => ({
    path: join(folder, name),
    time: statSync(join(folder, name)).mtimeMs,
  }))
  made.sort((a, b) => b.time - a.time)
  for (const { path } of made.slice(KEPT_ADDONS)) rmSync(path, { recursive: true, force: true })
}

/** Builds into `cached`. Returns false when cargo fails, which has told why. */
function build(cargo, fingerprint, cached) {
  const target = join(cache, 'cargo-target')
  const library = join(target, PROFILE, process.platform === 'darwin' ? 'libinic_cpu.dylib' : 'libinic_cpu.so')
  const env = { ...process.env, CARGO_TARGET_DIR: target, INIC_CPU_FINGERPRINT: fingerprint }
  for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
    const { status, error } = spawnSync(cargo, ['build', '--release', '--locked'], {
      cwd: crate,
      env,
      stdio: 'inherit',
    })
    if (error) say(`cargo does not run: ${error.message}`)
    if (status !== 0) return false
    place(library, cached)
    if (isSound(cached, fingerprint)) return true
    rmSync(cached, { force: true })
  }
  say(`${library} is not what was built: is something else building into ${target}?`)
  return false
}

function main() {
  // An installed package brings the addon and no crate.
  if (!existsSync(join(crate, 'Cargo.toml')) || !existsSync(join(crate, 'src'))) return 0
  if (process.platform === 'win32') {
    say('the Wasmtime CPU needs Linux or macOS: falling back to --cpu v8')
    return 0
  }
  const [cargo, rustc] = [find('cargo'), find('rustc')]
  if (!cargo || !rustc) {
    // One that was built before, and cannot be told from a newer one, is better than none.
    const built = readdirSync(crate).some((file) => /^inic-cpu\..*\.node$/.test(file))
    if (!built) say('cargo not found: falling back to --cpu v8. For the Wasmtime CPU install Rust, https://rustup.rs')
    return 0
  }
  const compiler = execFileSync(rustc, ['-vV'], { encoding: 'utf8', cwd: crate })
  const platform = platformOf(/^host: (.*)$/m.exec(compiler)?.[1] ?? '')
  const placed = join(crate, `inic-cpu.${platform}.node`)
  const fingerprint = fingerprintOf(compiler)
  if (isAddon(placed, fingerprint)) return 0

  const cached = join(cache, 'addon', fingerprint, `inic-cpu.${platform}.node`)
  if (!isAddon(cached, fingerprint)) {
    say('building the CPU addon: about 4 minutes the first time, cached after that')
    if (!build(cargo, fingerprint, cached)) {
      say('the CPU addon was not built. See above; `rustup update stable` if the compiler is too old.')
      return 1
    }
    prune()
  }
  place(cached, placed)
  return 0
}

process.exitCode = main()
