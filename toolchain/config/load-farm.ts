/** Reads farm files, and knows the farm that runs when there is none. */
import { readFile } from 'node:fs/promises'
import { basename, dirname, relative, resolve } from 'node:path'
import {
  BOOT_FLAG_ALWAYS_COOKIES,
  BOOT_FLAG_NO_SACK,
  BOOT_FLAG_NO_TIMESTAMPS,
  BOOT_FLAG_NO_WINDOW_SCALE,
  CONGESTION_CUBIC,
  CONGESTION_NEWRENO,
} from '../../abi/boot.ts'
import { DEFAULT_MEMORY_BYTES } from '../../abi/memory.ts'
import { MAC_PORTS } from '../../abi/registers.ts'
import type { WireOptions } from '../../emulator/link/wire.ts'
import { errorCode, usageError } from '../errors.ts'
import { DEFAULT_FLASH_BYTES } from '../image/flash-map.ts'
import { packageRoot } from '../package-root.ts'
import { checkFarm } from './farm-checks.ts'
import {
  type ApplicationConfig,
  DEFAULT_MTU_BYTES,
  type FarmConfig,
  type InterfaceConfig,
  type NetworkConfig,
  type ServerConfig,
} from './farm-config.ts'
import { type FarmFile, farmFileReader } from './farm-file.ts'
import { issuesError } from './issues.ts'
import { JsonDocument } from './reader.ts'

type NetworkFile = FarmFile['networks'][number]
type ServerFile = FarmFile['servers'][number]
type InterfaceFile = ServerFile['interfaces'][number]
type ApplicationFile = NonNullable<ServerFile['applications']>[number]

/** The farm of a file. @throws CommandError (exit code 2) that shows every fault with its line. */
export async function loadFarm(path: string): Promise<FarmConfig> {
  return parseFarm(await readText(path), path)
}

/**
 * FIG. 3's addresses with one server, and the example shop on it: server 1 is 123.123.123.1 behind router A and
 * 222.222.222.1 behind router B.
 */
export async function defaultFarm(): Promise<FarmConfig> {
  const farm = await loadFarm(resolve(packageRoot, 'examples', 'one-server.json'))
  return { ...farm, file: undefined }
}

/** The farm that `text` describes; `path` is for messages, and programs are found from its folder. */
export function parseFarm(text: string, path: string): FarmConfig {
  const document = new JsonDocument(text)
  const raw = document.read(farmFileReader)
  const farm = raw && resolveFarm(raw, path)
  if (farm) checkFarm(farm, (at, message, hint) => document.reportAt(at, message, hint))
  if (farm === undefined || document.issues.length > 0) throw issuesError(shown(path), text, document.issues)
  return farm
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    const reason = { ENOENT: 'there is no such file', EISDIR: 'it is a folder', EACCES: 'you may not read it' }[
      errorCode(error) ?? ''
    ]
    if (reason === undefined) throw error
    throw usageError(`${shown(path)} is no farm file: ${reason}`, 'name one, as in: inic run examples/farm.json')
  }
}

function resolveFarm(raw: FarmFile, path: string): FarmConfig {
  const file = resolve(path)
  const networks = raw.networks.map(resolveNetwork)
  return {
    name: raw.name ?? nameFromFile(file),
    file,
    seed: raw.seed,
    clock: raw.clock ?? 'real',
    networks,
    servers: raw.servers.map((server) => resolveServer(server, networks, dirname(file))),
    publish: raw.publish ?? [],
  }
}

function resolveNetwork(raw: NetworkFile): NetworkConfig {
  const link = raw.link ?? {}
  const wire = {
    delayNs: link.delay,
    jitterNs: link.jitter,
    rateBps: link.rate,
    loss: link.loss,
    duplication: link.duplication,
    reordering: link.reordering,
    reorderNs: link.reorderBy,
    corruption: link.corruption,
    queueFrames: link.queue,
  } satisfies { [K in keyof WireOptions]-?: WireOptions[K] | undefined }
  return {
    name: raw.name,
    kind: raw.kind ?? 'lan',
    mtuBytes: raw.mtu ?? DEFAULT_MTU_BYTES,
    wire: present(wire),
    taps: raw.taps ?? [],
    publishFrom: raw.publishFrom,
    streams: raw.streams ?? [],
  }
}

function resolveServer(raw: ServerFile, networks: readonly NetworkConfig[], directory: string): ServerConfig {
  const cpu = raw.cpu ?? 'auto'
  return {
    name: raw.name,
    memoryBytes: raw.memory ?? DEFAULT_MEMORY_BYTES,
    flashBytes: raw.flash ?? DEFAULT_FLASH_BYTES,
    cpu: cpu === 'auto' ? undefined : cpu,
    interfaces: raw.interfaces.map((item, index) => resolveInterface(item, index, networks)),
    applications: (raw.applications ?? []).map((item) => resolveApplication(item, directory)),
    settings: resolveSettings(raw.settings ?? {}),
  }
}

function resolveInterface(raw: InterfaceFile, index: number, networks: readonly NetworkConfig[]): InterfaceConfig {
  const kind = networks.find((network) => network.name === raw.network)?.kind
  return {
    // The last port is the hub's on every board, so that a second LAN may be added without moving it.
    port: raw.port ?? (kind === 'hub' ? MAC_PORTS - 1 : index),
    network: raw.network,
    address: raw.address,
    gateway: raw.gateway,
    mac: raw.mac,
  }
}

function resolveApplication(raw: ApplicationFile, directory: string): ApplicationConfig {
  return {
    name: raw.name,
    kind: raw.kind ?? 'node',
    program: resolve(directory, raw.program),
    args: raw.args ?? [],
    env: raw.env ?? {},
    heapBytes: raw.heap,
    firstSpeakers: Object.entries(raw.firstSpeaker ?? {}).map(([port, speaker]) => [Number(port), speaker]),
  }
}

function resolveSettings(raw: NonNullable<ServerFile['settings']>): ServerConfig['settings'] {
  const congestion = { newreno: CONGESTION_NEWRENO, cubic: CONGESTION_CUBIC }
  const flags =
    (raw.timestamps === false ? BOOT_FLAG_NO_TIMESTAMPS : 0) |
    (raw.selectiveAcknowledgement === false ? BOOT_FLAG_NO_SACK : 0) |
    (raw.windowScale === false ? BOOT_FLAG_NO_WINDOW_SCALE : 0) |
    (raw.alwaysCookies === true ? BOOT_FLAG_ALWAYS_COOKIES : 0)
  return present({
    maximumConnections: raw.maximumConnections,
    synBacklog: raw.synBacklog,
    placeAfterMs: raw.placeAfter,
    mslMs: raw.maximumSegmentLifetime,
    rtoMinimumMs: raw.minimumRetransmission,
    receiveCreditBytes: raw.receiveCredit,
    sendCreditBytes: raw.sendCredit,
    congestionControl: raw.congestionControl && congestion[raw.congestionControl],
    iposEthertype: raw.iposEthertype,
    flags: flags === 0 ? undefined : flags,
    userTimeoutMs: raw.userTimeout,
    unattachedTimeoutMs: raw.unattachedTimeout,
  })
}

type Present<T> = { [K in keyof T]?: Exclude<T[K], undefined> }

/** The entries that have a value: an absent option and one that is undefined are not the same to those who read them. */
function present<T extends object>(values: T): Present<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Present<T>
}

/** `My Farm.json` as `my-farm`: a name that may be part of a path. */
function nameFromFile(file: string): string {
  const name = basename(file)
    .replace(/\.jsonc?$/i, '')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^[^a-z]+|-+$/g, '')
  return name.slice(0, 31) || 'farm'
}

function shown(path: string): string {
  const fromHere = relative(process.cwd(), path)
  return fromHere.startsWith('..') ? resolve(path) : fromHere
}
