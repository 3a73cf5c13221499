import { stat } from 'node:fs/promises'
import { dirname, relative, resolve } from 'node:path'
import type { Command } from 'commander'
import { Flash } from '../../emulator/devices/flash.ts'
import type { FarmConfig, ServerConfig } from '../config/farm-config.ts'
import { suggest } from '../config/issues.ts'
import { defaultFarm, loadFarm } from '../config/load-farm.ts'
import { CommandError, EXIT_FARM_STATE, errorMessage, usageError } from '../errors.ts'
import { imagePathOf, loadImage } from '../farm/firmware.ts'
import { DEFAULT_FLASH_BYTES, flashMap } from '../image/flash-map.ts'
import { decodeImage, describeImage, encodeHex } from '../image/image.ts'
import { readSlot, writeSlot } from '../image/slot.ts'
import { formatVersion } from '../image/version.ts'
import { findProject } from '../project.ts'
import { FarmState } from '../state.ts'
import { print, printJson, startProgress } from '../terminal.ts'

interface FlashCommandOptions {
  readonly server?: string
  readonly flash?: string
  readonly farm?: string
  readonly state?: string
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
}

export function addFlashCommand(program: Command): void {
  program
    .command('flash')
    .summary("write an image into a server's flash")
    .description(
      "Writes an image into the primary slot of a stopped server's flash, and verifies it by reading it back.",
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
    .option('-f, --farm <file>', 'the farm file that the server stands in (default: the farm of inic run)')
    .option('--state <dir>', 'where farms keep their state (default: .inic beside the farm file)')
    .option('--json', 'describe what was written as JSON')
    .addHelpText(
      'after',
      `
Examples:
  inic flash                                        in a firmware project (inic new): its build, into its server
  inic flash build/release/firmware.img --server server1
  inic flash my-nic.img --server server2 --farm examples/farm.json
  inic flash my-nic.img --flash /tmp/board.flash

inic run leaves an image alone that was flashed by hand. To go back to its own:
  inic flash build/release/firmware.img --server server1`,
    )
    .action(async (imagePath: string | undefined, options: FlashCommandOptions) => {
      const destination = await findDestination(options)
      const { bytes, image } = await loadImage(imagePath === undefined ? ownImage(destination) : resolve(imagePath))
      if (await destination.state.isRunning()) {
        throw new CommandError(`${destination.name} cannot be flashed: its farm is running`, {
          exitCode: EXIT_FARM_STATE,
          hint: 'stop the farm (Ctrl-C in its terminal), then flash',
        })
      }
      const progress = startProgress(`flashing ${destination.name}`)
      try {
        flashFile(destination, bytes, (share) => progress.update(`flashing ${destination.name}`, share))
      } finally {
        progress.end()
      }
      if (options.json) {
        const { version, digest, totalBytes } = image
        printJson({
          flash: destination.path,
          slot: 'primary',
          version: formatVersion(version),
          bytes: totalBytes,
          sha256: encodeHex(digest),
        })
      } else {
        print(`${destination.name}: ${describeImage(image)}, written and verified`)
      }
    })
}

async function findDestination(options: FlashCommandOptions): Promise<Destination> {
  if (options.flash !== undefined) {
    if (options.server !== undefined) throw usageError('--server and --flash name two places', 'give one of them')
    const path = resolve(options.flash)
    const found = await stat(path).catch(() => undefined)
    const bytes = found === undefined || found.size === 0 ? DEFAULT_FLASH_BYTES : found.size
    return {
      path,
      bytes,
      state: new FarmState(dirname(path)),
      name: relative(process.cwd(), path),
      firmware: findProject(),
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
  }
}

function ownImage({ firmware }: Destination): string {
  if (firmware !== undefined) return imagePathOf({ firmware })
  throw usageError('no image to write', 'name it: inic flash IMAGE --server NAME')
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

/** Writes, closes, opens again and compares, so that what is verified is what lies on the disk. */
function flashFile(destination: Destination, bytes: Uint8Array, onProgress: (share: number) => void): void {
  const slot = flashMap(destination.bytes).primary
  destination.state.make()
  using(openFlash(destination), (flash) => writeSlot(flash, slot, bytes, onProgress))
  const written = using(openFlash(destination), (flash) => readSlot(flash, slot))
  if (Buffer.compare(written.digest, decodeImage(bytes).digest) !== 0) {
    throw new CommandError(`${destination.path} holds another image after writing`, {
      hint: 'is the disk full, or is something else writing to it?',
    })
  }
}

function openFlash({ path, bytes, name }: Destination): Flash {
  try {
    return Flash.open(path, bytes)
  } catch (error) {
    throw usageError(`the flash of ${name} cannot be opened: ${errorMessage(error)}`)
  }
}

function using<T>(flash: Flash, use: (flash: Flash) => T): T {
  try {
    return use(flash)
  } finally {
    flash.close()
  }
}
