/** What joins a farm's networks to the world outside: TAP interfaces, and streams to other processes. */
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
  { role, address }: StreamConfig,
  report: Report,
): Promise<void> {
  const name = `stream-${network.name}-${assembly.network(network.name).cables.length}`
  const link = assembly.farm.own(new StreamLink(name, assembly.farm, { [role]: address, onReport: report }))
  try {
    await link.ready
  } catch (error) {
    throw new CommandError(`${network.name} cannot listen for a stream: ${errorMessage(error)}`, { cause: error })
  }
  assembly.plug(network.name, link, { name })
}
