import { BOOT_SEED } from '../../abi/boot.ts'
import { BOOT_BASE } from '../../abi/memory.ts'
import { hal } from './state.ts'

/** xoshiro256** (Blackman and Vigna), seeded from the boot information: the firmware's only source of randomness. */
export function randomInitialize(): void {
  const st = hal()
  st.random0 = load<u64>(BOOT_BASE + BOOT_SEED) | 1 // the generator must not start from all zeros
  st.random1 = load<u64>(BOOT_BASE + BOOT_SEED + 8)
  st.random2 = load<u64>(BOOT_BASE + BOOT_SEED + 16)
  st.random3 = load<u64>(BOOT_BASE + BOOT_SEED + 24)
  for (let i = 0; i < 16; i++) random64()
  st.hashKey0 = random64()
  st.hashKey1 = random64()
  st.secret0 = random64()
  st.secret1 = random64()
}

export function random64(): u64 {
  const st = hal()
  const result = rotl<u64>(st.random1 * 5, 7) * 9
  const t = st.random1 << 17
  st.random2 ^= st.random0
  st.random3 ^= st.random1
  st.random1 ^= st.random2
  st.random0 ^= st.random3
  st.random2 ^= t
  st.random3 = rotl<u64>(st.random3, 45)
  return result
}

export function random32(): u32 {
  return <u32>(random64() >> 32)
}

/**
 * SipHash-1-3 of two 64-bit words under a 128-bit key: for numbers that a peer must not be able to predict
 * (RFC 6528 §3, RFC 4987 §3.6, RFC 6056 §3.3.3).
 */
export function sipHash(key0: u64, key1: u64, a: u64, b: u64): u64 {
  let v0 = key0 ^ 0x736f6d6570736575
  let v1 = key1 ^ 0x646f72616e646f6d
  let v2 = key0 ^ 0x6c7967656e657261
  let v3 = key1 ^ 0x7465646279746573
  for (let i = 0; i < 6; i++) {
    // Three words (a, b, length), then three rounds to finish.
    const word: u64 = i == 0 ? a : i == 1 ? b : i == 2 ? (<u64>16) << 56 : 0
    if (i == 3) v2 ^= 0xff
    v3 ^= word
    v0 += v1
    v1 = rotl<u64>(v1, 13) ^ v0
    v0 = rotl<u64>(v0, 32)
    v2 += v3
    v3 = rotl<u64>(v3, 16) ^ v2
    v0 += v3
    v3 = rotl<u64>(v3, 21) ^ v0
    v2 += v1
    v1 = rotl<u64>(v1, 17) ^ v2
    v2 = rotl<u64>(v2, 32)
    v0 ^= word
  }
  return v0 ^ v1 ^ v2 ^ v3
}
