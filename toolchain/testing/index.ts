/**
 * `inic/testing`: cards, hosts and farms in virtual time, for tests of firmware and of programs that run on it. docs/testing.md shows it.
 */

import { type FarmFirmware, iposFirmware } from './firmware.ts'
import { RealFarm, type RealFarmOptions } from './real-farm.ts'
import type { VirtualCard } from './virtual-card.ts'
import { VirtualFarm, type VirtualFarmOptions } from './virtual-farm.ts'
import { type CardOptions, type LabOptions, VirtualLab } from './virtual-lab.ts'

export type { BootSettings, CrashReport, InterfaceSettings } from '../../emulator/board.ts'
export type { TraceEntry } from '../../emulator/devices/trace.ts'
export type { Cable } from '../../emulator/link/cable.ts'
export type { Copy, Inspector } from '../../emulator/link/interposer.ts'
export type { Switch } from '../../emulator/link/switch.ts'
export type { WireOptions } from '../../emulator/link/wire.ts'
export { type FarmFirmware, iposFirmware, loadFirmware, projectFirmware } from './firmware.ts'
export * as frames from './frames/index.ts'
export { type FarmLine, RealFarm, type RealFarmOptions } from './real-farm.ts'
export { type CapturedFrame, type CapturedPacket, ExpectationError, type FrameFilter, TestPort } from './test-port.ts'
export { type TraceFilter, VirtualCard } from './virtual-card.ts'
export { VirtualFarm, type VirtualFarmOptions } from './virtual-farm.ts'
export { type CableEnd, type CardOptions, type HostOptions, type LabOptions, VirtualLab } from './virtual-lab.ts'
export { VirtualNode } from './virtual-node.ts'

/** One card in a laboratory of its own, switched on, its three ports in the test's hand. */
export function bootCard(options: CardOptions & LabOptions): VirtualCard {
  return new VirtualLab(options).addCard('card', options)
}

export interface BootFarmOptions extends VirtualFarmOptions {
  /** What the servers boot; ipOS if left out. */
  readonly firmware?: FarmFirmware
}

/**
 * Servers on a LAN and a synchronization hub, and clients on the LAN, switched on; the servers know each other. Server n has 192.0.2.n, client n
 * has 192.0.2.(100 + n); both have sockets: `farm.server(1).net`. Clients boot ipOS unless told otherwise.
 *
 * @throws CommandError if ipOS was not built
 */
export async function bootFarm(options: BootFarmOptions = {}): Promise<VirtualFarm> {
  const ipos = await iposFirmware()
  const farm = new VirtualFarm(options.firmware ?? ipos, { clientFirmware: ipos, ...options })
  await farm.settle()
  return farm
}

/**
 * The farm of a farm file in real time, as `inic run` runs it, with its programs, for clients of this machine.
 *
 * @throws CommandError for a farm file that cannot be meant, a compile error, a board that does not boot
 */
export function startFarm(farmFile: string, options: RealFarmOptions = {}): Promise<RealFarm> {
  return RealFarm.start(farmFile, options)
}
