import { createHash, randomBytes } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { packageRoot } from '../toolchain/package-root.ts'
import { startInic } from './support/cli.ts'
import { makeNamespace, type Namespace } from './support/netns.ts'
import { temporaryDirectory } from './support/tiny-firmware.ts'

const BYTES = 3_000_000

/** The kernel's `ping`; its exit code says only whether an answer came. */
async function ping(namespace: Namespace, ...args: string[]): Promise<string> {
  try {
    return (await namespace.run('ping', '-W', '5', ...args)).stdout
  } catch (error) {
    return (error as { stdout: string }).stdout
  }
}

test('Linux outside the farm of FIG. 3: echo, ICMP errors, path MTU discovery, pages by both routers', async (t) => {
  const namespace = await makeNamespace(t, ['ping', 'curl'])
  if ('reason' in namespace) {
    t.log(`skipped: ${namespace.reason}`)
    return t.pass()
  }
  const directory = await temporaryDirectory()
  const file = join(directory, 'farm.json')
  const text = await readFile(join(packageRoot, 'examples/farm.json'), 'utf8')
  const narrow = text
    .replace('"name": "lan-a", ', '"name": "lan-a", "mtu": 1000, ')
    .replaceAll('"shop/server.mjs"', JSON.stringify(join(packageRoot, 'examples/shop/server.mjs')))
    .replace(/"publish": \[.*\]/, '"publish": []')
  await writeFile(file, narrow)
  const farm = startInic(t, ['run', file, '--tap', 'internet=inic0,198.51.100.9/24'], { prefix: namespace.prefix })
  for (const server of ['server1', 'server2', 'server3'])
    await farm.until(new RegExp(`${server}/shop \\| shop: listening`))
  await namespace.run('ip', 'route', 'add', '123.123.123.0/24', 'via', '198.51.100.1')
  await namespace.run('ip', 'route', 'add', '222.222.222.0/24', 'via', '198.51.100.2')

  for (const address of ['198.51.100.1', '123.123.123.254', '222.222.222.254'])
    t.regex(await ping(namespace, '-c', '1', address), /ttl=64/, address)
  for (const address of ['123.123.123.1', '222.222.222.3', '123.123.123.5'])
    t.regex(await ping(namespace, '-c', '1', address), /ttl=63/, address)
  t.regex(await ping(namespace, '-c', '1', '-t', '1', '222.222.222.1'), /From 198\.51\.100\.2 .*Time to live exceeded/)
  t.regex(await ping(namespace, '-c', '1', '123.123.123.77'), /From 198\.51\.100\.1 .*Destination Host Unreachable/)
  const tooBig = await ping(namespace, '-c', '1', '-s', '1400', '-M', 'do', '123.123.123.3')
  t.regex(tooBig, /Frag needed and DF set \(mtu = 1000\)/)
  t.regex(await ping(namespace, '-c', '1', '-s', '1400', '-M', 'dont', '123.123.123.5'), /1408 bytes from/)

  const upload = randomBytes(BYTES)
  const path = join(directory, 'upload')
  await writeFile(path, upload)
  const curl = (...args: string[]) => namespace.run('curl', '-sf', '--max-time', '60', ...args)
  for (const address of ['123.123.123.1', '222.222.222.3']) {
    const { stdout } = await curl('--data-binary', `@${path}`, `http://${address}/upload`)
    t.deepEqual(JSON.parse(stdout), { bytes: BYTES, sha256: createHash('sha256').update(upload).digest('hex') })
    const downloaded = join(directory, 'downloaded')
    await curl('-o', downloaded, `http://${address}/download/${BYTES}`)
    const wanted = await curl(`http://${address}/download/${BYTES}/sha256`)
    t.is(
      createHash('sha256')
        .update(await readFile(downloaded))
        .digest('hex'),
      wanted.stdout.trim(),
    )
  }
})
