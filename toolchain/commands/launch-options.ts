/** Options of the command line that say how a farm is started: of `inic run` and `inic debug`. */
import { type Command, InvalidArgumentError, Option } from 'commander'
import {
  PUBLISH_EXAMPLE,
  parsePublish,
  parseStream,
  parseTap,
  STREAM_EXAMPLE,
  TAP_EXAMPLE,
} from '../config/endpoints.ts'
import type { PublishConfig } from '../config/farm-config.ts'
import type { Attachment } from '../farm/launch.ts'
import type { PlayRequest } from '../farm/outside.ts'
import type { CaptureRequest } from '../farm/session.ts'

export function addLaunchOptions(command: Command): Command {
  return command
    .option(
      '-p, --publish <[addr:]port:server:port>',
      'open a port of this machine that leads to a server; may be repeated',
      collect(publishArgument),
    )
    .option(
      '--tap <network=ifname[,address]>',
      'plug a Linux TAP interface into a network (needs root); may be repeated',
      collect(tapArgument),
    )
    .option(
      '--link <network=how>',
      'join a network to another process: listen:ADDRESS, connect:ADDRESS or dgram:HERE,THERE; may be repeated',
      collect(linkArgument),
    )
    .option(
      '--pcap <file[:link]>',
      'record frames from the start: of a network or link, or of every network; may be repeated',
      collect(pcapArgument),
    )
    .option(
      '--play <file:network>',
      'send the frames of a capture into a network once the farm serves, with the gaps between them; may be repeated',
      collect(playArgument),
    )
    .option('--record <file>', "record what the servers' cards are given, for inic debug --replay")
    .option(
      '--image <file>',
      'boot this image, in place of what is in flash, on the servers whose firmware the farm names, or on all',
    )
    .addOption(new Option('--cpu <kind>', 'what runs the firmware').choices(['auto', 'wasmtime', 'v8']).default('auto'))
    .option('--virtual', 'virtual time: as fast as it goes, and the same at every run; board programs only')
    .option('--no-confirm', 'leave firmware that is on trial unconfirmed: the next run goes back to the one before it')
    .option('--seed <text>', 'what everything random follows from')
    .option('--state <dir>', 'where to keep flash files and control socket (default: .inic beside the farm file)')
}

function collect<T>(parse: (text: string) => T): (text: string, previous?: readonly T[]) => T[] {
  return (text, previous = []) => [...previous, parse(text)]
}

export function publishArgument(text: string): PublishConfig {
  const config = parsePublish(text)
  if (config === undefined) throw new InvalidArgumentError(`Write it as in ${PUBLISH_EXAMPLE}.`)
  return config
}

export const tapArgument = attachmentArgument(parseTap, `lan-a=${TAP_EXAMPLE}`)
export const linkArgument = attachmentArgument(parseStream, `lan-a=${STREAM_EXAMPLE}`)

/** Reads `NETWORK=...`, with `parse` for what stands after the sign. */
function attachmentArgument<T>(
  parse: (text: string) => T | undefined,
  example: string,
): (text: string) => Attachment<T> {
  return (text) => {
    const at = text.indexOf('=')
    const to = parse(text.slice(at + 1))
    if (at < 1 || to === undefined) throw new InvalidArgumentError(`Write it as in ${example}.`)
    return { network: text.slice(0, at), to }
  }
}

/** `FILE` or `FILE:LINK`; a colon that a file name ends with is the name's own. */
export function pcapArgument(text: string): CaptureRequest {
  const match = /^(.+):([a-z][a-z0-9.-]*)$/.exec(text)
  return match ? { path: match[1], target: match[2] } : { path: text, target: undefined }
}

/** `FILE:NETWORK`. */
export function playArgument(text: string): PlayRequest {
  const { path, target } = pcapArgument(text)
  if (target === undefined) throw new InvalidArgumentError('Write it as in clients.pcapng:lan-a.')
  return { path, network: target }
}
