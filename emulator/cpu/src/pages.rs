//! Memory by pages: which of them differ from a copy.

use std::ops::Range;

/// The unit that is compared.
pub const PAGE_BYTES: usize = 4096;

/// Looks through the `used` ranges of `memory` for pages that differ from `shadow`, which is as long. Their numbers go to
/// `pages`, their contents to `bytes` and to `shadow`, as long as there is room in both. Returns how many.
pub fn copy_dirty(memory: &[u8], used: &[Range<usize>], shadow: &mut [u8], pages: &mut [u32], bytes: &mut [u8]) -> u32 {
    let mut room = pages.iter_mut().zip(bytes.chunks_exact_mut(PAGE_BYTES));
    let mut found = 0;
    for range in used {
        // Ranges of a system with smaller pages are widened to whole ones.
        let (first, end) = (range.start / PAGE_BYTES, range.end.div_ceil(PAGE_BYTES));
        let (start, end) = (first * PAGE_BYTES, (end * PAGE_BYTES).min(memory.len()));
        let (Some(now), Some(then)) = (memory.get(start..end), shadow.get_mut(start..end)) else { continue };
        let both = now.chunks_exact(PAGE_BYTES).zip(then.chunks_exact_mut(PAGE_BYTES));
        for (number, (now, then)) in (first..).zip(both) {
            if now == then {
                continue;
            }
            let Some((page, content)) = room.next() else { return found };
            *page = number as u32;
            content.copy_from_slice(now);
            then.copy_from_slice(now);
            found += 1;
        }
    }
    found
}
