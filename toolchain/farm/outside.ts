/** What joins a farm's networks to the world outside: TAP interfaces, other processes, and captures that are played. */
import { DgramLink } from '../../emulator/link/dgram.ts'
import { CaptureError, PcapReplay } from '../../emulator/link/pcap-replay.ts'
import { StreamLink } from '../../emulator/link/stream.ts'
import { TapLink } from '../../emulator/link/tap.ts'
import type { NetworkConfig, StreamConfig, TapConfig } from '../config/farm-config.ts'
import { CommandError, errorCode, errorMessage } from '../errors.ts'
import type { FarmAssembly } from './assembly.ts'

/** Takes a line for people. */
export type Report = (line: string) => void

const TAP_HINTS: Readonly<Record<string, string>> = {
  EPERM: 'run as root, or make it yours first: sudo ip tuntap add NAME mode tap user $USER',
  EACCES: 'run as root, or make it yours first: sudo ip tuntap add NAME mode tap user $USER',
  EBUSY: 'another program has it open; end that, or choose another name',
  ENOENT: 'this kernel has no /dev/net/tun; in a container, pass it in: --device /dev/net/tun',
  ERR_CPU_ADDON_MISSING: 'TAP needs the addon: install Rust (https://rustup.rs), then npm run build',
}

/** A capture that is to be played into a network. */
export interface PlayRequest {
  readonly path: string
  readonly network: string
}

/** Plugs in every TAP interface and stream of the configuration. @throws CommandError naming the one that failed. */
export async function plugOutside(assembly: FarmAssembly, report: Report): Promise<void> {
  for (const { config } of assembly.networks.values()) {
    for (const tap of config.taps) plugTap(assembly, config, tap, report)
    for (const stream of config.streams) await plugStream(assembly, config, stream, report)
  }
}

function plugTap(
  assembly: FarmAssembly,
  network: NetworkConfig,
  { interfaceName, address }: TapConfig,
  report: Report,
): void {
  const name = `tap-${interfaceName}`
  try {
    const link = new TapLink(name, interfaceName, assembly.farm, {
      ...(address !== undefined && { address, up: true, mtuBytes: network.mtuBytes }),
      onError: (error) => report(`TAP interface ${interfaceName} is gone: ${error.message}`),
    })
    assembly.farm.own(link)
    assembly.plug(network.name, link, { name })
    report(`TAP interface ${link.interfaceName} is on ${network.name}`)
  } catch (error) {
    const hint = TAP_HINTS[errorCode(error) ?? '']?.replace('NAME', interfaceName)
    throw new CommandError(
      `TAP interface ${interfaceName} cannot be plugged into ${network.name}: ${errorMessage(error)}`,
      {
        cause: error,
        ...(hint !== undefined && { hint }),
      },
    )
  }
}

async function plugStream(
  assembly: FarmAssembly,
  network: NetworkConfig,
  config: StreamConfig,
  report: Report,
): Promise<void> {
  const { farm } = assembly
  const name = `stream-${network.name}-${assembly.network(network.name).cables.length}`
  const link = farm.own(
    config.role === 'dgram'
      ? new DgramLink(name, farm, config)
      : new StreamLink(name, farm, { [config.role]: config.address, onReport: report }),
  )
  try {
    await link.ready
  } catch (error) {
    const what = config.role === 'dgram' ? 'exchange datagrams' : 'listen for a stream'
    throw new CommandError(`${network.name} cannot ${what}: ${errorMessage(error)}`, { cause: error })
  }
  assembly.plug(network.name, link, { name })
}

/**
 * Plugs in a capture, to be played into a network from `start` on.
 *
 * @throws CommandError if the file is not there, or is no capture
 */
export function plugCapture(assembly: FarmAssembly, { path, network }: PlayRequest, report: Report): PcapReplay {
  const { farm } = assembly
  const name = `play-${network}-${assembly.network(network).cables.length}`
  const onEnd = (error: Error | null) => {
    const skipped = replay.skipped === 0 ? '' : `, ${replay.skipped} left out: cut, or of no length that a port carries`
    report(`${path}: ${replay.frames} frames played into ${network}${skipped}${error ? `; then ${error.message}` : ''}`)
  }
  let replay: PcapReplay
  try {
    replay = new PcapReplay(name, path, farm, { onEnd })
  } catch (error) {
    if (!(error instanceof CaptureError) && errorCode(error) === undefined) throw error
    throw new CommandError(`${path} cannot be played: ${errorMessage(error)}`, { cause: error })
  }
  farm.own(replay)
  assembly.plug(network, replay, { name })
  return replay
}
