import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { flashMap } from '../toolchain/image/flash-map.ts'
import { decodeImage, encodeImage, IMAGE_HEADER_BYTES, type ImageOptions } from '../toolchain/image/image.ts'
import { ImageError, type ImageErrorCode } from '../toolchain/image/image-error.ts'
import { TLV_DEPENDENCY, TLV_SECURITY_COUNTER, TLV_SHA256 } from '../toolchain/image/tlv.ts'
import { formatVersion, parseVersion } from '../toolchain/image/version.ts'
import { findImgtool } from './support/imgtool.ts'
import { temporaryDirectory } from './support/tiny-firmware.ts'

const run = promisify(execFile)

const VERSION = { major: 1, minor: 2, revision: 3, build: 4 }
const PAYLOAD = Buffer.from('\0asm, or so it says')

const IMGTOOL_CASES: Record<string, { payload: Uint8Array; options: ImageOptions }> = {
  'a plain image': { payload: PAYLOAD, options: { version: VERSION } },
  'an empty payload': { payload: Buffer.alloc(0), options: { version: VERSION } },
  'a payload of half a megabyte': { payload: randomBytes(524287), options: { version: VERSION } },
  'a longer header and a load address': {
    payload: PAYLOAD,
    options: {
      version: { major: 255, minor: 255, revision: 65535, build: 0xffffffff },
      headerBytes: 512,
      loadAddress: 0x8000,
    },
  },
  'protected TLVs': {
    payload: PAYLOAD,
    options: { version: VERSION, protectedTlvs: [{ type: TLV_SECURITY_COUNTER, value: Buffer.from([7, 0, 0, 0]) }] },
  },
}

test('imgtool verify accepts every image that we encode', async (t) => {
  const imgtool = await findImgtool()
  if (typeof imgtool !== 'string') return skip(t, imgtool.reason)
  const directory = await temporaryDirectory()
  for (const [name, { payload, options }] of Object.entries(IMGTOOL_CASES)) {
    const path = join(directory, 'image.img')
    await writeFile(path, encodeImage(payload, options))
    const { stdout } = await run(imgtool, ['verify', path])
    t.regex(stdout, /Image was correctly validated/, name)
    t.regex(stdout, new RegExp(`Image version: ${formatImgtoolVersion(options)}`), name)
  }
})

test('imgtool refuses what we refuse', async (t) => {
  const imgtool = await findImgtool()
  if (typeof imgtool !== 'string') return skip(t, imgtool.reason)
  const path = join(await temporaryDirectory(), 'image.img')
  const image = encodeImage(PAYLOAD, { version: VERSION })
  image[IMAGE_HEADER_BYTES + 3] ^= 1
  await writeFile(path, image)
  await t.throwsAsync(run(imgtool, ['verify', path]))
})

test('we accept what imgtool signs', async (t) => {
  const imgtool = await findImgtool()
  if (typeof imgtool !== 'string') return skip(t, imgtool.reason)
  const directory = await temporaryDirectory()
  const [input, output] = [join(directory, 'in.bin'), join(directory, 'out.img')]
  await writeFile(input, PAYLOAD)
  const flags = [
    '--header-size',
    '0x20',
    '--pad-header',
    '--align',
    '4',
    '--slot-size',
    '0x10000',
    '--version',
    '4.5.6+7',
  ]
  await run(imgtool, ['sign', ...flags, '--security-counter', '9', '--dependencies', '(0, 1.2.3+0)', input, output])
  const image = decodeImage(await readFile(output))
  t.is(formatVersion(image.version), '4.5.6+7')
  t.deepEqual(Buffer.from(image.payload).subarray(0, PAYLOAD.length), PAYLOAD)
  t.deepEqual(image.protectedTlvs.map((tlv) => tlv.type).sort(), [TLV_DEPENDENCY, TLV_SECURITY_COUNTER].sort())
})

test('what is encoded is what is decoded', (t) => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 300 }),
      fc.tuple(fc.nat(255), fc.nat(255), fc.nat(65535), fc.nat(0xffffffff)),
      fc.integer({ min: 32, max: 600 }),
      fc.array(fc.record({ type: fc.integer({ min: 0x50, max: 0xffff }), value: fc.uint8Array({ maxLength: 40 }) }), {
        maxLength: 4,
      }),
      fc.uint8Array({ maxLength: 50 }),
      (payload, [major, minor, revision, build], headerBytes, protectedTlvs, after) => {
        const version = { major, minor, revision, build }
        const bytes = encodeImage(payload, { version, headerBytes, protectedTlvs, flags: 0x10 })
        const image = decodeImage(Buffer.concat([bytes, after]))
        t.deepEqual(image.version, version)
        t.deepEqual(Buffer.from(image.payload), Buffer.from(payload))
        t.deepEqual(
          image.protectedTlvs.map((tlv) => [tlv.type, [...tlv.value]]),
          protectedTlvs.map((tlv) => [tlv.type, [...tlv.value]]),
        )
        t.is(image.totalBytes, bytes.length)
      },
    ),
  )
})

test('every truncation and every flipped bit is refused, with an ImageError', (t) => {
  const image = encodeImage(PAYLOAD, {
    version: VERSION,
    protectedTlvs: [{ type: TLV_SECURITY_COUNTER, value: Buffer.alloc(4) }],
  })
  for (let length = 0; length < image.length; length++) {
    const error = t.throws(() => decodeImage(image.subarray(0, length)), { instanceOf: ImageError })
    t.is(error.code, 'TRUNCATED')
    t.regex(error.message, new RegExp(`truncated at byte ${length} of \\d+`))
  }
  for (let bit = 0; bit < image.length * 8; bit++) {
    const flipped = Uint8Array.from(image)
    flipped[bit >> 3] ^= 1 << (bit & 7)
    t.throws(() => decodeImage(flipped), { instanceOf: ImageError }, `bit ${bit & 7} of byte ${bit >> 3}`)
  }
})

test('arbitrary bytes give an ImageError or an image, never anything else', (t) => {
  const image = encodeImage(PAYLOAD, { version: VERSION })
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(image.length - 1), fc.nat(255)), { maxLength: 8 }), (edits) => {
      const bytes = Uint8Array.from(image)
      for (const [at, value] of edits) bytes[at] = value
      try {
        decodeImage(bytes)
      } catch (error) {
        if (!(error instanceof ImageError)) throw error
      }
    }),
    { numRuns: 2000 },
  )
  t.pass()
})

const BROKEN: Record<string, { code: ImageErrorCode; says: RegExp; edit: (image: Buffer) => Uint8Array }> = {
  'erased flash': { code: 'ERASED', says: /every byte of its header is erased/, edit: () => Buffer.alloc(4096, 0xff) },
  'another file': { code: 'MAGIC', says: /begins with 0x6d736100/, edit: () => Buffer.from('\0asm'.padEnd(64, '\0')) },
  'a header that is too short': { code: 'HEADER', says: /says it is 16 bytes/, edit: (image) => poke(image, 8, 16) },
  'a wrong byte in the payload': {
    code: 'HASH_WRONG',
    says: /image says [0-9a-f]{64}, its bytes give [0-9a-f]{64}/,
    edit: (image) => poke(image, 40, 0x1111),
  },
  'no TLV area': { code: 'TLV_MAGIC', says: /no TLV area at byte 51/, edit: (image) => poke(image, 51, 0x1234) },
  'a TLV longer than its area': {
    code: 'TLV_SIZE',
    says: /TLV at byte 55 runs past/,
    edit: (image) => poke(image, 57, 33),
  },
  'no hash': { code: 'HASH_MISSING', says: /no SHA-256 TLVs/, edit: (image) => poke(image, 55, 0x20) },
}

for (const [name, { code, says, edit }] of Object.entries(BROKEN)) {
  test(`refused: ${name}`, (t) => {
    const image = Buffer.from(encodeImage(PAYLOAD, { version: VERSION }))
    t.is(image[55], TLV_SHA256)
    const error = t.throws(() => decodeImage(edit(image)), { instanceOf: ImageError })
    t.is(error.code, code)
    t.regex(error.message, says)
  })
}

test('versions', (t) => {
  for (const text of ['0.0.0', '1.2.3', '255.255.65535+4294967295']) t.is(formatVersion(parseVersion(text)), text)
  for (const text of [
    '',
    '1',
    '1.2',
    '1.2.3.4',
    'v1.2.3',
    '1.2.3+',
    '-1.0.0',
    '256.0.0',
    '0.256.0',
    '0.0.65536',
    '0.0.0+4294967296',
  ]) {
    t.is(t.throws(() => parseVersion(text), { instanceOf: ImageError }).code, 'VERSION', text)
  }
})

test('a flash map covers its flash with aligned regions that do not overlap', (t) => {
  for (const flashBytes of [0x40000, 0x100000, 0x400000, 0x450000, 0x1000000]) {
    const map = flashMap(flashBytes)
    const regions = [map.primary, map.secondary, map.scratch, map.boot]
    let end = 0
    for (const { offset, bytes, name } of regions) {
      t.is(offset, end, name)
      t.is(bytes % 0x10000, 0, name)
      end += bytes
    }
    t.true(end <= flashBytes)
    t.is(map.primary.bytes, map.secondary.bytes)
  }
  for (const flashBytes of [0, 0x30000, 0x400001, 2 ** 40])
    t.throws(() => flashMap(flashBytes), { message: /cannot be laid out/ })
})

function skip(t: ExecutionContext, reason: string): void {
  t.log(`skipped: ${reason}`)
  t.pass()
}

function poke(image: Buffer, at: number, value: number): Buffer {
  image.writeUInt16LE(value, at)
  return image
}

function formatImgtoolVersion({ version }: ImageOptions): string {
  return `${version.major}\\.${version.minor}\\.${version.revision}\\+${version.build}`
}
