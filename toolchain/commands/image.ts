import { readFile } from 'node:fs/promises'
import { relative, resolve } from 'node:path'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { CommandError, EXIT_FAILED, errorCode, errorMessage, usageError } from '../errors.ts'
import { replaceFile } from '../files.ts'
import { type LoadedImage, loadImage, loadKeyPair, loadPublicKey } from '../image/files.ts'
import { encodeHex } from '../image/hex.ts'
import { encodeImage, IMAGE_HEADER_BYTES, type Image } from '../image/image.ts'
import { ImageError } from '../image/image-error.ts'
import { KeyPair } from '../image/keys.ts'
import {
  checkSignature,
  type Dependency,
  dependenciesOf,
  dependencyTlv,
  FLAG_NON_BOOTABLE,
  FLAG_RAM_LOAD,
  securityCounterOf,
  securityCounterTlv,
  signatureTlvs,
} from '../image/manifest.ts'
import { tlvName } from '../image/tlv.ts'
import { padImage, TRAILER_BYTES } from '../image/trailer.ts'
import { formatVersion, type ImageVersion, parseVersion } from '../image/version.ts'
import { formatTable, print, printJson } from '../terminal.ts'

export function addImageCommand(program: Command): void {
  const image = program
    .command('image')
    .summary('make, sign and look into images')
    .description(
      "Firmware images in MCUboot's format, and the keys that sign them. Options are named as imgtool names them.",
    )
    .addHelpText(
      'after',
      `
Examples:
  inic image keygen -k key.pem -t ed25519
  inic image sign -k key.pem -v 1.2.3 -s 7 firmware.wasm firmware.img
  inic image verify -k key.pem firmware.img
  inic image info firmware.img`,
    )
  addKeygen(image)
  addGetpub(image)
  addSign(image)
  addVerify(image)
  addInfo(image)
}

function addKeygen(image: Command): void {
  image
    .command('keygen')
    .description('Makes a key pair and writes it as PEM (PKCS#8), for its owner alone.')
    .requiredOption('-k, --key <file>', 'the file to write; one that is there is never overwritten')
    .addOption(new Option('-t, --type <type>', 'the kind of key').choices(['ed25519']).default('ed25519'))
    .action(async ({ key }: { readonly key: string }) => {
      const pair = KeyPair.generate()
      const path = resolve(key)
      if (await exists(path)) throw usageError(`${shown(path)} is there already`, 'choose another name, or remove it')
      await replaceFile(path, pair.pem, 0o600)
      print(`${shown(path)}: Ed25519, key hash ${encodeHex(pair.publicKey.hash)}`)
    })
}

function addGetpub(image: Command): void {
  image
    .command('getpub')
    .description('Gives the public key of a key file: for a farm file, for imgtool, for a boot loader.')
    .requiredOption('-k, --key <file>', 'a key in PEM, private or public')
    .addOption(
      new Option('-e, --encoding <encoding>', 'how to write it').choices(['pem', 'raw', 'hash']).default('pem'),
    )
    .option('-o, --output <file>', 'write it to this file')
    .addHelpText(
      'after',
      `
Examples:
  inic image getpub -k key.pem -o key.pub.pem     what "key" in a farm file names
  inic image getpub -k key.pem -e hash            what the key hash TLV of an image holds`,
    )
    .action(async (options: { readonly key: string; readonly encoding: string; readonly output?: string }) => {
      const key = await loadPublicKey(resolve(options.key))
      const contents = { pem: key.pem, raw: key.der, hash: `${encodeHex(key.hash)}\n` }[options.encoding] ?? key.pem
      if (options.output !== undefined) await replaceFile(resolve(options.output), contents)
      else process.stdout.write(contents)
    })
}

interface SignOptions {
  readonly key?: string
  readonly version: ImageVersion
  readonly securityCounter?: number | 'auto'
  readonly headerSize: number
  readonly padHeader?: boolean
  readonly slotSize?: number
  readonly dependencies?: readonly Dependency[]
  readonly pad?: boolean
  readonly test?: boolean
  readonly confirm?: boolean
  readonly loadAddr?: number
  readonly nonBootable?: boolean
  readonly publicKeyFormat: 'hash' | 'full'
}

function addSign(image: Command): void {
  image
    .command('sign')
    .description('Makes an image of a firmware module, signed if there is a key.')
    .argument('<infile>', 'firmware.wasm')
    .argument('<outfile>', 'the image')
    .option('-k, --key <file>', 'the private key to sign with; without one the image has a SHA-256 alone')
    .requiredOption('-v, --version <version>', '1.2.3 or 1.2.3+4', versionArgument)
    .option('-s, --security-counter <n>', 'a number that never goes down; auto: from the version', counterArgument)
    .option('-d, --dependencies <list>', "images that must be there: '(0, 1.2.3+0), (1, 2.0.0)'", dependenciesArgument)
    .option('-H, --header-size <bytes>', 'bytes before the module', sizeArgument, IMAGE_HEADER_BYTES)
    .option('-L, --load-addr <address>', 'load address, for boot loaders that copy images', sizeArgument)
    .option('-S, --slot-size <bytes>', 'the size of the slot that the image must fit into', sizeArgument)
    .option('--pad', 'pad the image to the slot size, with a trailer')
    .option('--test', 'the same: the trailer asks for a trial')
    .option('--confirm', 'the same, and the trailer says that the image is confirmed')
    .option('--non-bootable', 'mark the image as one that does not boot')
    .option('--pad-header', 'accepted for imgtool: the header is always put before the module')
    .addOption(
      new Option('--align <bytes>', 'the write alignment of trailers').choices(['1', '2', '4', '8']).default('8'),
    )
    .addOption(
      new Option('--public-key-format <format>', 'name the key by its hash, or put it in')
        .choices(['hash', 'full'])
        .default('hash'),
    )
    .addHelpText(
      'after',
      `
Examples:
  inic image sign -v 1.2.3 firmware.wasm firmware.img
  inic image sign -k key.pem -v 1.2.3 -s auto firmware.wasm firmware.img
  inic image sign -k key.pem -v 1.2.3 -S 0x1f0000 --confirm firmware.wasm slot.img`,
    )
    .action(async (infile: string, outfile: string, options: SignOptions) => {
      const padded = options.pad || options.test || options.confirm
      if (padded && options.slotSize === undefined)
        throw usageError('an image cannot be padded to a slot of no size', 'give the size: -S 0x1f0000')
      const payload = await readPayload(resolve(infile))
      const bytes = await signImage(payload, options)
      const { slotSize } = options
      if (slotSize !== undefined && bytes.length + TRAILER_BYTES > slotSize) {
        throw usageError(
          `the image has ${bytes.length} bytes and the trailer ${TRAILER_BYTES}: too many for a slot of ${slotSize}`,
          'choose a larger slot: -S',
        )
      }
      const written = padded && slotSize !== undefined ? padImage(bytes, slotSize, options.confirm === true) : bytes
      await replaceFile(resolve(outfile), written)
      print(
        `${shown(resolve(outfile))}: version ${formatVersion(options.version)}, ${written.length} bytes, ${options.key ? 'signed' : 'not signed'}`,
      )
    })
}

async function signImage(payload: Uint8Array, options: SignOptions): Promise<Uint8Array> {
  const { version, headerSize, loadAddr, nonBootable, publicKeyFormat } = options
  const key = options.key === undefined ? undefined : await loadKeyPair(resolve(options.key))
  const counter = options.securityCounter === 'auto' ? counterOf(version) : options.securityCounter
  try {
    return encodeImage(payload, {
      version,
      headerBytes: headerSize,
      flags: (loadAddr === undefined || loadAddr === 0 ? 0 : FLAG_RAM_LOAD) | (nonBootable ? FLAG_NON_BOOTABLE : 0),
      ...(loadAddr !== undefined && { loadAddress: loadAddr }),
      protectedTlvs: [
        ...(counter === undefined ? [] : [securityCounterTlv(counter)]),
        ...(options.dependencies ?? []).map(dependencyTlv),
      ],
      ...(key && { sign: (digest: Uint8Array) => signatureTlvs(key, digest, publicKeyFormat) }),
    })
  } catch (error) {
    throw error instanceof ImageError ? usageError(error.message) : error
  }
}

function addVerify(image: Command): void {
  image
    .command('verify')
    .description('Checks the hash of an image, and with a key its signature.')
    .argument('<imgfile>', 'the image')
    .option('-k, --key <file>', 'a key in PEM, private or public')
    .addHelpText('after', '\nExit codes: 0 it is in order · 1 it is not signed by that key · 2 it is no image')
    .action(async (path: string, options: { readonly key?: string }) => {
      const { image } = await loadImage(resolve(path))
      const key = options.key === undefined ? undefined : await loadPublicKey(resolve(options.key))
      if (key !== undefined) requireSignature(shown(resolve(path)), () => checkSignature(image, key))
      print(`Image was correctly validated${key === undefined ? ' (hash alone; -k checks a signature)' : ''}`)
      print(`Image version: ${formatImgtoolVersion(image.version)}`)
      print(`Image digest: ${encodeHex(image.digest)}`)
    })
}

function requireSignature(path: string, check: () => void): void {
  try {
    check()
  } catch (error) {
    if (!(error instanceof ImageError)) throw error
    throw new CommandError(`${path} is ${error.message}`, { exitCode: EXIT_FAILED })
  }
}

function addInfo(image: Command): void {
  image
    .command('info')
    .alias('dumpinfo')
    .description('Shows what an image says: header, TLVs, and the trailer of a padded one.')
    .argument('<imgfile>', 'the image')
    .option('--json', 'as JSON')
    .action(async (path: string, { json = false }: { readonly json?: boolean }) => {
      const loaded = await loadImage(resolve(path))
      if (json) printJson(describe(loaded))
      else show(loaded)
    })
}

function describe({ image, padding }: LoadedImage): object {
  const tlvs = (list: Image['tlvs']) =>
    list.map(({ type, value }) => ({ type, name: tlvName(type), bytes: value.length, value: encodeHex(value) }))
  return {
    version: formatVersion(image.version),
    bytes: image.totalBytes,
    headerBytes: image.headerBytes,
    payloadBytes: image.payload.length,
    loadAddress: image.loadAddress,
    flags: image.flags,
    sha256: encodeHex(image.digest),
    securityCounter: attempt(() => securityCounterOf(image)),
    dependencies: attempt(() =>
      dependenciesOf(image).map((item) => ({ image: item.image, version: formatVersion(item.version) })),
    ),
    protectedTlvs: tlvs(image.protectedTlvs),
    tlvs: tlvs(image.tlvs),
    ...(padding && { trailer: { confirmed: padding.confirmed, align: padding.align } }),
  }
}

function show(loaded: LoadedImage): void {
  const { image, padding } = loaded
  print(`version          ${formatVersion(image.version)}`)
  print(`size             ${image.totalBytes} bytes: header ${image.headerBytes}, module ${image.payload.length}`)
  print(
    `flags            0x${image.flags.toString(16)}${image.loadAddress ? `, load address 0x${image.loadAddress.toString(16)}` : ''}`,
  )
  print(`SHA-256          ${encodeHex(image.digest)}`)
  print(`security counter ${attempt(() => securityCounterOf(image))}`)
  if (padding) print(`trailer          ${padding.confirmed ? 'confirmed' : 'asks for a trial'}, align ${padding.align}`)
  const rows = [
    ...image.protectedTlvs.map((tlv) => ({ ...tlv, place: 'protected' })),
    ...image.tlvs.map((tlv) => ({ ...tlv, place: '' })),
  ].map(({ type, value, place }) => [
    `0x${type.toString(16).padStart(2, '0')}`,
    tlvName(type),
    place,
    String(value.length),
    `${encodeHex(value).slice(0, 64)}${value.length > 32 ? '…' : ''}`,
  ])
  print('')
  for (const line of formatTable(['TLV', 'NAME', '', 'BYTES', 'VALUE'], rows)) print(line)
}

/** What a TLV says, or what is wrong with it. */
function attempt<T>(read: () => T): T | string {
  try {
    return read()
  } catch (error) {
    if (!(error instanceof ImageError)) throw error
    return error.message
  }
}

async function readPayload(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path)
  } catch (error) {
    throw usageError(
      errorCode(error) === 'ENOENT'
        ? `there is no file ${shown(path)}`
        : `${shown(path)} cannot be read: ${errorMessage(error)}`,
    )
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await readFile(path)
    return true
  } catch (error) {
    return errorCode(error) !== 'ENOENT'
  }
}

/** As imgtool's `auto`. */
export function counterOf({ major, minor, revision }: ImageVersion): number {
  return major * 0x1000000 + minor * 0x10000 + revision
}

export function versionArgument(text: string): ImageVersion {
  try {
    return parseVersion(text)
  } catch (error) {
    throw new InvalidArgumentError(errorMessage(error))
  }
}

/** A security counter as imgtool takes it: a number, in any base, or `auto`. */
export function counterArgument(text: string): number | 'auto' {
  return text.toLowerCase() === 'auto' ? 'auto' : sizeArgument(text)
}

function sizeArgument(text: string): number {
  const value = /^(0x[0-9a-f]+|0b[01]+|0o[0-7]+|\d+)$/i.test(text) ? Number(text) : Number.NaN
  if (!Number.isInteger(value) || value > 0xffffffff)
    throw new InvalidArgumentError('Write a number, as in 4096 or 0x1000.')
  return value
}

function dependenciesArgument(text: string): Dependency[] {
  const form = /^\s*\(\s*(\d+)\s*,\s*([0-9.+]+)\s*\)\s*(?:,|$)/
  const found: Dependency[] = []
  let rest = text
  while (rest.trim() !== '') {
    const match = form.exec(rest)
    if (match === null) throw new InvalidArgumentError("Write it as in '(0, 1.2.3+0), (1, 2.0.0)'.")
    found.push({ image: Number(match[1]), version: versionArgument(match[2]) })
    rest = rest.slice(match[0].length)
  }
  return found
}

/** As imgtool prints it. */
function formatImgtoolVersion({ major, minor, revision, build }: ImageVersion): string {
  return `${major}.${minor}.${revision}+${build}`
}

function shown(path: string): string {
  return relative(process.cwd(), path)
}
