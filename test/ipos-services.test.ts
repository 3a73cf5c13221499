/** What a card tells the farm of what its main board serves, and what it knows of the others' services. */
import test from 'ava'
import {
  IPOS_TCP,
  IPOS_UDP,
  SERVICE_FLAG_TAKES_OVER,
  STATE_FLAG_DRAINING,
  STATE_MAXIMUM_SERVICES,
} from '../abi/ipos.ts'
import * as M from '../abi/messages.ts'
import { command } from './support/bare-card.ts'
import { FarmCard, INTERVAL_MS, type Peer, stateMessages } from './support/farm-card.ts'
import { control, HTTP, listen, news, ports, unlisten } from './support/state-messages.ts'

test('ports are told when they come and when they go', async (t) => {
  const card = await FarmCard.settled()
  card.advance(100)
  listen(card, { cookie: 1, port: 80 })
  const [told] = stateMessages(card.run())
  t.deepEqual(told?.message.services, [{ port: 80, protocol: IPOS_TCP, flags: 0 }], 'at once')
  listen(card, { cookie: 2, port: 443, speaker: M.FIRST_SPEAKER_CLIENT })
  listen(card, { cookie: 3, port: 25, speaker: M.FIRST_SPEAKER_SERVER })
  t.deepEqual(stateMessages(card.run()), [], 'news keeps its distance')
  t.deepEqual(ports(news(t, card), IPOS_TCP), [80, 443, 25])
  unlisten(card, 2)
  t.deepEqual(ports(news(t, card), IPOS_TCP), [80, 25])
  control(card, { op: M.OP_LISTENER_OPTIONS, socket: 1, a: M.SOCKET_OPTION_TAKES_OVER })
  t.deepEqual(news(t, card).services, [
    { port: 80, protocol: IPOS_TCP, flags: SERVICE_FLAG_TAKES_OVER },
    { port: 25, protocol: IPOS_TCP, flags: M.FIRST_SPEAKER_SERVER },
  ])
  control(card, { op: M.OP_LISTENER_OPTIONS, socket: 1, a: 0 })
  t.is(news(t, card).services[0]?.flags, 0)
  t.is(card.counter('commandsBad'), 0)
  control(card, { op: M.OP_LISTENER_OPTIONS, socket: 2, a: M.SOCKET_OPTION_TAKES_OVER })
  card.run()
  t.is(card.counter('commandsBad'), 1, 'nobody listens by that name')
})

test('UDP ports that a process has chosen are told, those of clients not', async (t) => {
  const card = await FarmCard.settled()
  for (const [socket, port] of [53, 0, 5353].entries()) control(card, { op: M.OP_UDP_BIND, socket, b: port })
  const told = news(t, card)
  t.deepEqual(ports(told, IPOS_UDP), [53, 5353])
  const bound = card.records().find(({ kind, type }) => kind === 'event' && type === M.EVENT_UDP_BOUND)
  card.command(1, command({ op: M.OP_UDP_CLOSE, socket: bound!.socket }))
  t.deepEqual(ports(news(t, card), IPOS_UDP), [5353])
})

test('one port on several addresses is one service; on 127.0.0.1 alone it is none', async (t) => {
  const card = await FarmCard.settled()
  listen(card, { cookie: 1, port: 80, address: 0xc0000201 })
  listen(card, { cookie: 2, port: 80, address: 0xc6336401, options: M.SOCKET_OPTION_TAKES_OVER })
  listen(card, { cookie: 3, port: 80, address: 0x7f000001 })
  listen(card, { cookie: 4, port: 6379, address: 0x7f000001 })
  const shared = { op: M.OP_UDP_BIND, b: 5000 | (M.UDP_FLAG_REUSE << 16) }
  control(card, { ...shared, socket: 5 })
  control(card, { ...shared, socket: 6 })
  control(card, { op: M.OP_UDP_BIND, socket: 7, a: 0x7f000001, b: 53 })
  const { services } = news(t, card)
  t.deepEqual(services, [
    { port: 80, protocol: IPOS_TCP, flags: SERVICE_FLAG_TAKES_OVER },
    { port: 5000, protocol: IPOS_UDP, flags: 0 },
  ])
  unlisten(card, 2)
  t.deepEqual(ports(news(t, card), IPOS_TCP), [80])
  unlisten(card, 1)
  t.deepEqual(ports(news(t, card), IPOS_TCP), [])
})

test('the ports of a process that ends go with it', async (t) => {
  const card = await FarmCard.settled({ sets: [0, 1] })
  listen(card, { cookie: 1, port: 80 })
  listen(card, { cookie: 1, port: 81, set: 1 })
  control(card, { op: M.OP_UDP_BIND, socket: 1, b: 53 }, 1)
  t.deepEqual(ports(news(t, card), IPOS_TCP), [80, 81])
  card.disableSet(1)
  const { services } = news(t, card)
  t.deepEqual(services, [{ port: 80, protocol: IPOS_TCP, flags: 0 }])
})

test('a server tells of as many ports as a message holds', async (t) => {
  const card = await FarmCard.settled()
  for (let n = 0; n < STATE_MAXIMUM_SERVICES + 10; n++) listen(card, { cookie: n + 1, port: 1000 + n })
  const told = stateMessages(card.advance(INTERVAL_MS)).at(-1)!.message
  t.is(told.services.length, STATE_MAXIMUM_SERVICES)
  t.is(card.call('missing', 0), 10)
  for (let n = 0; n < 10; n++) unlisten(card, n + 1)
  const after = stateMessages(card.advance(INTERVAL_MS)).at(-1)!.message
  t.is(after.services.length, STATE_MAXIMUM_SERVICES)
  t.is(card.call('missing', 0), 0)
})

test('what peers serve is known by its flags, and changes with their messages', async (t) => {
  const card = await FarmCard.settled()
  const [one, two] = card.hub as [Peer, Peer]
  one.say({ services: [{ ...HTTP, flags: SERVICE_FLAG_TAKES_OVER | M.FIRST_SPEAKER_SERVER }] })
  two.say({ services: [HTTP, { port: 53, protocol: IPOS_UDP, flags: 0 }] })
  const service = (row: number, port: number, protocol: number) => card.call('service', row, port, protocol)
  t.is(service(1, 80, IPOS_TCP), 3)
  t.is(service(2, 80, IPOS_TCP), 1)
  t.is(service(2, 53, IPOS_UDP), 1)
  t.is(service(2, 53, IPOS_TCP), 0)
  t.is(service(1, 53, IPOS_UDP), 0)
  t.is(card.call('elsewhere', 80, IPOS_TCP), SERVICE_FLAG_TAKES_OVER | M.FIRST_SPEAKER_SERVER)
  t.is(card.call('elsewhere', 53, IPOS_UDP), 0)
  t.is(card.call('elsewhere', 53, IPOS_TCP), -1)
  one.say({ services: [{ port: 22, protocol: IPOS_TCP, flags: 3 }] })
  t.is(service(1, 80, IPOS_TCP), 0)
  t.is(card.call('elsewhere', 80, IPOS_TCP), M.FIRST_SPEAKER_CLIENT, "the other one's")
  t.is(card.call('elsewhere', 22, IPOS_TCP), M.FIRST_SPEAKER_AUTO, 'a first speaker that there is not')
  two.say({ flags: STATE_FLAG_DRAINING, services: [HTTP] })
  t.is(card.call('elsewhere', 80, IPOS_TCP), -1, 'draining')
  t.is(service(2, 80, IPOS_TCP), 1)
  two.say({ services: [HTTP, HTTP, HTTP] })
  two.say({ services: [] })
  t.is(service(2, 80, IPOS_TCP), 0, 'told three times, taken back once')
})

test('a full table leaves ports out, and takes them up when there is room', async (t) => {
  const card = await FarmCard.settled({ count: 5 })
  const list = (from: number) => Array.from({ length: STATE_MAXIMUM_SERVICES }, (_, n) => ({ ...HTTP, port: from + n }))
  for (const peer of card.hub) peer.say({ services: list(peer.row * 1000) })
  t.deepEqual(
    card.hub.map(({ row }) => card.call('missing', row)),
    [0, 0, 0, 0, STATE_MAXIMUM_SERVICES],
  )
  t.is(card.call('elsewhere', 5000, IPOS_TCP), -1)
  card.peer(1).say({ services: [] })
  card.peer(5).say({ services: list(5000) })
  t.is(card.call('missing', 5), 0)
  t.is(card.call('service', 5, 5255, IPOS_TCP), 1)
})
