#!/usr/bin/env node
/** The `inic` command: one file per sub-command in commands/. */
import { Command, CommanderError } from 'commander'
import { addBenchCommand } from './commands/bench.ts'
import { addBuildCommand } from './commands/build.ts'
import { addCaptureCommand } from './commands/capture.ts'
import { addCheckCommand } from './commands/check.ts'
import { addCoverageCommand } from './commands/coverage.ts'
import { addDebugCommand } from './commands/debug.ts'
import { addDrainCommand } from './commands/drain.ts'
import { addFlashCommand } from './commands/flash.ts'
import { addImageCommand } from './commands/image.ts'
import { addInspectCommand } from './commands/inspect.ts'
import { addNewCommand } from './commands/new.ts'
import { addProfileCommand } from './commands/profile.ts'
import { addRunCommand } from './commands/run.ts'
import { addSizeCommand } from './commands/size.ts'
import { addSoakCommand } from './commands/soak.ts'
import { addTraceCommand } from './commands/trace.ts'
import { addUpdateCommand } from './commands/update.ts'
import { CommandError, EXIT_FAILED, EXIT_OK, EXIT_USAGE, errorCode } from './errors.ts'
import { packageVersion } from './package-root.ts'
import { note, paint } from './terminal.ts'

function createProgram(): Command {
  const program = new Command('inic')
    .description('Builds, flashes and runs firmware for an emulated intelligent network interface card (INIC).')
    .version(packageVersion, '-V, --version', 'print the version of this command')
    .enablePositionalOptions()
    .showHelpAfterError('(--help shows what is possible)')
    .configureOutput({
      outputError: (text, write) => write(text.replace(/^error:/, paint(process.stderr, 'red', 'error:'))),
    })
    .exitOverride()
    .addHelpText(
      'after',
      `
Examples:
  inic build --release && inic run       a farm with one server, at http://127.0.0.1:8080
  inic run --once                        the same for one request, then exit
  inic new my-nic --template l2switch    a firmware of your own
  inic check my-farm.json                what is in a farm file, or wrong with it
  inic inspect tables                    look into the INIC of a running farm

Exit codes: 0 done · 1 it failed · 2 wrong input · 3 the farm is, or is not, running · 4 a board stopped`,
    )
  addNewCommand(program)
  addBuildCommand(program)
  addImageCommand(program)
  addFlashCommand(program)
  addCheckCommand(program)
  addRunCommand(program)
  addDebugCommand(program)
  addInspectCommand(program)
  addCaptureCommand(program)
  addTraceCommand(program)
  addProfileCommand(program)
  addCoverageCommand(program)
  addSizeCommand(program)
  addDrainCommand(program)
  addUpdateCommand(program)
  addBenchCommand(program)
  addSoakCommand(program)
  return program
}

/** Runs the command line and gives the exit code; errors are printed. */
async function main(argv: readonly string[]): Promise<number> {
  try {
    await createProgram().parseAsync(argv)
    return EXIT_OK
  } catch (error) {
    return reportError(error)
  }
}

function reportError(error: unknown): number {
  // commander has printed its errors, and --help and --version end this way too.
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT_OK : EXIT_USAGE
  if (error instanceof CommandError) {
    note(`${paint(process.stderr, 'red', 'error:')} ${error.message}`)
    if (error.hint) note(`  ${error.hint}`)
    return error.exitCode
  }
  note(`${paint(process.stderr, 'red', 'error:')} a defect of inic itself:`)
  note(error instanceof Error ? (error.stack ?? error.message) : String(error))
  return EXIT_FAILED
}

// Whoever read our output has seen enough: `inic inspect tables | head`.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error) => {
    if (errorCode(error) === 'EPIPE') process.exit(EXIT_OK)
    throw error
  })
}

// Output may still be on its way to a pipe: the code is set, and the process ends by itself.
process.exitCode = await main(process.argv)
