/** Firmware projects as `inic new` makes them, with this package linked into them in place of an install. */
import { mkdir, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { createProject } from '../../toolchain/new/create-project.ts'
import type { TemplateName } from '../../toolchain/new/templates.ts'
import { packageRoot } from '../../toolchain/package-root.ts'
import { temporaryDirectory } from './tiny-firmware.ts'

/** A project in a temporary folder. */
export async function linkedProject(template: TemplateName): Promise<string> {
  const directory = join(await temporaryDirectory(), template)
  await createProject({ directory, template, dependency: '*' })
  await mkdir(join(directory, 'node_modules'))
  await symlink(packageRoot, join(directory, 'node_modules', 'inic'))
  return directory
}
