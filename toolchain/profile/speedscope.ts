/** Profiles in speedscope's file format: https://www.speedscope.app/file-format-schema.json */
import { packageVersion } from '../package-root.ts'
import type { SourceProfile } from './source-profile.ts'

interface SpeedscopeFrame {
  readonly name: string
  readonly file?: string
  readonly line?: number
  readonly col?: number
}

interface SampledProfile {
  readonly type: 'sampled'
  readonly name: string
  readonly unit: 'none'
  readonly startValue: number
  readonly endValue: number
  /** Frames of each sample, outermost first. */
  readonly samples: readonly (readonly number[])[]
  /** Instructions. */
  readonly weights: readonly number[]
}

export interface SpeedscopeFile {
  readonly $schema: 'https://www.speedscope.app/file-format-schema.json'
  readonly name: string
  readonly exporter: string
  readonly activeProfileIndex: number
  readonly shared: { readonly frames: readonly SpeedscopeFrame[] }
  readonly profiles: readonly SampledProfile[]
}

/** A profile for each board. Samples stand in their order; where all instructions were looked at, each stack stands once. */
export function speedscopeFile(name: string, profiles: readonly SourceProfile[]): SpeedscopeFile {
  const frames: SpeedscopeFrame[] = []
  const indices = new Map<string, number>()
  const converted = profiles.map((profile): SampledProfile => {
    const numbers = profile.functions.map(({ name, file, line, column }) => {
      const key = `${name}\0${file}\0${line}\0${column}`
      let index = indices.get(key)
      if (index === undefined) {
        index = frames.length
        indices.set(key, index)
        frames.push({
          name,
          ...(file !== undefined && { file }),
          ...(line !== undefined && { line }),
          ...(column !== undefined && { col: column }),
        })
      }
      return index
    })
    const stacks = profile.stacks.map((stack) => stack.frames.map((frame) => numbers[frame]!))
    const sampled = profile.order.length > 0
    const samples = sampled ? profile.order.map((stack) => stacks[stack]!) : stacks
    const weights = sampled ? profile.order.map(() => profile.period) : profile.stacks.map(({ weight }) => weight)
    const endValue = weights.reduce((sum, weight) => sum + weight, 0)
    return { type: 'sampled', name: profile.name, unit: 'none', startValue: 0, endValue, samples, weights }
  })
  return {
    $schema: 'https://www.speedscope.app/file-format-schema.json',
    name,
    exporter: `inic@${packageVersion}`,
    activeProfileIndex: 0,
    shared: { frames },
    profiles: converted,
  }
}
