/** `npm run schema` runs this: it writes farm.schema.json anew. A test asks for it when it is out of date. */
import { join } from 'node:path'
import { replaceFile } from '../files.ts'
import { packageRoot } from '../package-root.ts'
import { farmFileSchema } from './farm-file.ts'

await replaceFile(
  join(packageRoot, 'toolchain/config/farm.schema.json'),
  `${JSON.stringify(farmFileSchema, undefined, 2)}\n`,
)
