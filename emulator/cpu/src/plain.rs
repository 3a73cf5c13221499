//! The CPU at full speed.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use napi::Env;
use napi::bindgen_prelude::{ArrayBuffer, Uint8Array, Unknown};
use napi_derive::napi;

use crate::engine::Mode;
use crate::error::{Code, Result};
use crate::exports::{self, GuardRange};
use crate::fault::Fault;
use crate::machine::{Machine, Plan, fuel_spent};
use crate::memory::WASM_PAGE_BYTES;
use crate::raw;

/// The numbers that `poll` and `reset` share with JavaScript, so that a slice costs one call without arguments and
/// allocates nothing. A Float64Array there; the order is `CpuIo` of addon.ts.
#[derive(Default)]
#[repr(C)]
struct Io {
    /// In: the interrupt lines for `poll`.
    irqs: Cell<f64>,
    /// Out: what `poll` returned, 0 for `reset`, -1 when the firmware is stopped.
    result: Cell<f64>,
    /// Out: fuel spent by the call.
    cycles: Cell<f64>,
    /// Out: 1 if the slice left a byte of the watched range other than it found it, 0 if not.
    stored: Cell<f64>,
}

/// Stands for "the firmware is stopped" in [`Io::result`].
const STOPPED: f64 = -1.0;

struct Core {
    io: Arc<IoBlock>,
    machine: RefCell<Option<Machine>>,
    watch: RefCell<Watch>,
    fault: RefCell<Option<Fault>>,
    /// A fault is set: asked before every slice.
    stopped: Cell<bool>,
}

/// Addresses whose contents are compared before and after a slice.
struct Watch {
    range: Range<usize>,
    before: Vec<u8>,
}

impl Watch {
    fn new(range: Range<usize>) -> Self {
        Self { before: vec![0; range.len()], range }
    }

    /// Keeps what is there now.
    fn keep(&mut self, machine: &Machine) {
        // SAFETY: `PlainCpu::new` has seen that the range lies in the memory, and the firmware does not run.
        let now = unsafe { std::slice::from_raw_parts(machine.view.start().add(self.range.start), self.range.len()) };
        self.before.copy_from_slice(now);
    }

    /// Something else is there now.
    fn changed(&self, machine: &Machine) -> bool {
        // SAFETY: as above.
        let now = unsafe { std::slice::from_raw_parts(machine.view.start().add(self.range.start), self.range.len()) };
        self.before != now
    }
}

/// [`Io`] behind a reference count that the ArrayBuffer's finalizer may drop on any thread.
struct IoBlock(Io);

// SAFETY: the cells are used on the JavaScript thread that made them only; another thread at most frees the block.
unsafe impl Send for IoBlock {}
// SAFETY: as above.
unsafe impl Sync for IoBlock {}

impl Core {
    fn poll(&self) {
        self.run(|machine, io| {
            // Interrupt lines are 32 bits, and JavaScript may have set the topmost by a signed operation.
            let irqs = io.irqs.get() as i64 as u32;
            machine.poll.call(&mut machine.store, irqs).map(f64::from)
        });
    }

    fn reset(&self) {
        let armed = match self.machine.borrow().as_ref() {
            Some(machine) => machine.arm(),
            None => Ok(()),
        };
        self.fault.take();
        self.stopped.set(false);
        match armed {
            Ok(()) => self.run(|machine, _| machine.reset.call(&mut machine.store, ()).map(|()| 0.0)),
            Err(error) => self.stop(Fault::internal(error.reason.clone())),
        }
    }

    /// One slice: fuel in, the call, what it returned and spent out.
    fn run(&self, slice: impl FnOnce(&mut Machine, &Io) -> wasmtime::Result<f64>) {
        let io = &self.io.0;
        let mut machine = self.machine.borrow_mut();
        let Some(machine) = machine.as_mut().filter(|_| !self.stopped.get()) else {
            io.result.set(STOPPED);
            io.cycles.set(0.0);
            return;
        };
        // Only an engine without fuel refuses, and ours has it; without allowance the call would end as a fault.
        let _ = machine.store.set_fuel(machine.fuel_per_slice);
        // Should the call panic, this is what JavaScript sees, and no further slice runs.
        io.result.set(STOPPED);
        self.stopped.set(true);
        machine.guard.enter();
        let mut watch = self.watch.borrow_mut();
        watch.keep(machine);
        let outcome = slice(machine, io);
        io.stored.set(if watch.changed(machine) { 1.0 } else { 0.0 });
        io.cycles.set(fuel_spent(&machine.store, machine.fuel_per_slice) as f64);
        match outcome {
            Ok(_) if machine.guard.tripped_in_host() => {
                self.stop(Fault::in_host(&machine.guard, &machine.firmware));
            }
            Ok(result) => {
                io.result.set(result);
                self.stopped.set(false);
            }
            Err(error) => self.stop(Fault::of(&error, &machine.guard, &machine.firmware)),
        }
    }

    fn stop(&self, fault: Fault) {
        self.io.0.result.set(STOPPED);
        self.stopped.set(true);
        self.fault.replace(Some(fault));
    }
}

/// The CPU at full speed, as the addon exports it. `WasmtimeCpu` of wasmtime.ts wraps it.
#[napi]
pub struct PlainCpu {
    core: Rc<Core>,
}

#[napi]
impl PlainCpu {
    /// Compiles and instantiates `module` over `pages` × 64 KiB. Throws ERR_CPU_MODULE, ERR_CPU_MEMORY.
    #[napi(constructor, catch_unwind)]
    pub fn new(
        module: Uint8Array,
        pages: u32,
        fuel_per_slice: f64,
        guard: Vec<GuardRange>,
        watch_start: u32,
        watch_end: u32,
    ) -> Result<Self> {
        let watch = watch_start as usize..watch_end as usize;
        if watch.start > watch.end || watch.end as u64 > u64::from(pages) * WASM_PAGE_BYTES {
            return Err(Code::Memory.error("the watched range is not in memory"));
        }
        let plan =
            Plan { module: &module, pages, guard: exports::ranges(guard), fuel_per_slice: fuel_per_slice as u64 };
        let machine = Machine::boot(Mode::Plain, plan)?;
        let core = Core {
            io: Arc::new(IoBlock(Io::default())),
            machine: RefCell::new(Some(machine)),
            watch: RefCell::new(Watch::new(watch)),
            fault: RefCell::default(),
            stopped: Cell::new(false),
        };
        Ok(Self { core: Rc::new(core) })
    }

    /// INIC memory; the buffer keeps it alive. To be called once.
    #[napi(catch_unwind)]
    pub fn memory<'env>(&self, env: &'env Env) -> Result<ArrayBuffer<'env>> {
        match self.core.machine.borrow().as_ref() {
            Some(machine) => exports::memory(env, &machine.view),
            None => Err(Code::Disposed.error("the CPU was disposed of")),
        }
    }

    /// The numbers shared with `poll` and `reset`. To be called once.
    #[napi(catch_unwind)]
    pub fn io<'env>(&self, env: &'env Env) -> Result<ArrayBuffer<'env>> {
        let start = (&raw const self.core.io.0).cast::<u8>().cast_mut();
        // SAFETY: the block is as large as the type says and lives until the finalizer drops its count.
        unsafe { exports::external(env, start, size_of::<Io>(), self.core.io.clone()) }
    }

    /// The function that runs one slice.
    #[napi(catch_unwind)]
    pub fn poll_function(&self, env: &Env) -> Result<Unknown<'static>> {
        self.bind(env, c"poll", |core, _| {
            core.poll();
            None
        })
    }

    /// The function that resets the firmware, after a fault too. INIC memory stays as it is.
    #[napi(catch_unwind)]
    pub fn reset_function(&self, env: &Env) -> Result<Unknown<'static>> {
        self.bind(env, c"reset", |core, _| {
            core.reset();
            None
        })
    }

    fn bind(&self, env: &Env, name: &std::ffi::CStr, method: raw::Method<Core>) -> Result<Unknown<'static>> {
        raw::bind(env, name, &self.core, 0, method).map_err(|cause| Code::Internal.napi("no function", &cause))
    }

    /// Why the firmware is stopped.
    #[napi(catch_unwind)]
    pub fn fault(&self) -> Option<Fault> {
        let stopped = self.core.stopped.get();
        let fault = self.core.fault.borrow().clone();
        stopped.then(|| fault.unwrap_or_else(|| Fault::internal("the engine panicked; its message is on stderr")))
    }

    /// Frees the engine's state. `memory`, what [`PlainCpu::memory`] returned, is detached first.
    #[napi(catch_unwind)]
    pub fn dispose(&self, memory: ArrayBuffer<'_>) -> Result<()> {
        exports::detach(memory)?;
        self.core.machine.take();
        Ok(())
    }
}
