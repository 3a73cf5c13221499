import { createHash, randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { packageRoot } from '../toolchain/package-root.ts'
import { startInic } from './support/cli.ts'
import { makeNamespace, type Namespace } from './support/netns.ts'
import { temporaryDirectory } from './support/tiny-firmware.ts'

// TEST-NET-1 (RFC 5737), in a namespace of its own: nothing leaves the machine.
const SERVER = '192.0.2.1'
const KERNEL = '192.0.2.9'
const BYTES = 20_000_000
const WRK_SECONDS = 3

interface TapFarm {
  readonly namespace: Namespace
  readonly directory: string
}

/** The shop on a LAN with a TAP interface whose other end is the kernel's; `link` is the network's, in JSON. */
async function tapFarm(t: ExecutionContext, tools: string[], link = '{}'): Promise<TapFarm | undefined> {
  const namespace = await makeNamespace(t, tools)
  if ('reason' in namespace) {
    t.log(`skipped: ${namespace.reason}`)
    t.pass()
    return undefined
  }
  const directory = await temporaryDirectory()
  const file = join(directory, 'farm.json')
  const program = JSON.stringify(join(packageRoot, 'examples/shop/server.mjs'))
  await writeFile(
    file,
    `{ "networks": [{ "name": "lan-a", "link": ${link} }],
       "servers": [{ "name": "server1", "interfaces": [{ "network": "lan-a", "address": "${SERVER}/24" }],
                     "applications": [{ "name": "shop", "program": ${program}, "env": { "PORT": "80" } }] }] }`,
  )
  const farm = startInic(t, ['run', file, '--tap', `lan-a=inic0,${KERNEL}/24`], { prefix: namespace.prefix })
  await farm.until(/shop: listening/)
  return { namespace, directory }
}

async function downloadAndUpload(t: ExecutionContext, { namespace, directory }: TapFarm): Promise<void> {
  const downloaded = join(directory, 'downloaded')
  await namespace.run('curl', '-sf', '--max-time', '60', '-o', downloaded, `http://${SERVER}/download/${BYTES}`)
  const wanted = await namespace.run('curl', '-sf', `http://${SERVER}/download/${BYTES}/sha256`)
  t.is((await namespace.run('sha256sum', downloaded)).stdout.slice(0, 64), wanted.stdout.trim())

  const upload = randomBytes(BYTES)
  const path = join(directory, 'upload')
  await writeFile(path, upload)
  const answer = await namespace.run(
    'curl',
    '-sf',
    '--max-time',
    '60',
    '--data-binary',
    `@${path}`,
    `http://${SERVER}/upload`,
  )
  t.deepEqual(JSON.parse(answer.stdout), { bytes: BYTES, sha256: createHash('sha256').update(upload).digest('hex') })
}

test.serial("the kernel's ping and curl reach a server by TAP", async (t) => {
  const farm = await tapFarm(t, ['ping', 'curl'])
  if (farm === undefined) return
  const { stdout } = await farm.namespace.run('ping', '-c', '5', '-i', '0.2', '-W', '2', SERVER)
  t.regex(stdout, /5 packets transmitted, 5 received, 0% packet loss/)
  await downloadAndUpload(t, farm)
})

test.serial('downloads and uploads arrive whole over a bad wire', async (t) => {
  const farm = await tapFarm(t, ['curl'], '{ "loss": "2%", "reordering": "2%", "duplication": "1%" }')
  if (farm) await downloadAndUpload(t, farm)
})

test.serial('64 connections of wrk by TAP, without an error', async (t) => {
  const farm = await tapFarm(t, ['wrk'])
  if (farm === undefined) return
  const { stdout } = await farm.namespace.run(
    'wrk',
    '-t2',
    '-c64',
    `-d${WRK_SECONDS}s`,
    `http://${SERVER}/api/products`,
  )
  t.notRegex(stdout, /Socket errors|Non-2xx/, stdout)
  t.true(Number(/(\d+) requests in/.exec(stdout)?.[1]) > 100, stdout)
})

test.serial('the kernel downloads and uploads over a connection that moves round three servers', async (t) => {
  const namespace = await makeNamespace(t, ['curl', 'sha256sum'])
  if ('reason' in namespace) {
    t.log(`skipped: ${namespace.reason}`)
    t.pass()
    return
  }
  const directory = await temporaryDirectory()
  const file = join(packageRoot, 'examples/roaming.json')
  const options = ['--tap', `lan-a=inic0,${KERNEL}/24`, '--publish', '0:server1:80', '--state', directory]
  const farm = startInic(t, ['run', file, ...options], { prefix: namespace.prefix })
  for (const server of ['server1', 'server2', 'server3']) await farm.until(new RegExp(`${server}: listening`))
  const bytes = 200_000_000
  const path = join(directory, 'file')
  await namespace.run('curl', '-sf', '--max-time', '60', '-o', path, `http://${SERVER}/${bytes}/100`)
  const { stdout: wanted } = await namespace.run('curl', '-sf', `http://${SERVER}/${bytes}/sha256`)
  t.is((await namespace.run('sha256sum', path)).stdout.slice(0, 64), wanted.trim())
  const { stdout } = await namespace.run('curl', '-sf', '--max-time', '60', '-T', path, `http://${SERVER}/${bytes}/100`)
  t.is(stdout, `${bytes} bytes, all right\n`)
})
