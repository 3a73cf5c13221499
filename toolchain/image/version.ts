import { ImageError } from './image-error.ts'

/** Version of an image, as the four fields of its header hold it (u8, u8, u16, u32). */
export interface ImageVersion {
  readonly major: number
  readonly minor: number
  readonly revision: number
  readonly build: number
}

/**
 * Parses `1.2.3` or `1.2.3+4`, the form that imgtool's `--version` takes.
 *
 * @throws ImageError VERSION, naming the field that does not fit.
 */
export function parseVersion(text: string): ImageVersion {
  const match = /^(\d+)\.(\d+)\.(\d+)(?:\+(\d+))?$/.exec(text)
  if (!match)
    throw new ImageError(
      'VERSION',
      `'${text}' is not a version; write MAJOR.MINOR.REVISION or MAJOR.MINOR.REVISION+BUILD, as in 1.2.3`,
    )
  const version = {
    major: Number(match[1]),
    minor: Number(match[2]),
    revision: Number(match[3]),
    build: Number(match[4] ?? 0),
  }
  const limits = { major: 0xff, minor: 0xff, revision: 0xffff, build: 0xffffffff }
  for (const field of ['major', 'minor', 'revision', 'build'] as const) {
    if (version[field] > limits[field]) {
      throw new ImageError(
        'VERSION',
        `version '${text}': ${field} is ${version[field]}, and the image header holds at most ${limits[field]}`,
      )
    }
  }
  return version
}

export function formatVersion(version: ImageVersion): string {
  const { major, minor, revision, build } = version
  return `${major}.${minor}.${revision}${build === 0 ? '' : `+${build}`}`
}
