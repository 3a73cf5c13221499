/** A farm in virtual time (toolchain/testing/virtual-farm.ts) with the firmware that was built last. */
import { readFileSync } from 'node:fs'
import { FarmRecorder } from '../../emulator/record/farm-recorder.ts'
import { RecordingFile } from '../../emulator/record/file.ts'
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

  /** One connection of client 1 to server 1, with a request and an answer. */
  async oneRequest(): Promise<void> {
    const server = this.server(1)
    server.net.createServer((socket) => socket.end('answer')).listen(80)
    await this.settle()
    let closed = false
    const socket = this.client().net.connect(80, server.address)
    socket.resume().on('close', () => {
      closed = true
    })
    socket.end('request')
    if (!(await this.until(() => closed, 60_000))) throw new Error('the request is not answered')
  }
}

/** Records one request in a farm with little memory, so that `reset` is short: its servers, but not the client. */
export async function recordRequest(path: string, servers: number): Promise<void> {
  const kit = new FarmKit({ servers, memoryBytes: 16 << 20 })
  const boards = kit.servers.map(({ board }) => board)
  const file = new RecordingFile(path)
  const recorder = new FarmRecorder(kit.farm, file.recorder, (board) => boards.includes(board))
  await kit.oneRequest()
  recorder.close()
  file.close()
  await kit.close()
}
