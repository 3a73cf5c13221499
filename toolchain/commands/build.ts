import { relative, resolve } from 'node:path'
import type { Command } from 'commander'
import { usageError } from '../errors.ts'
import { replaceFile } from '../files.ts'
import type { BuildTarget } from '../firmware/artifacts.ts'
import { type BuildResult, buildFirmware } from '../firmware/build.ts'
import { loadKeyPair } from '../image/files.ts'
import { encodeHex } from '../image/hex.ts'
import { decodeImage, encodeImage } from '../image/image.ts'
import type { KeyPair } from '../image/keys.ts'
import { isSigned, securityCounterTlv, signatureTlvs } from '../image/manifest.ts'
import { stateLayoutOf } from '../image/state-layout.ts'
import { formatVersion, type ImageVersion } from '../image/version.ts'
import { projectOrOwn } from '../project.ts'
import { note, print, printJson, startProgress, wantsColour } from '../terminal.ts'
import { counterArgument, counterOf, versionArgument } from './image.ts'

interface BuildCommandOptions {
  readonly release?: boolean
  readonly output?: string
  readonly version?: ImageVersion
  readonly dwarf: boolean
  readonly sign?: string
  readonly securityCounter?: number | 'auto'
  readonly json?: boolean
}

export function addBuildCommand(program: Command): void {
  program
    .command('build')
    .summary('compile firmware into an image')
    .description('Compiles AssemblyScript firmware and puts it into an image that a board boots (MCUboot format).')
    .argument(
      '[dir]',
      "folder of the firmware, with its asconfig.json; left out: of the project here, or else ipOS's own",
    )
    .option('-r, --release', 'optimize; without it, the debug target is built')
    .option('-o, --output <file>', 'write the image to this file too')
    .option('--version <version>', "version of the image: 1.2.3 or 1.2.3+4 (default: the package's)", versionArgument)
    .option('--no-dwarf', 'leave out firmware.debug.wasm, the module that LLDB reads')
    .option('--sign <key>', 'sign the image that -o writes, with this private key (inic image keygen)')
    .option(
      '-s, --security-counter <n>',
      'with --sign: a number that never goes down; auto: from the version',
      counterArgument,
    )
    .option('--json', 'describe the image as JSON')
    .addHelpText(
      'after',
      `
Examples:
  inic build                        debug build of the project here, or of ipOS: build/debug/firmware.img
  inic build --release              what inic run boots: build/release/firmware.img
  inic build my-nic -o my-nic.img   a firmware of your own (inic new my-nic), from outside its folder
  inic build --release --sign key.pem -s 7 -o signed.img

Beside the image lie firmware.wasm with its source map, and firmware.layouts.json with the layout of every class;
firmware.debug.wasm is the same module with DWARF behind it, which is not flashed.
Nothing is compiled if no source has changed.`,
    )
    .action(async (directory: string | undefined, options: BuildCommandOptions) => {
      if (options.sign !== undefined && options.output === undefined)
        throw usageError('--sign signs what -o writes', 'name the file: -o FILE')
      if (options.securityCounter !== undefined && options.sign === undefined)
        throw usageError('--security-counter goes with --sign', 'without a signature anybody could raise it')
      const key = options.sign === undefined ? undefined : await loadKeyPair(resolve(options.sign))
      const target: BuildTarget = options.release ? 'release' : 'debug'
      const progress = startProgress(`building firmware (${target})`)
      const startedAt = performance.now()
      let result: BuildResult
      try {
        result = await buildFirmware({
          directory: directory ?? projectOrOwn(),
          target,
          ...(options.version && { version: options.version }),
          dwarf: options.dwarf,
          colour: wantsColour(process.stderr),
          onStage: (stage) => progress.update(stage),
        })
      } finally {
        progress.end()
      }
      if (result.warnings) note(result.warnings)
      if (result.remark) note(result.remark)
      const output = options.output && resolve(options.output)
      if (key) result = signed(result, key, options.securityCounter)
      if (output) await replaceFile(output, result.imageBytes)
      if (options.json) printJson(describe(result, options.dwarf && !result.remark, output))
      else printResult(result, output, (performance.now() - startedAt) / 1000)
    })
}

/** The same firmware in an image that `key` vouches for. */
function signed(result: BuildResult, key: KeyPair, securityCounter: number | 'auto' | undefined): BuildResult {
  const { version, payload } = result.image
  const counter = securityCounter === 'auto' ? counterOf(version) : securityCounter
  const imageBytes = encodeImage(payload, {
    version,
    protectedTlvs: [...(counter === undefined ? [] : [securityCounterTlv(counter)]), ...result.image.protectedTlvs],
    sign: (digest) => signatureTlvs(key, digest),
  })
  return { ...result, imageBytes, image: decodeImage(imageBytes) }
}

function printResult(
  { artifacts, image, target, upToDate }: BuildResult,
  output: string | undefined,
  seconds: number,
): void {
  const path = relative(process.cwd(), output ?? artifacts.image)
  const how = upToDate ? 'unchanged' : `built in ${seconds.toFixed(1)} s`
  const signature = isSigned(image) ? ', signed' : ''
  print(`${path}: ${target}, version ${formatVersion(image.version)}, ${image.totalBytes} bytes${signature}, ${how}`)
}

function describe(
  { artifacts, image, target, upToDate }: BuildResult,
  dwarf: boolean,
  output: string | undefined,
): object {
  return {
    target,
    image: output ?? artifacts.image,
    version: formatVersion(image.version),
    bytes: image.totalBytes,
    sha256: encodeHex(image.digest),
    stateLayout: stateLayoutOf(image),
    wasm: artifacts.wasm,
    sourceMap: artifacts.sourceMap,
    layouts: artifacts.layouts,
    ...(dwarf && { debugWasm: artifacts.debugWasm }),
    upToDate,
  }
}
