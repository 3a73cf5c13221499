//! The bus guard: a load or store of the firmware to a page where nothing is.
//!
//! Such an access raises SIGSEGV. From generated code Wasmtime turns it into a trap at the instruction, and all that is
//! left to do here is to note the address. `memory.copy` and `memory.fill` however run in the host's memmove, where
//! Wasmtime sees a crash of the process: there the page is given back so that the host gets on, the call stack is noted,
//! and the slice ends as a fault when the firmware returns.

use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::engine::Firmware;
use crate::error::{Code, Result};
use crate::fault::Frame;
use crate::memory::{self, Page};

/// Return addresses of generated code that are kept from the stack of a faulting host function.
const KEPT_WORDS: usize = 64;
/// How far up the stack they are looked for: memmove and Wasmtime's call into it take some hundred bytes.
#[cfg(target_os = "linux")]
const SEARCHED_BYTES: usize = 16 << 10;
/// Depth of the reconstructed call stack.
const MAX_FRAMES: usize = 64;

const NO_ADDRESS: u64 = u64::MAX;

/// Where the programs and libraries of this process are, in order.
static HOST_CODE: OnceLock<Box<[Range<usize>]>> = OnceLock::new();

/// A word on the stack that may be a return address into generated code.
#[derive(Default)]
struct StackWord {
    /// Where it was.
    slot: AtomicUsize,
    /// The word.
    value: AtomicUsize,
    /// The word below it: the caller's frame pointer, if this is a return address.
    below: AtomicUsize,
}

/// Watches the memory of one CPU. Everything the signal handler touches is atomic or never changes.
pub struct BusGuard {
    /// Start of the firmware's view of INIC memory, and the address space that belongs to it.
    view: Range<usize>,
    ranges: Box<[Range<usize>]>,
    /// The page that a watchdog may take away at any time.
    leash: Option<Page>,
    /// Machine code of the firmware; empty when its place is not known (debugged CPUs run a private copy).
    text: Range<usize>,
    /// INIC address of the first faulting access since [`BusGuard::arm`].
    address: AtomicU64,
    /// The stack up to here is that of the call into the firmware; 0 when no such call was announced.
    stack_end: AtomicUsize,
    /// A host function faulted, and pages were given back to let it finish.
    in_host: AtomicBool,
    words: [StackWord; KEPT_WORDS],
}

/// An access the guard has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// INIC address; may lie past the end of the memory.
    pub address: u64,
    /// It lies in a guarded range.
    pub guarded: bool,
    /// It was made by a host function, which has completed.
    pub in_host: bool,
}

impl BusGuard {
    /// A guard for the memory that starts at `base`, with `text` the machine code that works on it.
    pub fn new(base: usize, ranges: Box<[Range<usize>]>, leash: Option<Page>, text: Range<usize>) -> Self {
        // A 32-bit address plus a 32-bit offset plus the width of the access.
        let reach = (8 << 30) + 16;
        Self {
            view: base..base + reach,
            ranges,
            leash,
            text,
            address: AtomicU64::new(NO_ADDRESS),
            stack_end: AtomicUsize::new(0),
            in_host: AtomicBool::new(false),
            words: std::array::from_fn(|_| StackWord::default()),
        }
    }

    /// Forgets what was seen, and takes the guarded pages away (again).
    ///
    /// # Safety
    /// The memory is alive and not in use.
    pub unsafe fn arm(&self) -> Result<()> {
        self.address.store(NO_ADDRESS, Ordering::Relaxed);
        self.in_host.store(false, Ordering::Relaxed);
        for word in &self.words {
            word.slot.store(0, Ordering::Relaxed);
        }
        if cfg!(target_os = "linux") {
            // SAFETY: as promised by the caller.
            unsafe { memory::protect(self.view.start, &self.ranges) }
                .map_err(|cause| Code::Memory.error(format!("pages cannot be guarded: {cause}")))?;
        }
        Ok(())
    }

    /// Announces a call into the firmware on this thread's stack. Cheap: done before every slice.
    #[inline]
    pub fn enter(&self) {
        let here = 0_usize;
        self.stack_end.store((&raw const here).expose_provenance(), Ordering::Relaxed);
    }

    /// The addresses it guards.
    pub fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }

    /// An access was seen since [`BusGuard::arm`]. Of a firmware that may run it is an old one: another CPU with the same
    /// memory was reset since.
    #[inline]
    pub fn is_stale(&self) -> bool {
        self.address.load(Ordering::Relaxed) != NO_ADDRESS
    }

    /// A host function has touched a guarded page. Cheap: asked after every slice.
    pub fn tripped_in_host(&self) -> bool {
        self.in_host.load(Ordering::Relaxed)
    }

    /// The first faulting access since [`BusGuard::arm`].
    pub fn access(&self) -> Option<Access> {
        let address = self.address.load(Ordering::Relaxed);
        (address != NO_ADDRESS).then(|| Access {
            address,
            guarded: self.range_of(address).is_some(),
            in_host: self.tripped_in_host(),
        })
    }

    /// The firmware's call stack at the access of a host function, innermost first. Empty when it cannot be told.
    pub fn frames(&self, firmware: &Firmware) -> Vec<Frame> {
        let frame_at = |word: &StackWord| {
            // A return address is that of the next instruction, which may belong to the next function.
            let offset = word.value.load(Ordering::Relaxed).checked_sub(self.text.start + 1)?;
            let (index, pc) = (firmware.function_at(offset)?, firmware.pc_at(offset)?);
            Some(Frame { function_index: index, function_name: firmware.function_name(index), pc: Some(pc) })
        };
        let is_bulk_operation = |frame: &Frame| {
            let pc = frame.pc.map_or(usize::MAX, |pc| pc as usize);
            // memory.init, memory.copy, memory.fill: the stack may hold words of earlier calls, but not from here.
            matches!(firmware.bytes.get(pc..pc.saturating_add(2)), Some([0xfc, 0x08 | 0x0a | 0x0b]))
        };
        let seen = || self.words.iter().filter(|word| word.slot.load(Ordering::Relaxed) != 0);
        let innermost = seen().find_map(|word| Some((word, frame_at(word).filter(is_bulk_operation)?)));

        let mut frames = Vec::new();
        let mut next = innermost;
        while let Some((word, frame)) = next
            && frames.len() < MAX_FRAMES
        {
            frames.push(frame);
            // Generated code keeps frame pointers: the caller's return address is one word above its own.
            let caller_slot = word.below.load(Ordering::Relaxed).wrapping_add(size_of::<usize>());
            next = seen()
                .find(|word| word.slot.load(Ordering::Relaxed) == caller_slot)
                .and_then(|word| Some((word, frame_at(word)?)));
        }
        frames
    }

    fn range_of(&self, address: u64) -> Option<&Range<usize>> {
        self.ranges.iter().find(|range| range.contains(&usize::try_from(address).unwrap_or(usize::MAX)))
    }
}

#[cfg(target_os = "linux")]
mod signals {
    use super::{BusGuard, HOST_CODE, KEPT_WORDS, NO_ADDRESS, Ordering, SEARCHED_BYTES, memory};
    use libc::{c_int, c_void, siginfo_t, ucontext_t};

    impl BusGuard {
        /// The Store's signal handler: true when execution may go on.
        ///
        /// # Safety
        /// Called with what the kernel passed to a handler installed with SA_SIGINFO, while this CPU runs.
        pub unsafe fn on_signal(&self, signal: c_int, info: *const siginfo_t, context: *const c_void) -> bool {
            if signal != libc::SIGSEGV {
                return false;
            }
            // SAFETY: SIGSEGV carries an address.
            let touched = unsafe { (*info).si_addr() }.addr();
            if !self.view.contains(&touched) {
                return false;
            }
            // SAFETY: the kernel passed a ucontext_t.
            let (pc, sp) = unsafe { registers(context.cast()) };
            if let Some(page) = self.leash.filter(|page| page.holds(touched) && is_host_code(pc)) {
                // A host function cannot be stopped. The watchdog will bite again.
                // SAFETY: the Store, and with it the view, is alive while it runs.
                return unsafe { page.give() }.is_ok();
            }
            let address = (touched - self.view.start) as u64;
            let _ = self.address.compare_exchange(NO_ADDRESS, address, Ordering::Relaxed, Ordering::Relaxed);
            let Some(range) = self.range_of(address).filter(|_| is_host_code(pc)) else {
                return false; // Generated code, and Wasmtime's to handle; or no fault of the firmware's.
            };
            if !self.in_host.swap(true, Ordering::Relaxed) {
                // SAFETY: this is the stack pointer of the thread that called `enter` and is still in that call.
                unsafe { self.keep_stack(sp) };
            }
            // SAFETY: the Store, and with it the view, is alive while it runs.
            unsafe { memory::unprotect(self.view.start, range) }.is_ok()
        }

        /// # Safety
        /// The stack is readable from `sp` to where [`BusGuard::enter`] was called.
        unsafe fn keep_stack(&self, sp: usize) {
            let end = self.stack_end.load(Ordering::Relaxed).min(sp + SEARCHED_BYTES);
            let word_bytes = size_of::<usize>();
            let mut kept = 0;
            let mut slot = sp.next_multiple_of(word_bytes) + word_bytes;
            while slot + word_bytes <= end && kept < KEPT_WORDS {
                // SAFETY: as promised by the caller.
                let value = unsafe { *std::ptr::with_exposed_provenance::<usize>(slot) };
                if self.text.contains(&value) {
                    // SAFETY: one word below, and still not below the stack pointer.
                    let below = unsafe { *std::ptr::with_exposed_provenance::<usize>(slot - word_bytes) };
                    let word = &self.words[kept];
                    word.slot.store(slot, Ordering::Relaxed);
                    word.value.store(value, Ordering::Relaxed);
                    word.below.store(below, Ordering::Relaxed);
                    kept += 1;
                }
                slot += word_bytes;
            }
        }
    }

    /// Program counter and stack pointer of the interrupted code.
    unsafe fn registers(context: *const ucontext_t) -> (usize, usize) {
        // SAFETY: a ucontext_t, as promised by the caller.
        let machine = unsafe { &(*context).uc_mcontext };
        #[cfg(target_arch = "x86_64")]
        return (machine.gregs[libc::REG_RIP as usize] as usize, machine.gregs[libc::REG_RSP as usize] as usize);
        #[cfg(target_arch = "aarch64")]
        return (machine.pc as usize, machine.sp as usize);
    }

    fn is_host_code(pc: usize) -> bool {
        HOST_CODE.get().is_some_and(|ranges| ranges.iter().any(|range| range.contains(&pc)))
    }
}

/// Notes where the executable segments of this process are, for the signal handler to tell them from generated code.
pub fn learn_host_code() {
    HOST_CODE.get_or_init(host_code);
}

#[cfg(target_os = "linux")]
fn host_code() -> Box<[Range<usize>]> {
    unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _: usize, found: *mut libc::c_void) -> libc::c_int {
        // SAFETY: `found` is the vector below, `info` describes an object with `dlpi_phnum` headers.
        let (found, info) = unsafe { (&mut *found.cast::<Vec<Range<usize>>>(), &*info) };
        if !info.dlpi_phdr.is_null() {
            // SAFETY: as above.
            let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
            for header in headers.iter().filter(|h| h.p_type == libc::PT_LOAD && h.p_flags & libc::PF_X != 0) {
                let start = (info.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
                found.push(start..start + header.p_memsz as usize);
            }
        }
        0
    }
    let mut found: Vec<Range<usize>> = Vec::new();
    // SAFETY: `visit` gets back the pointer passed here, during this call only.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut found).cast()) };
    found.into_boxed_slice()
}

#[cfg(not(target_os = "linux"))]
fn host_code() -> Box<[Range<usize>]> {
    Box::default()
}
