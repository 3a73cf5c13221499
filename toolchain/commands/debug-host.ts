/** Farms for an editor: launched as its `launch` says, or found as its `attach` says. */
import { basename } from 'node:path'
import type { Duplex } from 'node:stream'
import { InvalidArgumentError } from 'commander'
import type { CpuKind } from '../../emulator/cpu/index.ts'
import { ControlClient, type FarmSelection } from '../control/client.ts'
import type { DapHost } from '../debug/dap/adapter.ts'
import { type Arguments, RequestError } from '../debug/dap/arguments.ts'
import type { DebugTarget } from '../debug/front/target.ts'
import { openRecording } from '../debug/session/open-recording.ts'
import { debugLaunched } from '../farm/debugging.ts'
import { type LaunchOptions, openFarm } from '../farm/launch.ts'
import { linkArgument, pcapArgument, publishArgument, tapArgument } from './launch-options.ts'

/** @param defaults what the command line says, for what a client leaves out */
export function debugHost(defaults: LaunchOptions): DapHost {
  return {
    async launch(args, onProgress, signal) {
      const recording = args.optionalText('replay')
      if (recording !== undefined) return replay(recording)
      const { session } = await openFarm(args.optionalText('farm'), { ...defaults, ...launchOptions(args) })
      session.on('remark', (line) => onProgress(line))
      await session.start(signal)
      return debugLaunched(session)
    },
    attach: () => Promise.reject(new RequestError('there is no farm in this process')),
  }
}

function replay(path: string): DebugTarget {
  const { session, remark } = openRecording(path)
  const published = remark === undefined ? [] : [remark]
  return { session, farm: basename(path), launched: true, published, end: () => session.detach() }
}

/** The arguments of `launch` that `inic run` has as options. @throws RequestError */
function launchOptions(args: Arguments): Partial<LaunchOptions> {
  const list = <T>(name: string, parse: (text: string) => T) =>
    args.has(name) ? { [name]: args.texts(name).map((text) => parsed(name, text, parse)) } : {}
  const text = (name: string) => {
    const value = args.optionalText(name)
    return value === undefined ? {} : { [name]: value }
  }
  return {
    ...list('publish', publishArgument),
    ...list('tap', tapArgument),
    ...list('link', linkArgument),
    ...list('pcap', pcapArgument),
    ...text('image'),
    ...text('seed'),
    ...text('state'),
    ...(args.has('cpu') && { cpu: cpuKind(args.text('cpu')) }),
    ...(args.has('virtual') && { virtual: args.flag('virtual') }),
  }
}

function parsed<T>(name: string, text: string, parse: (text: string) => T): T {
  try {
    return parse(text)
  } catch (error) {
    if (error instanceof InvalidArgumentError)
      throw new RequestError(`launch: '${text}' in '${name}': ${error.message}`)
    throw error
  }
}

function cpuKind(text: string): CpuKind | 'auto' {
  if (text === 'auto' || text === 'wasmtime') return text
  throw new RequestError(`launch: 'cpu' must be auto or wasmtime, not '${text}'`)
}

/** Which farm `attach` means. @throws RequestError */
export function attachSelection(args: Arguments): FarmSelection {
  const [farm, state] = [args.optionalText('farm'), args.optionalText('state')]
  return { ...(farm !== undefined && { farm }), ...(state !== undefined && { state }) }
}

/** A front end in the process of a farm that runs. @throws CommandError */
export async function connectFrontEnd(selection: FarmSelection, frontend: 'dap' | 'gdb'): Promise<Duplex> {
  const client = await ControlClient.connect(selection)
  try {
    await client.request('debug', { frontend })
    return client.stream()
  } catch (error) {
    client.close()
    throw error
  }
}
