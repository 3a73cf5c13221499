/** Source files, as a client names them and as we do. */
import { basename } from 'node:path'
import type { DebugProtocol } from '@vscode/debugprotocol'
import { type Arguments, RequestError } from './arguments.ts'
import type { DapContext, Handlers } from './context.ts'

/** asc's own library: a client is not to step through it unasked. */
const LIBRARY_PREFIX = '~lib/'

/** What a client opens: a path on this machine, or a reference for the `source` request. */
export function clientSource(context: DapContext, file: string): DebugProtocol.Source {
  const path = context.files.path(file)
  const library = file.startsWith(LIBRARY_PREFIX)
  return {
    name: basename(file),
    ...(path === undefined || library ? { path: file, sourceReference: referenceOf(context, file) } : { path }),
    ...(library && { origin: "AssemblyScript's library", presentationHint: 'deemphasize' as const }),
  }
}

/** The file that a client means, as the engine takes it. @throws RequestError */
export function sourceName(context: DapContext, source: Arguments): string {
  const reference = source.integerOr('sourceReference', 0, 0, 2 ** 31)
  if (reference > 0) return fileOf(context, reference)
  const path = source.optionalText('path') ?? source.optionalText('name')
  if (path === undefined) throw new RequestError('a source needs a path')
  return path
}

/** Sources are numbered from 1 as they are first shown. */
function referenceOf({ sourceNumbers }: DapContext, file: string): number {
  const index = sourceNumbers.indexOf(file)
  return index < 0 ? sourceNumbers.push(file) : index + 1
}

function fileOf({ sourceNumbers }: DapContext, reference: number): string {
  const file = sourceNumbers[reference - 1]
  if (file === undefined) throw new RequestError(`there is no source ${reference}`)
  return file
}

export function sourceHandlers(context: DapContext): Handlers {
  return {
    source(args) {
      const given = args.has('source') ? args.object('source') : args
      const lines = context.files.lines(sourceName(context, given))
      if (lines === undefined) throw new RequestError('this source is not on this machine')
      return { content: lines.join('\n'), mimeType: 'text/typescript' }
    },
    loadedSources() {
      return { sources: context.session.sources.map((file) => clientSource(context, file)) }
    },
    modules(args) {
      const start = args.integerOr('startModule', 0)
      const count = args.integerOr('moduleCount', 0) || Number.POSITIVE_INFINITY
      const all = context.session.modules
      return {
        modules: all.slice(start, start + count).map((module) => clientModule(context, module.id)),
        totalModules: all.length,
      }
    },
  }
}

export function clientModule(context: DapContext, id: number): DebugProtocol.Module {
  const module = context.session.modules.find((item) => item.id === id)!
  const names = module.threads.map((thread) => context.session.threads.find((item) => item.id === thread)?.name)
  return {
    id,
    name: `firmware of ${names.join(', ')}`,
    version: module.description,
    isUserCode: true,
    symbolStatus: module.hasSource ? 'source map' : 'no source map',
    addressRange: `${module.wasm.length} bytes`,
  }
}
