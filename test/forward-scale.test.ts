/** Forwarding costs the same however many connections are forwarded: in fuel, which no other work of the machine changes. */
import test from 'ava'
import { measureForwards } from '../bench/forwards.ts'
import { builtFirmware } from './support/farm-kit.ts'

const CONNECTIONS = 100_000

test('the packets of 100,000 forwarded connections cost alike', async (t) => {
  const { byPlace, packets } = await measureForwards({ firmware: builtFirmware, connections: CONNECTIONS, samples: 5 })
  t.deepEqual(
    byPlace.map(({ place }) => place),
    [10, 1000, CONNECTIONS],
  )
  const [tenth, , last] = byPlace.map(({ fuel }) => fuel)
  t.true(last! < 2 * tenth! && tenth! < 2 * last!, `${tenth} and ${last}`)
  for (const { bytes, ...costs } of packets)
    for (const [name, fuel] of Object.entries(costs))
      t.true(fuel > 0 && fuel < 10_000, `${bytes} bytes, ${name}: ${fuel}`)
})
