//! INIC memory: one set of pages, mapped twice.
//!
//! ```text
//!   wasm view   │ bus space, guarded │ memory … │ unmapped up to 4 GiB + guard │   owned by the Store
//!                         │                │
//!   pages                 └── shared ──────┘                                      freed with the last view
//!                         │                │
//!   host view   │ all of it, read and write│                                      owned by the ArrayBuffer
//! ```
//!
//! A debugged twin has a wasm view of its own of the same pages.
//!
//! The firmware runs on the first view, where pages can be taken away so that touching them traps. JavaScript works on
//! the second: a device that is handed a bad address by the firmware writes to a page nobody reads, where on a single
//! mapping it would kill the process; and as each view has its own owner, neither can outlive its memory.

use std::cell::RefCell;
use std::ffi::c_void;
use std::ops::Range;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use rustix::fd::OwnedFd;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use wasmtime::{Instance, LinearMemory, Memory, MemoryCreator, MemoryType, Store};

use crate::error::{Code, Result};

thread_local! {
    /// What the creator made for the instantiation that runs on this thread: Wasmtime has no way to return it.
    static LAST_MADE: RefCell<Option<Arc<HostView>>> = const { RefCell::new(None) };
}

/// Bytes of a WebAssembly page.
pub const WASM_PAGE_BYTES: u64 = 64 << 10;

/// A module that does nothing but export a memory of `pages` × 64 KiB, of a size that never changes.
///
/// Wasmtime asks a [`MemoryCreator`] for the memories of modules only, not for those that the host makes.
pub fn memory_module(pages: u32) -> Vec<u8> {
    let mut limits = vec![0x01, 0x01]; // one memory, with a maximum
    for _ in 0..2 {
        leb128(pages, &mut limits);
    }
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    module.extend([0x05, limits.len() as u8]); // memory section
    module.extend(limits);
    module.extend([0x07, 0x0a, 0x01, 0x06]); // export section: one name of six bytes
    module.extend(b"memory\x02\x00"); // memory 0
    module
}

fn leb128(mut number: u32, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Makes INIC memory by instantiating [`memory_module`]; returns it and the view for JavaScript.
pub fn create<E: std::fmt::Display>(
    store: &mut Store<()>,
    instantiate: impl FnOnce(&mut Store<()>) -> std::result::Result<Instance, E>,
) -> Result<(Memory, Arc<HostView>)> {
    LAST_MADE.take();
    let instance =
        instantiate(store).map_err(|cause| Code::Memory.error(format!("no INIC memory of that size: {cause:#}")))?;
    let memory = instance.get_memory(store, "memory");
    memory.zip(LAST_MADE.take()).ok_or_else(|| Code::Internal.error("Wasmtime made its own memory"))
}

/// Takes pages away from the firmware's view of INIC memory.
///
/// On a machine whose pages are larger than 4096 bytes only those pages are taken that lie within a range as a whole.
///
/// # Safety
/// `base` is the start of a wasm view that is alive and at least as long as the ranges reach.
pub unsafe fn protect(base: usize, ranges: &[Range<usize>]) -> rustix::io::Result<()> {
    for range in ranges {
        // SAFETY: as promised by the caller.
        unsafe { set_access(base, range, MprotectFlags::empty()) }?;
    }
    Ok(())
}

/// Gives the pages of a range back. Async-signal-safe.
///
/// # Safety
/// As for [`protect`].
pub unsafe fn unprotect(base: usize, range: &Range<usize>) -> rustix::io::Result<()> {
    // SAFETY: as promised by the caller.
    unsafe { set_access(base, range, MprotectFlags::READ | MprotectFlags::WRITE) }
}

unsafe fn set_access(base: usize, addresses: &Range<usize>, access: MprotectFlags) -> rustix::io::Result<()> {
    let page = rustix::param::page_size();
    let start = addresses.start.next_multiple_of(page);
    let end = addresses.end / page * page;
    if start >= end {
        return Ok(());
    }
    let pointer = std::ptr::with_exposed_provenance_mut::<c_void>(base + start);
    // SAFETY: the caller promises that these addresses belong to a live mapping of ours.
    unsafe { rustix::mm::mprotect(pointer, end - start, access) }
}

/// The page of a wasm view in which some address lies, of whatever size pages are here.
#[derive(Clone, Copy)]
pub struct Page(usize);

impl Page {
    /// The page of INIC address `address` in the view that starts at `base`.
    pub fn of(base: usize, address: usize) -> Self {
        Self(base + address / rustix::param::page_size() * rustix::param::page_size())
    }

    /// An address of this process lies in it.
    #[cfg(target_os = "linux")]
    pub fn holds(&self, address: usize) -> bool {
        (self.0..self.0 + rustix::param::page_size()).contains(&address)
    }

    /// Takes it away from the firmware.
    ///
    /// # Safety
    /// The view is alive.
    pub unsafe fn take(&self) -> rustix::io::Result<()> {
        // SAFETY: as promised by the caller.
        unsafe { self.set_access(MprotectFlags::empty()) }
    }

    /// Gives it back. Async-signal-safe.
    ///
    /// # Safety
    /// As for [`Page::take`].
    pub unsafe fn give(&self) -> rustix::io::Result<()> {
        // SAFETY: as promised by the caller.
        unsafe { self.set_access(MprotectFlags::READ | MprotectFlags::WRITE) }
    }

    unsafe fn set_access(&self, access: MprotectFlags) -> rustix::io::Result<()> {
        let start = std::ptr::with_exposed_provenance_mut::<c_void>(self.0);
        // SAFETY: the caller promises that these addresses belong to a live mapping of ours.
        unsafe { rustix::mm::mprotect(start, rustix::param::page_size(), access) }
    }
}

/// A range of address space that unmaps itself.
struct Mapping {
    start: NonNull<c_void>,
    bytes: usize,
}

// SAFETY: address space is not bound to a thread; what is read and written there is the users' affair.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps all of `file`, anywhere.
    fn of(file: &OwnedFd, bytes: usize) -> rustix::io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the address.
        let start = unsafe { rustix::mm::mmap(null_mut(), bytes, access, MapFlags::SHARED, file, 0) }?;
        Self::at(start, bytes)
    }

    /// Takes `bytes` of address space with nothing there, and maps all of `file` at its start.
    fn reserve(bytes: usize, file: &OwnedFd, file_bytes: usize) -> rustix::io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses the address.
        let start = unsafe { rustix::mm::mmap_anonymous(null_mut(), bytes, ProtFlags::empty(), flags) }?;
        let mapping = Self::at(start, bytes)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: replaces the start of the reservation made above, which nobody else knows yet.
        unsafe { rustix::mm::mmap(start, file_bytes, access, MapFlags::SHARED | MapFlags::FIXED, file, 0) }?;
        Ok(mapping)
    }

    fn at(start: *mut c_void, bytes: usize) -> rustix::io::Result<Self> {
        let start = NonNull::new(start).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(Self { start, bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `of` or `reserve` with this length, and the owner is going.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr(), self.bytes) };
        debug_assert!(unmapped.is_ok());
    }
}

/// INIC memory as JavaScript sees it.
pub struct HostView {
    mapping: Mapping,
    file: OwnedFd,
}

impl HostView {
    /// First byte.
    pub fn start(&self) -> *mut u8 {
        self.mapping.start.as_ptr().cast()
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.mapping.bytes
    }

    /// The bytes as they are now.
    ///
    /// # Safety
    /// Nobody writes to them while the slice is there: neither the firmware nor JavaScript runs.
    pub unsafe fn contents(&self) -> &[u8] {
        // SAFETY: the mapping is as long as it says and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start(), self.bytes()) }
    }

    /// Puts these pages in the place of those that a wasm view of the same size, which starts at `base`, has.
    ///
    /// # Safety
    /// The view is alive and not in use.
    pub unsafe fn map_at(&self, base: usize) -> rustix::io::Result<()> {
        let start = std::ptr::with_exposed_provenance_mut::<c_void>(base);
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: the caller promises that these addresses belong to a live mapping of ours.
        unsafe { rustix::mm::mmap(start, self.bytes(), access, flags, &self.file, 0) }?;
        Ok(())
    }

    /// What of it was ever used, in order: everything else reads as zero, and reading it would make pages of it.
    pub fn used(&self) -> Vec<Range<usize>> {
        #[cfg(any(target_os = "linux", target_os = "macos"))]
        {
            use rustix::fs::{SeekFrom, seek};
            use rustix::io::Errno;
            let bytes = self.bytes();
            let mut used = Vec::new();
            let mut at = 0_u64;
            loop {
                let start = match seek(&self.file, SeekFrom::Data(at)) {
                    Ok(start) if (start as usize) < bytes => start,
                    Ok(_) | Err(Errno::NXIO) => return used,
                    Err(_) => break,
                };
                let Ok(end) = seek(&self.file, SeekFrom::Hole(start)) else { break };
                if end <= start {
                    break;
                }
                used.push(start as usize..(end as usize).min(bytes));
                at = end;
            }
        }
        // A system that cannot tell.
        Vec::from([Range { start: 0, end: self.bytes() }])
    }
}

/// INIC memory as the firmware sees it.
struct WasmView {
    mapping: Mapping,
    bytes: usize,
}

// SAFETY: the mapping is page aligned, `bytes` long, never moves, and is followed by the guard that Wasmtime asked for.
unsafe impl LinearMemory for WasmView {
    fn byte_size(&self) -> usize {
        self.bytes
    }

    fn byte_capacity(&self) -> usize {
        self.bytes
    }

    fn grow_to(&mut self, new_size: usize) -> wasmtime::Result<()> {
        if new_size == self.bytes {
            return Ok(());
        }
        Err(wasmtime::Error::msg("INIC memory does not grow"))
    }

    fn as_ptr(&self) -> *mut u8 {
        self.mapping.start.as_ptr().cast()
    }
}

/// Makes a [`WasmView`] for Wasmtime and leaves the [`HostView`] of the same pages for [`create`].
pub struct InicMemoryCreator;

// SAFETY: the memory is zeroed (a fresh file is), guarded as asked, and only ever changed by its two owners on one thread.
unsafe impl MemoryCreator for InicMemoryCreator {
    fn new_memory(
        &self,
        _: MemoryType,
        minimum: usize,
        _: Option<usize>,
        reserved_bytes: Option<usize>,
        guard_bytes: usize,
    ) -> std::result::Result<Box<dyn LinearMemory>, String> {
        let make = || -> rustix::io::Result<_> {
            let file = anonymous_file(minimum)?;
            let reserved = reserved_bytes.unwrap_or(minimum).max(minimum);
            let wasm = WasmView { mapping: Mapping::reserve(reserved + guard_bytes, &file, minimum)?, bytes: minimum };
            Ok((HostView { mapping: Mapping::of(&file, minimum)?, file }, wasm))
        };
        let (host, wasm) = make().map_err(|cause| cause.to_string())?;
        LAST_MADE.set(Some(Arc::new(host)));
        Ok(Box::new(wasm))
    }
}

/// Pages that can be mapped more than once and go when the last mapping does.
#[cfg(target_os = "linux")]
fn anonymous_file(bytes: usize) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    let file = memfd_create("inic-memory", MemfdFlags::CLOEXEC)?;
    ftruncate(&file, bytes as u64)?;
    Ok(file)
}

/// Pages that can be mapped more than once and go when the last mapping does.
#[cfg(not(target_os = "linux"))]
fn anonymous_file(bytes: usize) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::{Mode, ftruncate};
    use rustix::shm::{OFlags, open, unlink};
    use std::sync::atomic::{AtomicU32, Ordering};
    static MADE: AtomicU32 = AtomicU32::new(0);
    let name = format!("/inic-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
    let file = open(name.as_str(), OFlags::CREATE | OFlags::EXCL | OFlags::RDWR, Mode::RUSR | Mode::WUSR)?;
    unlink(name.as_str())?;
    ftruncate(&file, bytes as u64)?;
    Ok(file)
}
