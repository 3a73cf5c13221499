/** Signed images: what imgtool and ours think of each other's, and what a board demands. */
import { execFile } from 'node:child_process'
import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import fc from 'fast-check'
import { decodeImage, encodeImage, type Image } from '../toolchain/image/image.ts'
import { ImageError, type ImageErrorCode } from '../toolchain/image/image-error.ts'
import { KeyPair, parseKeyPair, parsePublicKey } from '../toolchain/image/keys.ts'
import {
  checkPolicy,
  dependenciesOf,
  dependencyTlv,
  FLAG_ENCRYPTED_AES128,
  FLAG_NON_BOOTABLE,
  type ImagePolicy,
  securityCounterOf,
  securityCounterTlv,
  signatureTlvs,
} from '../toolchain/image/manifest.ts'
import { TLV_DEPENDENCY, TLV_ED25519, TLV_KEY_HASH, TLV_SECURITY_COUNTER, type Tlv } from '../toolchain/image/tlv.ts'
import { padImage, parseTrailer, readPadding, TRAILER_BYTES } from '../toolchain/image/trailer.ts'
import { inic } from './support/cli.ts'
import { findImgtool } from './support/imgtool.ts'
import { temporaryDirectory, tinyFirmware } from './support/tiny-firmware.ts'

const run = promisify(execFile)
const VERSION = { major: 1, minor: 2, revision: 3, build: 4 }
const PAYLOAD = Buffer.from('\0asm, or so it says')
const KEY = KeyPair.generate()
const OTHER = KeyPair.generate()

/** What `inic image sign` and `imgtool sign` are both told. */
const SAME_OPTIONS: Readonly<Record<string, string[]>> = {
  'no key': ['-v', '1.2.3+4'],
  'a key': ['-v', '1.2.3', '-k', 'KEY'],
  'a security counter': ['-v', '1.2.3', '-k', 'KEY', '-s', '7'],
  'a security counter from the version': ['-v', '3.4.5', '-k', 'KEY', '-s', 'auto'],
  dependencies: ['-v', '1.2.3', '-k', 'KEY', '-d', '(1, 1.2.3+0), (2, 4.5.6+7)'],
  'everything protected': ['-v', '1.2.3', '-k', 'KEY', '-s', '0x10', '-d', '(0, 0.9.0)'],
  'the public key in full': ['-v', '1.2.3', '-k', 'KEY', '--public-key-format', 'full'],
  padding: ['-v', '1.2.3', '-k', 'KEY', '--pad'],
  'padding that asks for a trial': ['-v', '1.2.3', '-k', 'KEY', '--test'],
  'padding that is confirmed': ['-v', '1.2.3', '-k', 'KEY', '-s', '3', '--confirm'],
}

for (const [name, options] of Object.entries(SAME_OPTIONS)) {
  test(`imgtool sign and inic image sign give the same bytes: ${name}`, async (t) => {
    const imgtool = await findImgtool()
    if (typeof imgtool !== 'string') return skip(t, imgtool.reason)
    const { input, key, path } = await files()
    const words = options.map((word) => (word === 'KEY' ? key : word))
    const common = ['-S', '0x10000', '-H', '0x20', '--align', '8', '--pad-header', ...words, input]
    await run(imgtool, ['sign', ...common, path('theirs.img')])
    const ours = await inic(['image', 'sign', ...common, path('ours.img')])
    t.is(ours.code, 0, ours.stderr)
    const [a, b] = await Promise.all([readFile(path('theirs.img')), readFile(path('ours.img'))])
    t.true(a.equals(b), `imgtool ${a.toString('hex').slice(0, 900)}\nours ${b.toString('hex').slice(0, 900)}`)
    const keyOptions = options.includes('KEY') ? ['-k', key] : []
    t.regex((await run(imgtool, ['verify', ...keyOptions, path('ours.img')])).stdout, /correctly validated/)
    t.regex((await inic(['image', 'verify', ...keyOptions, path('theirs.img')])).stdout, /correctly validated/)
  })
}

test('keys: imgtool reads ours, we read its, and both refuse the other key', async (t) => {
  const imgtool = await findImgtool()
  if (typeof imgtool !== 'string') return skip(t, imgtool.reason)
  const { input, path } = await files()
  t.is((await inic(['image', 'keygen', '-k', path('ours.pem'), '-t', 'ed25519'])).code, 0)
  t.is((await stat(path('ours.pem'))).mode & 0o777, 0o600)
  await run(imgtool, ['keygen', '-t', 'ed25519', '-k', path('theirs.pem')])
  for (const [key, other] of [
    ['ours.pem', 'theirs.pem'],
    ['theirs.pem', 'ours.pem'],
  ]) {
    const image = path(`${key}.img`)
    t.is((await inic(['image', 'sign', '-v', '1.0.0', '-k', path(key), input, image])).code, 0)
    t.regex((await run(imgtool, ['verify', '-k', path(key), image])).stdout, /correctly validated/)
    await t.throwsAsync(run(imgtool, ['verify', '-k', path(other), image]))
    const refused = await inic(['image', 'verify', '-k', path(other), image])
    t.is(refused.code, 1)
    t.regex(refused.stderr, /not signed by key [0-9a-f]{16}, which the board trusts: it is signed by another key/)
    const theirs = await run(imgtool, ['getpub', '-k', path(key), '-e', 'pem'])
    const ours = await inic(['image', 'getpub', '-k', path(key)])
    t.is(ours.stdout, theirs.stdout)
    await writeFile(path('public.pem'), ours.stdout)
    t.is((await inic(['image', 'verify', '-k', path('public.pem'), image])).code, 0)
  }
  const dumped = await run(imgtool, ['dumpinfo', path('ours.pem.img')])
  t.regex(dumped.stdout, /type: ED25519 \(0x24\)/)
})

test('build signs in one step, and imgtool accepts it', async (t) => {
  const directory = await tinyFirmware()
  const [key, output] = [join(directory, 'key.pem'), join(directory, 'signed.img')]
  await writeFile(key, KEY.pem)
  const built = await inic(['build', directory, '--release', '--sign', key, '-s', 'auto', '-o', output])
  t.is(built.code, 0, built.stderr)
  t.regex(built.stdout, /version 1\.2\.3, \d+ bytes, signed, built/)
  const image = decodeImage(await readFile(output))
  checkPolicy(image, { key: KEY.publicKey, securityCounter: 0x1020003 })
  const imgtool = await findImgtool()
  if (typeof imgtool === 'string') {
    t.regex((await run(imgtool, ['verify', '-k', key, output])).stdout, /correctly validated/)
  }
  const info = await inic(['image', 'info', '--json', output])
  t.like(JSON.parse(info.stdout), { version: '1.2.3', securityCounter: 0x1020003 })
  t.regex((await inic(['build', directory, '--sign', key])).stderr, /--sign signs what -o writes/)
})

interface Demand {
  readonly image: Uint8Array
  readonly policy?: Partial<ImagePolicy>
  readonly code: ImageErrorCode | undefined
  readonly says?: RegExp
}

const trusted = { key: KEY.publicKey }
const DEMANDS: Readonly<Record<string, Demand>> = {
  'no key, not signed': { image: image(), code: undefined },
  'no key, signed by anybody': { image: image({ key: OTHER }), code: undefined },
  'signed by the key': { image: image({ key: KEY }), policy: trusted, code: undefined },
  'signed by another key first, then by ours': {
    image: encodeImage(PAYLOAD, {
      version: VERSION,
      sign: (digest) => [...signatureTlvs(OTHER, digest), ...signatureTlvs(KEY, digest)],
    }),
    policy: trusted,
    code: undefined,
  },
  'not signed': { image: image(), policy: trusted, code: 'UNSIGNED', says: /it is not signed$/ },
  'signed by another key': { image: image({ key: OTHER }), policy: trusted, code: 'UNSIGNED', says: /by another key$/ },
  "another key's signature under our key's name": {
    image: encodeImage(PAYLOAD, {
      version: VERSION,
      sign: (digest) => [
        { type: TLV_KEY_HASH, value: KEY.publicKey.hash },
        { type: TLV_ED25519, value: OTHER.sign(digest) },
      ],
    }),
    policy: trusted,
    code: 'SIGNATURE_WRONG',
    says: /wrong signature/,
  },
  "our signature without our key's name": {
    image: encodeImage(PAYLOAD, {
      version: VERSION,
      sign: (digest) => [{ type: TLV_ED25519, value: KEY.sign(digest) }],
    }),
    policy: trusted,
    code: 'UNSIGNED',
  },
  'our signature of another image': {
    image: encodeImage(PAYLOAD, {
      version: VERSION,
      sign: () =>
        signatureTlvs(KEY, decodeImage(image({ key: OTHER })).digest)
          .slice(0, 1)
          .concat({ type: TLV_ED25519, value: KEY.sign(new Uint8Array(32)) }),
    }),
    policy: trusted,
    code: 'SIGNATURE_WRONG',
  },
  'a signature that is too short': {
    image: encodeImage(PAYLOAD, {
      version: VERSION,
      sign: (digest) => [
        { type: TLV_KEY_HASH, value: KEY.publicKey.hash },
        { type: TLV_ED25519, value: KEY.sign(digest).subarray(0, 63) },
      ],
    }),
    policy: trusted,
    code: 'SIGNATURE_WRONG',
  },
  'a counter that is high enough': { image: image({ counter: 5 }), policy: { securityCounter: 5 }, code: undefined },
  'a counter that is too low': {
    image: image({ counter: 4 }),
    policy: { securityCounter: 5 },
    code: 'COUNTER',
    says: /security counter 4: the board has confirmed 5/,
  },
  'no counter where there was one': { image: image(), policy: { securityCounter: 1 }, code: 'COUNTER' },
  'two counters': {
    image: image({ tlvs: [securityCounterTlv(1), securityCounterTlv(9)] }),
    code: 'COUNTER',
    says: /2 security counters/,
  },
  'a counter of two bytes': {
    image: image({ tlvs: [{ type: TLV_SECURITY_COUNTER, value: Buffer.alloc(2) }] }),
    code: 'COUNTER',
    says: /of 2 bytes/,
  },
  'a dependency on itself': {
    image: image({ tlvs: [dependencyTlv({ image: 0, version: VERSION })] }),
    code: undefined,
  },
  'a dependency on a second image': {
    image: image({ tlvs: [dependencyTlv({ image: 1, version: VERSION })] }),
    code: 'DEPENDENCY',
    says: /depends on image 1, version 1\.2\.3\+4/,
  },
  'a dependency of three bytes': {
    image: image({ tlvs: [{ type: TLV_DEPENDENCY, value: Buffer.alloc(3) }] }),
    code: 'DEPENDENCY',
    says: /of 3 bytes/,
  },
  'an image that is not to be booted': {
    image: image({ flags: FLAG_NON_BOOTABLE }),
    code: 'FLAGS',
    says: /not bootable/,
  },
  'an encrypted image': { image: image({ flags: FLAG_ENCRYPTED_AES128 }), code: 'FLAGS', says: /encrypted/ },
}

for (const [name, { image: bytes, policy, code, says }] of Object.entries(DEMANDS)) {
  test(`what a board demands: ${name}`, (t) => {
    const check = () => checkPolicy(decodeImage(bytes), { key: undefined, securityCounter: 0, ...policy })
    if (code === undefined) {
      t.notThrows(check)
      return
    }
    const error = t.throws(check, { instanceOf: ImageError })
    t.is(error.code, code)
    if (says !== undefined) t.regex(error.message, says)
  })
}

test('every truncation of a signed image names the byte', (t) => {
  const whole = image({ key: KEY, counter: 7 })
  for (let length = 0; length < whole.length; length++) {
    const error = t.throws(() => decodeImage(whole.subarray(0, length)), { instanceOf: ImageError })
    t.regex(error.message, new RegExp(`truncated at byte ${length} of \\d+`))
  }
})

test('what is signed is what is read', (t) => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 200 }),
      fc.option(fc.nat(0xffffffff)),
      fc.array(fc.tuple(fc.nat(255), fc.nat(65535)), { maxLength: 3 }),
      (payload, counter, dependencies) => {
        const list = dependencies.map(([number, revision]) => ({ image: number, version: { ...VERSION, revision } }))
        const bytes = encodeImage(payload, {
          version: VERSION,
          protectedTlvs: [...(counter === null ? [] : [securityCounterTlv(counter)]), ...list.map(dependencyTlv)],
          sign: (digest) => signatureTlvs(KEY, digest),
        })
        const read = decodeImage(bytes)
        t.is(securityCounterOf(read), counter ?? 0)
        t.deepEqual(dependenciesOf(read), list)
      },
    ),
  )
})

test('arbitrary bytes in images, trailers and keys give an ImageError or a value, never anything else', (t) => {
  const whole = padImage(
    image({ key: KEY, counter: 7, tlvs: [dependencyTlv({ image: 0, version: VERSION })] }),
    4096,
    true,
  )
  const pem = KEY.pem
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { maxLength: 12 }), (edits) => {
      const bytes = Uint8Array.from(whole)
      for (const [at, value] of edits) bytes[at % (at % 3 === 0 ? 4096 : 320)] = value
      readPadding(bytes)
      parseTrailer(bytes)
      attempt((): Image => {
        const read = decodeImage(bytes)
        checkPolicy(read, { key: KEY.publicKey, securityCounter: 3 })
        return read
      })
    }),
    { numRuns: 3000 },
  )
  fc.assert(
    fc.property(fc.nat(pem.length - 1), fc.string({ maxLength: 40 }), (at, text) => {
      const edited = pem.slice(0, at) + text + pem.slice(at + text.length)
      attempt(() => parseKeyPair(edited))
      attempt(() => parsePublicKey(edited))
      attempt(() => parsePublicKey(text))
    }),
    { numRuns: 1000 },
  )
  t.pass()
})

test('a trailer of imgtool is understood, for every alignment', async (t) => {
  const imgtool = await findImgtool()
  if (typeof imgtool !== 'string') return skip(t, imgtool.reason)
  const { input, path } = await files()
  for (const align of ['1', '2', '4', '8', '16', '32']) {
    for (const [option, confirmed] of [
      ['--pad', false],
      ['--test', false],
      ['--confirm', true],
    ] as const) {
      const common = ['-S', '0x10000', '-H', '0x20', '--pad-header', '-v', '1.0.0', '--align', align, option]
      await run(imgtool, ['sign', ...common, input, path('padded.img')])
      const bytes = await readFile(path('padded.img'))
      t.deepEqual(readPadding(bytes), { confirmed, align: Math.max(8, Number(align)) }, `${option}, ${align}`)
      if (Number(align) <= 8) t.like(parseTrailer(bytes), { magic: 'good', imageOk: confirmed, copyDone: false })
    }
  }
})

const REFUSED: Readonly<Record<string, { args: string[]; says: RegExp }>> = {
  'keygen over a key that is there': { args: ['keygen', '-k', 'key.pem'], says: /key\.pem is there already/ },
  'keygen of another kind': { args: ['keygen', '-k', 'x', '-t', 'rsa-2048'], says: /Allowed choices are ed25519/ },
  'a key that is not there': {
    args: ['getpub', '-k', 'no.pem'],
    says: /no key .*no\.pem\s+make one with: inic image keygen/,
  },
  'a key that is none': { args: ['getpub', '-k', 'in.bin'], says: /in\.bin is no key: no key in PEM/ },
  'signing with a public key': {
    args: ['sign', '-v', '1.0.0', '-k', 'public.pem', 'in.bin', 'o.img'],
    says: /a public key alone: it cannot sign/,
  },
  'a version that is none': { args: ['sign', '-v', '1', 'in.bin', 'o.img'], says: /'1' is not a version/ },
  'a counter that is none': { args: ['sign', '-v', '1.0.0', '-s', 'x', 'in.bin', 'o.img'], says: /Write a number/ },
  'dependencies in another form': {
    args: ['sign', '-v', '1.0.0', '-d', '1: 2.0', 'in.bin', 'o.img'],
    says: /Write it as in '\(0, 1\.2\.3\+0\)/,
  },
  'padding to no size': { args: ['sign', '-v', '1.0.0', '--pad', 'in.bin', 'o.img'], says: /-S 0x1f0000/ },
  'a slot that is too small': {
    args: ['sign', '-v', '1.0.0', '-S', '3000', 'in.bin', 'o.img'],
    says: new RegExp(`trailer ${TRAILER_BYTES}: too many for a slot of 3000`),
  },
  'a header that is too small': {
    args: ['sign', '-v', '1.0.0', '-H', '16', 'in.bin', 'o.img'],
    says: /a header of 16/,
  },
  'verifying what is no image': { args: ['verify', 'in.bin'], says: /in\.bin is no image that boots/ },
}

test('inic image says what is wrong', async (t) => {
  const { directory, path } = await files()
  await writeFile(path('public.pem'), KEY.publicKey.pem)
  for (const [name, { args, says }] of Object.entries(REFUSED)) {
    const { code, stderr } = await inic(['image', ...args], { cwd: directory })
    t.is(code, 2, `${name}: ${stderr}`)
    t.regex(stderr, says, name)
  }
})

function image(options: { key?: KeyPair; counter?: number; tlvs?: Tlv[]; flags?: number } = {}): Uint8Array {
  const { key, counter, tlvs = [], flags = 0 } = options
  return encodeImage(PAYLOAD, {
    version: VERSION,
    flags,
    protectedTlvs: [...(counter === undefined ? [] : [securityCounterTlv(counter)]), ...tlvs],
    ...(key && { sign: (digest: Uint8Array) => signatureTlvs(key, digest) }),
  })
}

async function files(): Promise<{ directory: string; input: string; key: string; path: (name: string) => string }> {
  const directory = await temporaryDirectory()
  const path = (name: string) => join(directory, name)
  await writeFile(path('in.bin'), PAYLOAD)
  await writeFile(path('key.pem'), KEY.pem)
  return { directory, input: path('in.bin'), key: path('key.pem'), path }
}

function attempt(act: () => unknown): void {
  try {
    act()
  } catch (error) {
    if (!(error instanceof ImageError)) throw error
  }
}

function skip(t: ExecutionContext, reason: string): void {
  t.log(`skipped: ${reason}`)
  t.pass()
}
