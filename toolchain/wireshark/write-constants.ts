/** `npm run wireshark` runs this: it writes the constants of ipos.lua anew. A test asks for it when they are out of date. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { replaceFile } from '../files.ts'
import { packageRoot } from '../package-root.ts'
import { withConstants } from './constants.ts'

const path = join(packageRoot, 'toolchain/wireshark/ipos.lua')
await replaceFile(path, withConstants(await readFile(path, 'utf8')))
