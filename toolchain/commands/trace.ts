import { createInterface } from 'node:readline'
import type { Command } from 'commander'
import { type FarmSelection, withFarm } from '../control/client.ts'
import type { TraceLine } from '../farm/traces.ts'
import { note, paint, print } from '../terminal.ts'

interface TraceCommandOptions extends FarmSelection {
  readonly grep?: string
  readonly json?: boolean
}

export function addTraceCommand(program: Command): void {
  program
    .command('trace')
    .summary('follow what the firmware of a running farm traces')
    .description(
      'Prints the trace ring of the INICs of a running farm as it fills: TCP states, retransmissions, drops and their reasons, moves. The firmware writes 16 bytes an entry and is not stopped.',
    )
    .argument('[server]', 'one server only')
    .option('-g, --grep <text>', 'only entries with this text')
    .option('-f, --farm <file>', 'the farm, if more than one is running')
    .option('--state <dir>', 'where that farm keeps its state')
    .option('--json', 'a JSON object a line')
    .addHelpText(
      'after',
      `
Times are since the board's power-on. Entries that were overwritten before they could be read are counted.

Examples:
  inic trace
  inic trace server1 --grep dropped
  inic trace --json | jq -r 'select(.event == 2) | .text'`,
    )
    .action(async (server: string | undefined, options: TraceCommandOptions) => {
      await withFarm(options, async (client) => {
        await client.request('trace', server === undefined ? {} : { server })
        const stream = client.stream()
        const stop = () => stream.end()
        process.once('SIGINT', stop)
        process.once('SIGTERM', stop)
        if (!options.json) note('tracing; Ctrl-C ends it')
        try {
          for await (const line of createInterface({ input: stream })) show(line, options)
        } finally {
          process.off('SIGINT', stop)
          process.off('SIGTERM', stop)
        }
      })
    })
}

function show(text: string, { grep, json }: TraceCommandOptions): void {
  const line = JSON.parse(text) as TraceLine
  if ('lost' in line) {
    if (json) print(text)
    else note(paint(process.stderr, 'red', `${line.server}: ${line.lost} entries lost`))
  } else if (grep === undefined || line.text.includes(grep)) {
    print(json ? text : `${(line.timeNs / 1e9).toFixed(6).padStart(12)}  ${line.server}  ${line.text}`)
  }
}
