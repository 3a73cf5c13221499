/**
 * Profiles as Chrome's developer tools and VS Code read them (.cpuprofile): the Profile object of the DevTools protocol,
 * https://chromedevtools.github.io/devtools-protocol/v8/Profiler/#type-Profile. Its microseconds are instructions here.
 */
import type { ProfileFunction, SourceProfile } from './source-profile.ts'

interface CpuProfileNode {
  readonly id: number
  readonly callFrame: {
    readonly functionName: string
    readonly scriptId: string
    readonly url: string
    /** From 0; -1 if unknown. */
    readonly lineNumber: number
    readonly columnNumber: number
  }
  /** Samples that end here. */
  hitCount: number
  readonly children: number[]
  /** By line, from 1. */
  readonly positionTicks: { readonly line: number; ticks: number }[]
}

export interface CpuProfile {
  readonly nodes: readonly CpuProfileNode[]
  readonly startTime: number
  readonly endTime: number
  readonly samples: readonly number[]
  readonly timeDeltas: readonly number[]
}

/** One profile; of several boards each is a call of the root, by its name. */
export function cpuProfile(profiles: readonly SourceProfile[]): CpuProfile {
  const scripts = new Map<string, string>()
  const nodes: CpuProfileNode[] = []
  const children: Map<string, CpuProfileNode>[] = []
  const add = ({ name, file = '', line = 0, column = 0 }: ProfileFunction): CpuProfileNode => {
    if (!scripts.has(file)) scripts.set(file, String(scripts.size))
    const node: CpuProfileNode = {
      id: nodes.length + 1,
      callFrame: {
        ...{ functionName: name, scriptId: scripts.get(file)!, url: file },
        ...{ lineNumber: line - 1, columnNumber: column - 1 },
      },
      ...{ hitCount: 0, children: [], positionTicks: [] },
    }
    nodes.push(node)
    children.push(new Map())
    return node
  }
  const child = (parent: CpuProfileNode, one: ProfileFunction): CpuProfileNode => {
    const known = children[parent.id - 1]!
    const key = `${one.name}\0${one.file}\0${one.line}\0${one.column}`
    let node = known.get(key)
    if (node === undefined) {
      node = add(one)
      known.set(key, node)
      parent.children.push(node.id)
    }
    return node
  }
  const root = add(titled('(root)'))
  const samples: number[] = []
  const timeDeltas: number[] = []
  let time = 0
  for (const profile of profiles) {
    const base = profiles.length === 1 ? root : child(root, titled(profile.name))
    const ends = profile.stacks.map(({ frames }) =>
      frames.reduce((node, frame) => child(node, profile.functions[frame]!), base),
    )
    const sampled = profile.order.length > 0
    for (const stack of sampled ? profile.order : profile.stacks.keys()) {
      const node = ends[stack]!
      const { line, weight } = profile.stacks[stack]!
      node.hitCount++
      const tick = node.positionTicks.find((one) => one.line === line)
      if (tick !== undefined) tick.ticks++
      else if (line > 0) node.positionTicks.push({ line, ticks: 1 })
      // A sample's time is that from it to the next: the delta before the next one.
      samples.push(node.id)
      timeDeltas.push(time)
      time = sampled ? profile.period : weight
    }
  }
  const endTime = timeDeltas.reduce((sum, delta) => sum + delta, 0) + time
  return { nodes, startTime: 0, endTime, samples, timeDeltas }
}

function titled(name: string): ProfileFunction {
  return { name, file: undefined, line: undefined, column: undefined }
}
