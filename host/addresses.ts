/** The number of a dotted IPv4 address (192.0.2.1 is 0xc0000201), as strict as `net.isIPv4`; -1 if it is none. */
export function parseIPv4(text: string): number {
  let address = 0
  let part = 0
  let digits = 0
  let parts = 0
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i)
    if (c === 46) {
      if (digits === 0 || ++parts > 3) return -1
      address = address * 256 + part
      part = digits = 0
    } else {
      // No leading zeros: they read as octal elsewhere.
      if (c < 48 || c > 57 || (digits > 0 && part === 0)) return -1
      part = part * 10 + (c - 48)
      if (part > 255) return -1
      digits++
    }
  }
  return parts === 3 && digits > 0 ? address * 256 + part : -1
}

/** 0xc0000201 is `192.0.2.1`. */
export function formatIPv4(address: number): string {
  return `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`
}
