import { existsSync } from 'node:fs'
import test from 'ava'
import { chromium } from 'playwright-core'
import { startInic } from './support/cli.ts'
import { temporaryDirectory } from './support/tiny-firmware.ts'

const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((path) =>
  existsSync(path),
)

test('a browser shops, echoes by WebSocket and uploads', async (t) => {
  if (CHROMIUM === undefined) {
    t.log('skipped: Chromium is not installed')
    return t.pass()
  }
  const farm = startInic(t, ['run', '--publish', '0:server1:80', '--state', await temporaryDirectory()])
  await farm.until(/shop: listening/)
  const [, url] = await farm.until(/(http:\/\/127\.0\.0\.1:\d+) →/)
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] })
  t.teardown(() => browser.close())
  const page = await browser.newPage()
  const failures: string[] = []
  page.on('pageerror', (error) => failures.push(error.message))
  page.on('requestfailed', (request) => failures.push(request.url()))

  await page.goto(url)
  await page.getByText('served by server1 at 123.123.123.1:80').waitFor()
  await page.getByRole('button', { name: 'Add' }).first().click()
  await page.getByText('1 × Network card').waitFor()
  t.is(await page.locator('#total').textContent(), '€ 129')

  await page.getByText('connected').waitFor()
  for (const text of ['hello', 'x'.repeat(10_000)]) {
    await page.getByLabel('Text to send').fill(text)
    await page.getByRole('button', { name: 'Send' }).click()
    await page.getByText(`← ${text}`, { exact: true }).waitFor()
  }

  const buffer = Buffer.alloc(1_000_000, 7)
  await page
    .getByLabel('File to upload')
    .setInputFiles({ name: 'sevens', mimeType: 'application/octet-stream', buffer })
  await page.getByText('1000000 bytes, SHA-256').waitFor()
  t.deepEqual(failures, [])
})
