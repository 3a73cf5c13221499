/** A farm in virtual time (toolchain/testing/virtual-farm.ts) with the firmware that was built last. */
import { readFileSync } from 'node:fs'
import type { Layouts } from '../../toolchain/firmware/layouts.ts'
import type { FarmFirmware } from '../../toolchain/testing/firmware.ts'
import { VirtualFarm, type VirtualFarmOptions } from '../../toolchain/testing/virtual-farm.ts'

export type FarmKitOptions = VirtualFarmOptions
export { VirtualNode as Node } from '../../toolchain/testing/virtual-node.ts'

const BUILT = '../../../build/release/'

export const builtFirmware: FarmFirmware = {
  wasm: readFileSync(new URL(`${BUILT}firmware.wasm`, import.meta.url)),
  layouts: JSON.parse(readFileSync(new URL(`${BUILT}firmware.layouts.json`, import.meta.url), 'utf8')) as Layouts,
}

export class FarmKit extends VirtualFarm {
  constructor(options: FarmKitOptions = {}) {
    super(builtFirmware, options)
  }
}
