/** A farm from what the command line says: read, changed by the options, checked, and ready to start. */
import { resolve } from 'node:path'
import { availableCpu, type CpuKind } from '../../emulator/cpu/index.ts'
import { checkFarm } from '../config/farm-checks.ts'
import type { FarmConfig, PublishConfig, StreamConfig, TapConfig } from '../config/farm-config.ts'
import { suggest } from '../config/issues.ts'
import { defaultFarm, loadFarm } from '../config/load-farm.ts'
import { usageError } from '../errors.ts'
import { FarmState } from '../state.ts'
import { DEFAULT_IMAGE_PATH, loadImage, loadImages } from './firmware.ts'
import type { PlayRequest } from './outside.ts'
import { type CaptureRequest, FarmSession } from './session.ts'

/** Something plugged into a network from the command line. */
export interface Attachment<T> {
  readonly network: string
  readonly to: T
}

/** What `inic run` and `inic debug` have in common. */
export interface LaunchOptions {
  readonly publish?: readonly PublishConfig[]
  readonly tap?: readonly Attachment<TapConfig>[]
  readonly link?: readonly Attachment<StreamConfig>[]
  readonly pcap?: readonly CaptureRequest[]
  readonly play?: readonly PlayRequest[]
  readonly record?: string
  readonly image?: string
  readonly confirm: boolean
  readonly cpu: CpuKind | 'auto'
  readonly virtual?: boolean
  readonly seed?: string
  readonly state?: string
}

/** The farm that is meant, not started yet. @throws CommandError for a farm or options that cannot be meant */
export async function openFarm(
  farmPath: string | undefined,
  options: LaunchOptions,
): Promise<{ readonly session: FarmSession; readonly config: FarmConfig; readonly state: FarmState }> {
  const config = applyOptions(farmPath === undefined ? await defaultFarm() : await loadFarm(farmPath), options)
  const state = FarmState.of(config, options.state)
  const session = new FarmSession({
    config,
    state,
    images: await loadImages(config, options.image && resolve(options.image)),
    gatewayImage: config.publish.length > 0 ? await loadImage(DEFAULT_IMAGE_PATH) : undefined,
    forceImage: options.image !== undefined,
    confirm: options.confirm,
    cpu: options.cpu === 'auto' ? undefined : options.cpu,
    captures: options.pcap ?? [],
    plays: options.play ?? [],
    ...(options.record !== undefined && { recordTo: resolve(options.record) }),
  })
  return { session, config, state }
}

/** The configuration with what the options change in it. */
function applyOptions(config: FarmConfig, options: LaunchOptions): FarmConfig {
  if (options.cpu === 'wasmtime' && availableCpu() !== 'wasmtime') {
    throw usageError(
      '--cpu wasmtime: the addon has not been built',
      'install Rust (https://rustup.rs), then: npm run build; or use --cpu v8',
    )
  }
  const networks = config.networks.map((network) => ({
    ...network,
    taps: [...network.taps, ...attached(options.tap, network.name)],
    streams: [...network.streams, ...attached(options.link, network.name)],
  }))
  const clock = options.virtual ? 'virtual' : config.clock
  const changed: FarmConfig = {
    ...config,
    clock,
    ...(options.seed !== undefined && { seed: options.seed }),
    networks,
    // Options take the place of what the file publishes; in virtual time nothing comes from outside.
    publish: clock === 'virtual' ? [] : (options.publish ?? config.publish),
  }
  checkAttachments(config, options)
  checkFarm(changed, (_path, message, hint) => {
    throw usageError(message, hint)
  })
  checkClock(changed)
  return changed
}

function attached<T>(attachments: readonly Attachment<T>[] | undefined, network: string): T[] {
  return (attachments ?? []).filter((item) => item.network === network).map((item) => item.to)
}

function checkAttachments(config: FarmConfig, options: LaunchOptions): void {
  const names = config.networks.map((network) => network.name)
  for (const { network } of [...(options.tap ?? []), ...(options.link ?? []), ...(options.play ?? [])]) {
    if (!names.includes(network))
      throw usageError(`the farm has no network '${network}'`, suggest(network, names) ?? `it has: ${names.join(', ')}`)
  }
}

function checkClock(config: FarmConfig): void {
  if (config.clock !== 'virtual') return
  if (config.networks.some((network) => network.taps.length + network.streams.length > 0)) {
    throw usageError('TAP interfaces and streams live in real time', 'leave out --virtual')
  }
  for (const server of config.servers) {
    const application = server.applications.find((item) => item.kind === 'node')
    if (application) {
      throw usageError(
        `'${application.name}' on ${server.name} is a Node program, and runs in real time only`,
        'use a farm of board programs: inic run examples/echo.json --virtual',
      )
    }
  }
}
