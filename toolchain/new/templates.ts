/** The firmware projects that `inic new` can make; their files lie in templates/. */

export interface Template {
  /** For the list of templates. */
  readonly summary: string
  /** For the project's README. */
  readonly about: string
  /** A network of its farm.json. */
  readonly network: string
}

export const TEMPLATES = {
  hello: {
    summary: 'greets on the console and blinks in the trace ring',
    about:
      'Firmware for an INIC that greets on its console and leaves a trace entry every second: the least to begin with.',
    network: 'lan',
  },
  echo: {
    summary: 'answers ARP, pings and UDP datagrams, in one file',
    about:
      'Firmware for an INIC that answers ARP requests, pings, and UDP datagrams to port 7. In `farm.json` a server with ipOS sends it datagrams.',
    network: 'lan',
  },
  l2switch: {
    summary: 'a learning switch over the three MAC ports',
    about:
      'Firmware that makes an INIC a learning Ethernet switch over its three MAC ports. In `farm.json` two servers with ipOS talk through it.',
    network: 'lan-a',
  },
  ipos: {
    summary: 'ipOS, with a place for what is yours',
    about:
      'ipOS, the TCP/IP stack that comes with `inic`, with something of your own: it counts received frames by EtherType. Change what stands between the two lines in `firmware/index.ts`.',
    network: 'lan',
  },
} as const satisfies Readonly<Record<string, Template>>

export type TemplateName = keyof typeof TEMPLATES

export const TEMPLATE_NAMES = Object.keys(TEMPLATES) as TemplateName[]
