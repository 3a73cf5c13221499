/** Names of functions as people write them. */

/** `Class#method` and `Class.method` are the same to whoever asks; accessors are asked for by their name. */
function plain(name: string): string {
  return withoutTypeArguments(name)
    .replaceAll('#', '.')
    .replace(/\.(get|set):/, '.')
}

/** `max<u32>` → `max`. */
export function withoutTypeArguments(path: string): string {
  return path.replace(/<.*>/, '')
}

/** `firmware/tcp/tcb/tcbAt` → `tcbAt`; type arguments may hold slashes of their own. */
export function lastPart(path: string): string {
  const bare = withoutTypeArguments(path)
  return path.slice(bare.lastIndexOf('/') + 1)
}

/** A test of a function's path for a name or glob, as `Program.findFunctions` documents it. */
export function functionMatcher(asked: string): (path: string) => boolean {
  const hasTypes = asked.includes('<')
  const name = hasTypes ? asked : plain(asked)
  if (/[*?]/.test(name)) {
    const pattern = new RegExp(`^${globSource(name)}$`)
    return (path) => pattern.test(name.includes('/') ? plain(path) : plain(lastPart(path)))
  }
  if (hasTypes) return (path) => path === asked || path.endsWith(`/${asked}`)
  return (path) => {
    const bare = plain(path)
    return bare === name || bare.endsWith(`/${name}`)
  }
}

/** `*` and `?` stay within a folder, `**` does not. */
function globSource(glob: string): string {
  return glob.replace(/\*\*|[*?]|[.+^${}()|[\]\\]/g, (token) => {
    if (token === '**') return '.*'
    if (token === '*') return '[^/]*'
    return token === '?' ? '[^/]' : `\\${token}`
  })
}
