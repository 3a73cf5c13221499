import { AsyncResource } from 'node:async_hooks'

/** Made when nobody's context runs yet. */
const nobody = new AsyncResource('INIC')

/**
 * An owner that hears everything in an asynchronous context of its own, the one of whoever makes it, as handles of libuv do: what
 * AsyncLocalStorage held when a socket was made is there in its events, and what one socket's handler enters does not leak into
 * the next one's. A socket that a server has accepted is made by nobody: there AsyncLocalStorage is empty, as it is in Node.
 * It costs some closures a socket, so only processes that run unmodified programs ask for it. Its `endpoint` is the owner itself.
 */
export function inContext<T extends object>(
  type: string,
  owner: T,
  methods: readonly (keyof T & string)[],
  accepted = false,
): T {
  const resource = accepted ? nobody.runInAsyncScope(() => new AsyncResource(type)) : new AsyncResource(type)
  const bound: Record<string, unknown> = { endpoint: owner }
  for (const name of methods) {
    const method = owner[name] as (...args: unknown[]) => unknown
    bound[name] = (...args: unknown[]) => resource.runInAsyncScope(method, owner, ...args)
  }
  return bound as T
}
