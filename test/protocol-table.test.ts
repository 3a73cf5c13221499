/** docs/protocol.md says of each rule where it is tested: that is there. */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { packageRoot } from '../toolchain/package-root.ts'

test('the tests that docs/protocol.md names are there', (t) => {
  const text = readFileSync(join(packageRoot, 'docs/protocol.md'), 'utf8')
  const rows = [
    ...text.slice(text.indexOf('## Where each rule is tested')).matchAll(/^\|[^|]*\| `([\w-]+)` \| (.+) \|$/gm),
  ]
  t.true(rows.length > 40)
  for (const [, file, name] of rows) {
    const source = readFileSync(join(packageRoot, `test/${file}.test.ts`), 'utf8')
    const title = name!.replaceAll("'", "\\'")
    t.true(
      source.includes(`'${title}`) || source.includes(`\`${title}`) || source.includes(`"${name}`),
      `${file}: ${name}`,
    )
  }
})
