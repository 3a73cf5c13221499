/**
 * An asc transform that lists the layout of every class of the firmware that was compiled, and its constants. It runs in the compiler's own
 * process and sees its internals; the part of them that is used is written down here, since asc's declarations would put
 * AssemblyScript's global types over ours.
 */
import { type ClassLayout, type FieldLayout, LAYOUTS_FORMAT, type Layouts } from './layouts.ts'

interface AscType {
  readonly byteSize: number
  toString(): string
  getClass(): AscClass | null
}

interface AscMember {
  readonly name: string
  /** Set on property prototypes: the property of this very class. */
  readonly instance?: AscMember | null
  readonly type?: AscType
  /** -1 for properties that take no memory. */
  readonly memoryOffset?: number
}

interface AscClass {
  readonly name: string
  readonly internalName: string
  readonly nextMemoryOffset: number
  readonly members: ReadonlyMap<string, AscMember> | null
}

interface AscElement {
  readonly name: string
  readonly internalName: string
  /** Set on class prototypes once an instance of them was compiled. */
  readonly instances?: ReadonlyMap<string, AscClass> | null
}

/** The part of binaryen.js that reads the compiled module's globals. */
interface Binaryen {
  getGlobalInfo(reference: number): { readonly mutable: boolean; readonly init: number }
  getExpressionInfo(reference: number): { readonly id: number; readonly value?: number | bigint }
  readonly ExpressionIds: { readonly Const: number }
}

interface BinaryenModule {
  getGlobal(name: string): number
}

interface AscProgram {
  readonly elementsByName: ReadonlyMap<string, AscElement>
}

/** Prefix of what belongs to AssemblyScript's standard library. */
const LIBRARY_PREFIX = '~lib/'

/** The file behind a source of asc's library namespace, without its ending; undefined for the standard library. */
export type LibrarySources = (source: string) => string | undefined

/** A transform class for asc's `transforms` option that gives the layouts to `receive` after compilation. */
export function layoutTransform(receive: (layouts: Layouts) => void, sources: LibrarySources): new () => object {
  return class LayoutTransform {
    /** Put on the prototype by asc. */
    declare readonly program: AscProgram

    declare readonly binaryen: Binaryen

    afterCompile(module: BinaryenModule): void {
      const fileOf: LibrarySources = (source) => (source.startsWith(LIBRARY_PREFIX) ? sources(source) : source)
      const own = [...this.program.elementsByName.values()].filter((element) => isOwn(element, fileOf))
      const constants = collectConstants(own, module, this.binaryen)
      receive({ format: LAYOUTS_FORMAT, classes: collectClasses(own, fileOf), constants })
    }
  }
}

/** True for what a file of the project declares, or of a package that it imports; its internal name begins with the file's path. */
function isOwn({ internalName }: AscElement, fileOf: LibrarySources): boolean {
  return internalName.includes('/') && fileOf(internalName.slice(0, internalName.lastIndexOf('/'))) !== undefined
}

function collectClasses(elements: readonly AscElement[], fileOf: LibrarySources): ClassLayout[] {
  const found = new Map<string, ClassLayout>()
  for (const element of elements) {
    // Functions have instances too; those of a class have a size.
    for (const instance of element.instances?.values() ?? []) {
      if (typeof instance.nextMemoryOffset === 'number') found.set(instance.internalName, classLayout(instance, fileOf))
    }
  }
  return [...found.values()].sort((a, b) => compare(a.source, b.source) || compare(a.name, b.name))
}

/** Constants by short name, as far as the firmware uses them; a name that two files give different values is left out. */
function collectConstants(
  elements: readonly AscElement[],
  module: BinaryenModule,
  binaryen: Binaryen,
): Record<string, number> {
  const constants = new Map<string, number | undefined>()
  for (const { name, internalName } of elements) {
    const value = globalConstant(internalName, module, binaryen)
    if (value === undefined) continue
    constants.set(name, constants.has(name) && constants.get(name) !== value ? undefined : value)
  }
  return Object.fromEntries([...constants].filter((entry): entry is [string, number] => entry[1] !== undefined))
}

/** Value of the immutable global `name`, or undefined if there is none or it is no number that is exact in JavaScript. */
function globalConstant(name: string, module: BinaryenModule, binaryen: Binaryen): number | undefined {
  const global = module.getGlobal(name)
  if (global === 0) return undefined
  const { mutable, init } = binaryen.getGlobalInfo(global)
  if (mutable || init === 0) return undefined
  const { id, value } = binaryen.getExpressionInfo(init)
  if (id !== binaryen.ExpressionIds.Const || value === undefined) return undefined
  const number = Number(value)
  return typeof value === 'number' || Number.isSafeInteger(number) ? number : undefined
}

function classLayout(instance: AscClass, fileOf: LibrarySources): ClassLayout {
  const fields: FieldLayout[] = []
  for (const [name, member] of instance.members ?? []) {
    const property = member.instance ?? member
    if (property.type === undefined || property.memoryOffset === undefined || property.memoryOffset < 0) continue
    fields.push({
      name,
      type: property.type.getClass()?.name ?? property.type.toString(),
      offset: property.memoryOffset,
      bytes: property.type.byteSize,
    })
  }
  fields.sort((a, b) => a.offset - b.offset)
  const source = instance.internalName.slice(0, -instance.name.length - 1)
  return { name: instance.name, source: fileOf(source) ?? source, bytes: instance.nextMemoryOffset, fields }
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
