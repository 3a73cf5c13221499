import type { HostClock } from '../../abi/bus.ts'

/**
 * The wall clock as a HostClock, for processes that live in a worker and so in real time. Its timers do not keep a thread alive: Node's
 * sockets' timeouts do not either.
 */
export function wallClock(): HostClock {
  const start = process.hrtime.bigint()
  const timers = new Map<number, NodeJS.Timeout>()
  let last = 0
  return {
    now: () => Number(process.hrtime.bigint() - start),
    schedule(delayNs, callback) {
      const handle = ++last
      const fire = () => {
        timers.delete(handle)
        callback()
      }
      timers.set(handle, setTimeout(fire, Math.ceil(delayNs / 1e6)).unref())
      return handle
    },
    clear(handle) {
      clearTimeout(timers.get(handle))
      timers.delete(handle)
    },
  }
}
