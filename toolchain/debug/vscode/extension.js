/** Starts the debug adapter of the project's own `inic`. Everything else is in package.json. */
const vscode = require('vscode')

const TYPE = 'inic'

/** F5 without a launch.json: one server with the example shop. */
const configurations = {
  resolveDebugConfiguration(_folder, configuration) {
    if (configuration.type || configuration.request || configuration.name) return configuration
    return { type: TYPE, request: 'launch', name: 'Launch a farm', stopOnEntry: true }
  },
}

const adapters = {
  createDebugAdapterDescriptor(session) {
    const cwd = session.workspaceFolder?.uri.fsPath
    return new vscode.DebugAdapterExecutable('npx', ['inic', 'debug', '--dap'], cwd === undefined ? {} : { cwd })
  },
}

function activate(context) {
  context.subscriptions.push(
    vscode.debug.registerDebugConfigurationProvider(TYPE, configurations),
    vscode.debug.registerDebugAdapterDescriptorFactory(TYPE, adapters),
  )
}

function deactivate() {}

module.exports = { activate, deactivate }
