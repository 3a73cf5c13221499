import { existsSync, readFileSync } from 'node:fs'
import { createRequire, Module } from 'node:module'
import { join } from 'node:path'
import test from 'ava'
import { EXCEPTION_FILTERS } from '../toolchain/debug/dap/capabilities.ts'
import { packageRoot, packageVersion } from '../toolchain/package-root.ts'

const FOLDER = join(packageRoot, 'toolchain/debug/vscode')
const manifest = JSON.parse(readFileSync(join(FOLDER, 'package.json'), 'utf8'))
const [contributed] = manifest.contributes.debuggers

test('the manifest has what packing asks for, and names files that are there', (t) => {
  for (const key of ['name', 'displayName', 'description', 'version', 'publisher', 'license', 'engines', 'main'])
    t.truthy(manifest[key], key)
  t.regex(manifest.name, /^[a-z0-9-]+$/)
  t.is(manifest.version, packageVersion)
  t.regex(manifest.engines.vscode, /^\^1\.\d+\.0$/)
  for (const file of manifest.files) t.true(existsSync(join(FOLDER, file)), file)
  t.true(manifest.files.includes(manifest.main.replace('./', '')))
  t.true(manifest.files.includes('README.md'))
})

test('one debugger, with breakpoints in the languages of firmware', (t) => {
  t.is(manifest.contributes.debuggers.length, 1)
  t.is(contributed.type, 'inic')
  const languages = manifest.contributes.breakpoints.map(({ language }: { language: string }) => language)
  t.deepEqual(languages, ['typescript', 'assemblyscript'])
  t.deepEqual(contributed.languages, languages)
})

test('configurations and snippets use attributes that are described', (t) => {
  const { configurationAttributes, initialConfigurations, configurationSnippets } = contributed
  const bodies = [...initialConfigurations, ...configurationSnippets.map(({ body }: { body: object }) => body)]
  t.deepEqual([...new Set(bodies.map(({ request }) => request))], ['launch', 'attach'])
  for (const { type, request, name, ...rest } of bodies) {
    t.is(type, 'inic')
    t.truthy(name)
    for (const key of Object.keys(rest)) t.truthy(configurationAttributes[request].properties[key], `${request} ${key}`)
  }
  for (const request of ['launch', 'attach']) {
    for (const [name, property] of Object.entries<{ type: string; description: string }>(
      configurationAttributes[request].properties,
    )) {
      t.regex(property.type, /^(string|boolean|array)$/, name)
      t.regex(property.description, /\.$/, name)
    }
  }
})

test('what the adapter reads is what the manifest describes', (t) => {
  const source = ['toolchain/commands/debug-host.ts', 'toolchain/debug/dap/adapter.ts']
    .map((file) => readFileSync(join(packageRoot, file), 'utf8'))
    .join('')
  for (const name of Object.keys(contributed.configurationAttributes.launch.properties))
    t.regex(source, new RegExp(`'${name}'`), name)
})

test('the extension starts the adapter in the workspace folder', (t) => {
  type Provider = Record<string, (...args: unknown[]) => unknown>
  const registered = new Map<string, Provider>()
  const vscode = {
    debug: {
      registerDebugConfigurationProvider: (type: string, provider: Provider) =>
        registered.set(`${type} configurations`, provider),
      registerDebugAdapterDescriptorFactory: (type: string, factory: Provider) =>
        registered.set(`${type} adapters`, factory),
    },
    DebugAdapterExecutable: class {
      readonly call: unknown[]
      constructor(...call: unknown[]) {
        this.call = call
      }
    },
  }
  const loader = Module as unknown as { _load(request: string, ...rest: unknown[]): unknown }
  const load = loader._load
  loader._load = (request, ...rest) => (request === 'vscode' ? vscode : load(request, ...rest))
  t.teardown(() => {
    loader._load = load
  })
  const extension = createRequire(import.meta.url)(join(FOLDER, manifest.main))
  const context = { subscriptions: [] as unknown[] }
  extension.activate(context)
  t.is(context.subscriptions.length, 2)
  const adapter = registered.get('inic adapters')!.createDebugAdapterDescriptor({
    workspaceFolder: { uri: { fsPath: '/project' } },
  })
  t.deepEqual((adapter as { call: unknown[] }).call, ['npx', ['inic', 'debug', '--dap'], { cwd: '/project' }])
  t.like(registered.get('inic configurations')!.resolveDebugConfiguration(undefined, {}), {
    type: 'inic',
    request: 'launch',
  })
  const given = { type: 'inic', request: 'attach', name: 'x' }
  t.is(registered.get('inic configurations')!.resolveDebugConfiguration(undefined, given), given)
})

test('the README names every filter of the field', (t) => {
  const readme = readFileSync(join(FOLDER, 'README.md'), 'utf8')
  for (const { filter, conditionDescription = '' } of EXCEPTION_FILTERS) {
    if (['frame', 'tcp-state', 'row'].includes(filter)) t.true(readme.includes(conditionDescription), filter)
  }
})
