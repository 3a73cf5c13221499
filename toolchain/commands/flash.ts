import { stat } from 'node:fs/promises'
import { dirname, relative, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Command } from 'commander'
import { Flash } from '../../emulator/devices/flash.ts'
import type { FarmConfig, ServerConfig } from '../config/farm-config.ts'
import { suggest } from '../config/issues.ts'
import { defaultFarm, loadFarm } from '../config/load-farm.ts'
import { ControlClient } from '../control/client.ts'
import type { UpdateStatus } from '../control/protocol.ts'
import { CommandError, EXIT_FARM_STATE, errorMessage, usageError } from '../errors.ts'
import { imagePathOf, loadImage, trustKey } from '../farm/firmware.ts'
import { Region } from '../image/flash-access.ts'
import { DEFAULT_FLASH_BYTES, flashMap } from '../image/flash-map.ts'
import {
  type FlashReport,
  type LogReport,
  readFlashStatus,
  reportFlash,
  type SlotReport,
} from '../image/flash-status.ts'
import { encodeHex } from '../image/hex.ts'
import { describeImage, type Image } from '../image/image.ts'
import { ImageError } from '../image/image-error.ts'
import { checkPolicy } from '../image/manifest.ts'
import { programPrimary, runSteps, stagingSteps } from '../image/slot.ts'
import { Slots } from '../image/swap.ts'
import { formatVersion } from '../image/version.ts'
import { findProject } from '../project.ts'
import { FarmState } from '../state.ts'
import { formatTable, print, printJson, startProgress } from '../terminal.ts'

interface FlashCommandOptions {
  readonly server?: string
  readonly flash?: string
  readonly farm?: string
  readonly state?: string
  readonly permanent?: boolean
  readonly primary?: boolean
  readonly boot?: boolean
  /** Undefined: neither --confirm nor --no-confirm. */
  readonly confirm?: boolean
  readonly log?: boolean
  readonly status?: boolean
  readonly json?: boolean
}

/** A flash file to be written. */
interface Destination {
  readonly path: string
  readonly bytes: number
  readonly state: FarmState
  /** As people call it. */
  readonly name: string
  /** What it boots when no image is named: a project's folder or an image file. */
  readonly firmware: string | undefined
  /** Key that the farm file names. */
  readonly key: string | undefined
}

/** How often a running farm is asked how far it is. */
const POLL_MS = 50

export function addFlashCommand(program: Command): void {
  program
    .command('flash')
    .summary("update a server's firmware, or look into its flash")
    .description(
      "Writes an image into the secondary slot of a server's flash, verifies it by reading it back, and has the next boot try it. " +
        'A running farm takes it through the driver and the firmware of the server; of a stopped one, the flash file is written.',
    )
    .argument(
      '[image]',
      "image file, as inic build and imgtool make them; left out: what the server's card boots by the farm file",
    )
    .option(
      '-s, --server <name>',
      'the server of the farm to be flashed; left out: the only one whose firmware the farm file names',
    )
    .option('--flash <file>', 'a flash file, in place of a server of a farm')
    .option(
      '-f, --farm <file>',
      'the farm file that the server stands in (default: the farm that runs, or that of inic run)',
    )
    .option('--state <dir>', 'where farms keep their state (default: .inic beside the farm file)')
    .option('--permanent', 'no trial: the image is confirmed beforehand')
    .option(
      '--boot',
      'restart the server of a running farm, with the image named or the one that waits; wait until it serves, and confirm',
    )
    .option('--confirm', 'confirm the image that is on trial')
    .option('--no-confirm', 'with --boot: leave the image on trial')
    .option('--primary', 'write the primary slot itself, as a factory does; of a stopped server')
    .option('--status', 'show what is in the slots, and what the next boot does; nothing is written')
    .option('--log', 'show the boot log: what was decided at each boot, and why')
    .option('--json', 'describe it as JSON')
    .addHelpText(
      'after',
      `
An image on trial that is not confirmed is gone at the next boot: the one before it comes back. inic run confirms firmware once it serves.

Examples:
  inic flash                                        in a firmware project (inic new): its build, into its server
  inic flash build/release/firmware.img --server server1           tried at the next inic run
  inic flash build/release/firmware.img --server server1 --boot    into a running farm, and restart the server
  inic flash --status --server server1                             what is in its slots, and what the next boot does
  inic flash --log --server server1
  inic flash my-nic.img --flash /tmp/board.flash

inic run leaves an image alone that was flashed by hand. To go back to its own:
  inic flash build/release/firmware.img --server server1`,
    )
    .action(async (imagePath: string | undefined, options: FlashCommandOptions) => {
      checkOptions(imagePath, options)
      const { server, flash, status, log, confirm, boot } = options
      const writes = imagePath !== undefined || !(status || log || boot || confirm === true)
      const client = flash === undefined ? await connectIfRunning(options) : undefined
      try {
        // A farm that runs knows its servers; its file is needed only for what it does not say.
        if (client !== undefined && server !== undefined && (imagePath !== undefined || !writes)) {
          await flashRunning(client, server, imagePath, options)
          return
        }
        const destination = await findDestination(options)
        const image = writes ? (imagePath ?? ownImage(destination)) : undefined
        if (client !== undefined) await flashRunning(client, destination.name, image, options)
        else await flashStopped(destination, image, options)
      } finally {
        client?.close()
      }
    })
}

function checkOptions(image: string | undefined, options: FlashCommandOptions): void {
  const { server, flash, boot, confirm, permanent, primary, status, log } = options
  if (flash !== undefined && server !== undefined)
    throw usageError('--server and --flash name two places', 'give one of them')
  if (image !== undefined && (status || log)) throw usageError('--status and --log go without an image')
  if (image !== undefined && confirm === true && !boot) {
    throw usageError('--confirm goes with --boot, or without an image', 'to have no trial: --permanent')
  }
  if (primary && (boot || permanent)) throw usageError('--primary goes without --boot and --permanent')
}

async function connectIfRunning(options: FlashCommandOptions): Promise<ControlClient | undefined> {
  try {
    return await ControlClient.connect(options)
  } catch (error) {
    if (error instanceof CommandError && error.exitCode === EXIT_FARM_STATE) return undefined
    throw error
  }
}

// ── a farm that runs ──

async function flashRunning(
  client: ControlClient,
  server: string,
  image: string | undefined,
  options: FlashCommandOptions,
): Promise<void> {
  const { permanent = false, boot = false, confirm, json } = options
  if (options.primary) {
    throw new CommandError(`${server} cannot be programmed: its farm is running`, {
      exitCode: EXIT_FARM_STATE,
      hint: 'stop the farm (Ctrl-C in its terminal), or leave --primary out',
    })
  }
  if (image === undefined && !boot && confirm !== true) {
    showReport(server, await client.request('flashReport', { server }), options)
    return
  }
  if (image !== undefined || boot) {
    const status = await update(client, server, {
      ...(image !== undefined && { image: resolve(image) }),
      ...{ permanent, boot, confirm: confirm !== false },
    })
    if (status.error !== undefined) throw new CommandError(status.error.message, status.error)
    if (!json) print(`${server}: ${describeUpdate(status, boot, permanent, confirm !== false)}`)
  } else {
    await client.request('flashConfirm', { server })
    if (!json) print(`${server}: the image that runs is confirmed`)
  }
  if (json) printJson({ server, ...(await client.request('flashReport', { server })) })
}

async function update(
  client: ControlClient,
  server: string,
  request: { image?: string; permanent: boolean; boot: boolean; confirm: boolean },
): Promise<UpdateStatus> {
  const progress = startProgress(`flashing ${server}`)
  try {
    let status = await client.request('flash', { server, ...request })
    while (status.stage !== 'done' && status.stage !== 'failed') {
      const { stage, share } = status
      progress.update(`${server}: ${stage}`, stage === 'writing' || stage === 'verifying' ? share : undefined)
      await sleep(POLL_MS)
      status = await client.request('flashStatus', { server })
    }
    return status
  } finally {
    progress.end()
  }
}

function describeUpdate({ version }: UpdateStatus, boot: boolean, permanent: boolean, confirm: boolean): string {
  const what = version === undefined ? 'the update' : `version ${version}, written and verified;`
  if (!boot) return `${what} ${permanent ? 'the next boot takes it for good' : 'the next boot tries it'}`
  return `${what} restarted, serves${confirm || permanent ? ', confirmed' : '; on trial until it is confirmed'}`
}

// ── a flash file ──

async function flashStopped(
  destination: Destination,
  imagePath: string | undefined,
  options: FlashCommandOptions,
): Promise<void> {
  if (options.boot) {
    throw new CommandError('--boot restarts a server of a running farm, and none is running', {
      exitCode: EXIT_FARM_STATE,
      hint: 'leave --boot out: the next inic run boots the image',
    })
  }
  if (await destination.state.isRunning()) {
    throw new CommandError(`${destination.name} cannot be flashed: its farm is running`, {
      exitCode: EXIT_FARM_STATE,
      hint: 'name the server, not its file: --server NAME; or stop the farm (Ctrl-C in its terminal)',
    })
  }
  if (imagePath !== undefined) {
    await writeFlash(destination, imagePath, options)
    return
  }
  if ((await stat(destination.path).catch(() => undefined)) === undefined) {
    throw usageError(`${destination.name} has no flash yet`, 'inic run makes it, or inic flash IMAGE')
  }
  if (options.confirm === true) confirmFile(destination)
  else showReport(destination.name, readReport(destination), options)
}

async function writeFlash(destination: Destination, imagePath: string, options: FlashCommandOptions): Promise<void> {
  const { bytes, image, padding } = await loadImage(resolve(imagePath))
  const slot = options.primary ? 'primary' : 'secondary'
  const permanent = options.permanent === true || padding?.confirmed === true
  const progress = startProgress(`flashing ${destination.name}`)
  destination.state.make()
  try {
    await using(openFlash(destination), async (flash) => {
      await trustKey(flash, destination)
      checkTarget(flash, image, destination, options)
      const map = flashMap(flash.bytes)
      const onProgress = (share: number) => progress.update(`flashing ${destination.name}`, share)
      if (options.primary) programPrimary(flash, map, bytes, { onProgress })
      else runSteps(new Region(flash, map.secondary), stagingSteps(bytes, map.secondary, permanent), onProgress)
    })
  } finally {
    progress.end()
  }
  // Opened again, so that what is looked at is what lies on the disk.
  const report = await using(openFlash(destination), (flash) => reportFlash(flash))
  if (report[slot].sha256 !== encodeHex(image.digest)) {
    throw new CommandError(`${destination.path} holds another image after writing`, {
      hint: 'is the disk full, or is something else writing to it?',
    })
  }
  if (options.json) {
    const { version, digest, totalBytes } = image
    printJson({
      flash: destination.path,
      slot,
      version: formatVersion(version),
      bytes: totalBytes,
      sha256: encodeHex(digest),
      nextBoot: report.nextBoot,
    })
    return
  }
  const next = options.primary ? '' : permanent ? '; the next boot takes it for good' : '; the next boot tries it'
  print(`${destination.name}: ${describeImage(image)}, written and verified${next}`)
}

/** @throws CommandError for an image that the board would refuse, or a slot that is still needed */
function checkTarget(
  flash: Flash,
  image: Image,
  { name }: Destination,
  { primary, server }: FlashCommandOptions,
): void {
  const status = readFlashStatus(flash)
  try {
    checkPolicy(image, status.vault)
  } catch (error) {
    if (!(error instanceof ImageError)) throw error
    throw usageError(`${name} would not boot it: ${error.message}`)
  }
  if (primary || (status.confirmed && status.pending.kind !== 'resume')) return
  const place = server === undefined ? `--flash ${name}` : `--server ${server}`
  throw usageError(
    `the secondary slot of ${name} holds what a boot may have to go back to: an image on trial is not confirmed`,
    `confirm it (inic flash --confirm ${place}), have inic run boot it, or write the primary slot: --primary`,
  )
}

function confirmFile(destination: Destination): void {
  const confirmed = using(openFlash(destination), (flash) => new Slots(flash, flashMap(flash.bytes)).confirm())
  print(`${destination.name}: ${confirmed ? 'the image on trial is confirmed' : 'no image is on trial'}`)
}

function readReport(destination: Destination): FlashReport {
  return using(openFlash(destination), (flash) => reportFlash(flash))
}

async function findDestination(options: FlashCommandOptions): Promise<Destination> {
  if (options.flash !== undefined) {
    const path = resolve(options.flash)
    const found = await stat(path).catch(() => undefined)
    const bytes = found === undefined || found.size === 0 ? DEFAULT_FLASH_BYTES : found.size
    return {
      path,
      bytes,
      state: new FarmState(dirname(path)),
      name: relative(process.cwd(), path),
      firmware: findProject(),
      key: undefined,
    }
  }
  const farm = options.farm === undefined ? await defaultFarm() : await loadFarm(options.farm)
  const server = options.server === undefined ? onlyServer(farm) : findServer(farm, options.server)
  const state = FarmState.of(farm, options.state)
  return {
    path: state.flashPath(server.name),
    bytes: server.flashBytes,
    state,
    name: server.name,
    firmware: server.firmware,
    key: server.key,
  }
}

function ownImage({ firmware }: Destination): string {
  if (firmware !== undefined) return imagePathOf({ firmware })
  throw usageError('no image to write', 'name it: inic flash IMAGE --server NAME; to look at what is there: --status')
}

/** The one server whose firmware the farm names. */
function onlyServer({ servers }: FarmConfig): ServerConfig {
  const own = servers.filter(({ firmware }) => firmware !== undefined)
  if (own.length === 1) return own[0]
  throw usageError('no place to write to', 'name it: --server NAME, or --flash FILE')
}

function findServer(farm: FarmConfig, name: string): ServerConfig {
  const server = farm.servers.find((candidate) => candidate.name === name)
  if (server !== undefined) return server
  const names = farm.servers.map((candidate) => candidate.name)
  throw usageError(
    `the farm '${farm.name}' has no server '${name}'`,
    suggest(name, names) ?? `it has: ${names.join(', ')}`,
  )
}

function openFlash({ path, bytes, name }: Destination): Flash {
  flashMap(bytes) // before a file of an impossible size is made
  try {
    return Flash.open(path, bytes)
  } catch (error) {
    throw usageError(`the flash of ${name} cannot be opened: ${errorMessage(error)}`)
  }
}

/** Closes the flash when `use` is over, also where it is a promise. */
function using<T>(flash: Flash, use: (flash: Flash) => T): T {
  let result: T
  try {
    result = use(flash)
  } catch (error) {
    flash.close()
    throw error
  }
  if (result instanceof Promise) return result.finally(() => flash.close()) as T
  flash.close()
  return result
}

// ── what is in a flash ──

const NEXT_BOOT: Readonly<Record<string, string>> = {
  none: 'boots the primary slot',
  test: 'swaps the slots, for a trial',
  permanent: 'swaps the slots, for good',
  revert: 'swaps the slots back: the image on trial was not confirmed',
  resume: 'completes the swap that was interrupted',
}

function showReport(name: string, report: FlashReport, { json, log }: FlashCommandOptions): void {
  if (json) {
    printJson({ name, ...report })
    return
  }
  if (log) {
    showLog(report.log)
    return
  }
  const { primary, secondary, wear } = report
  print(`${name}: the next boot ${NEXT_BOOT[report.nextBoot] ?? report.nextBoot}`)
  const rows = [
    ['primary', ...slotCells(primary), report.confirmed ? '' : 'on trial'],
    ['secondary', ...slotCells(secondary), ''],
  ]
  for (const line of formatTable(['SLOT', 'VERSION', 'BYTES', 'SHA-256', 'COUNTER', 'SIGNED', ''], rows)) print(line)
  for (const [slot, { fault }] of Object.entries({ primary, secondary })) {
    if (fault !== undefined && (slot === 'primary' || !fault.startsWith('empty'))) print(`${slot}: ${fault}`)
  }
  print(`security counter ${report.securityCounter}, trusted key ${report.trustedKey ?? 'none'}`)
  print(`wear: ${wear.erasures} blocks erased in its life, the most worn one ${wear.mostWornBlock} times`)
}

function slotCells({ version, bytes, sha256, securityCounter, signed }: SlotReport): string[] {
  if (version === undefined) return ['-', '', '', '', '']
  return [version, String(bytes), `${sha256?.slice(0, 16)}…`, String(securityCounter), signed ? 'yes' : 'no']
}

function showLog(log: readonly LogReport[]): void {
  const rows = log.map(({ number, event, swap, resumed, version, why }) => [
    String(number),
    event,
    swap === 'none' ? '' : `${swap}${resumed ? ', resumed' : ''}`,
    version ?? '',
    why,
  ])
  if (rows.length === 0) print('nothing has booted yet')
  else for (const line of formatTable(['NUMBER', 'EVENT', 'SWAP', 'VERSION', 'WHY'], rows)) print(line)
}
