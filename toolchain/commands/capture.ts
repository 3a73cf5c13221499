import { once } from 'node:events'
import { createWriteStream, type WriteStream } from 'node:fs'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { type Command, InvalidArgumentError } from 'commander'
import { type FarmSelection, withFarm } from '../control/client.ts'
import { CommandError, errorCode, errorMessage, usageError } from '../errors.ts'
import { packageRoot } from '../package-root.ts'
import { note } from '../terminal.ts'

interface CaptureCommandOptions extends FarmSelection {
  readonly output: string
  readonly seconds?: number
}

/** Wireshark's Lua script for ipOS. */
const IPOS_DISSECTOR = join(packageRoot, 'toolchain/wireshark/ipos.lua')

export function addCaptureCommand(program: Command): void {
  program
    .command('capture')
    .summary('record the frames of a running farm')
    .description(
      'Records the frames on a network or a link of a running farm, as pcapng, which Wireshark and tshark read.',
    )
    .argument('<target>', 'a network (lan-a) or a link (server1.0); inic inspect farm lists them')
    .requiredOption('-o, --output <file>', 'the file to write, or - for standard output')
    .option('-n, --seconds <n>', 'stop after so many seconds (default: at Ctrl-C)', secondsArgument)
    .option('-f, --farm <file>', 'the farm, if more than one is running')
    .option('--state <dir>', 'where that farm keeps its state')
    .addHelpText(
      'after',
      `
A network shows each frame once, as it enters the network. A link shows both directions of one cable.

Examples:
  inic capture lan-a -o lan-a.pcapng --seconds 10
  inic capture server1.0 -o - | tshark -r -
  inic capture lan-a -o - | wireshark -k -i -
  inic capture sync -o - | tshark -X lua_script:${IPOS_DISSECTOR} -r -

With that script Wireshark knows ipOS, what INICs say to each other: docs/wireshark.md.`,
    )
    .action(async (target: string, options: CaptureCommandOptions) => {
      await withFarm(options, async (client) => {
        const toFile = options.output !== '-'
        if (!toFile) refuseTerminal()
        // Asked before the file is opened: a target that is not there leaves no empty file.
        await client.request('capture', { target })
        const file = toFile ? await openFile(options.output) : undefined
        const stream = client.stream()
        // Half-closing asks the farm for what it still holds; it then ends the stream.
        const stop = () => stream.end()
        const timer = options.seconds === undefined ? undefined : setTimeout(stop, options.seconds * 1000)
        process.once('SIGINT', stop)
        process.once('SIGTERM', stop)
        try {
          if (file) note(`capturing ${target}; Ctrl-C ends it`)
          await pipeline(stream, file ?? process.stdout)
        } catch (error) {
          // Whoever read the pipe has seen enough.
          if (errorCode(error) !== 'EPIPE')
            throw new CommandError(`capturing failed: ${errorMessage(error)}`, { cause: error })
        } finally {
          clearTimeout(timer)
          process.off('SIGINT', stop)
          process.off('SIGTERM', stop)
        }
        if (file) note(`${options.output}: ${file.bytesWritten} bytes`)
      })
    })
}

function refuseTerminal(): void {
  if (!process.stdout.isTTY) return
  throw usageError('a capture is not for a terminal', 'pipe it: inic capture TARGET -o - | tshark -r -')
}

async function openFile(path: string): Promise<WriteStream> {
  const file = createWriteStream(path)
  try {
    await once(file, 'open')
    return file
  } catch (error) {
    throw usageError(`${path} cannot be written: ${errorMessage(error)}`)
  }
}

function secondsArgument(text: string): number {
  const seconds = Number(text)
  if (!/^\d+(\.\d+)?$/.test(text) || seconds <= 0) throw new InvalidArgumentError('Write a number of seconds above 0.')
  return seconds
}
