import { join, relative, resolve } from 'node:path'
import { type Command, Option } from 'commander'
import { createProject } from '../new/create-project.ts'
import { dependencyOn } from '../new/dependency.ts'
import { TEMPLATE_NAMES, TEMPLATES, type TemplateName } from '../new/templates.ts'
import { formatTable, note, print, printJson } from '../terminal.ts'

interface NewCommandOptions {
  readonly template: TemplateName
  readonly json?: boolean
}

export function addNewCommand(program: Command): void {
  const templates = formatTable(
    ['template', 'is'],
    TEMPLATE_NAMES.map((name) => [name, TEMPLATES[name].summary]),
  )
  program
    .command('new')
    .summary('make a firmware project')
    .description('Makes a folder with a firmware project: it builds, tests, flashes, runs and debugs as it is.')
    .argument('<name>', 'folder to make; its last part names the project')
    .addOption(new Option('-t, --template <name>', 'what to begin with').choices(TEMPLATE_NAMES).default('hello'))
    .option('--json', 'describe what was made as JSON')
    .addHelpText(
      'after',
      `
${templates.map((line) => `  ${line}`).join('\n')}

Examples:
  inic new my-nic
  inic new my-switch --template l2switch
  cd my-switch && npm install && npm test && npx inic flash && npx inic run`,
    )
    .action(async (name: string, { template, json }: NewCommandOptions) => {
      const directory = resolve(name)
      const dependency = dependencyOn(directory)
      const files = await createProject({ directory, template, dependency })
      if (json) return printJson({ directory, template, dependency, files })
      const shown = relative(process.cwd(), directory)
      for (const file of files) note(`  ${join(shown, file)}`)
      print(`${shown}: a firmware project, ${TEMPLATES[template].summary}`)
      note(`next: cd ${shown} && npm install && npm test`)
    })
}
