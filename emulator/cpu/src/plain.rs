//! The CPU at full speed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use napi::bindgen_prelude::{ArrayBuffer, AsyncTask, Uint8Array, Uint32Array, Unknown};
use napi::{Env, Task};
use napi_derive::napi;

use crate::debug::DebugCpu;
use crate::engine::{Mode, Shop};
use crate::error::{Code, Error, Result};
use crate::exports::{self, GuardRange};
use crate::fault::Fault;
use crate::machine::{Health, Machine, Plan};
use crate::memory::HostView;
use crate::raw;
use crate::watchdog::TimeLimit;

/// The numbers that `poll` and `reset` share with JavaScript, so that a slice costs one call without arguments and
/// allocates nothing. A Float64Array there; the order is `CpuIo` of addon.ts.
#[derive(Default)]
#[repr(C)]
struct Io {
    /// In: the interrupt lines for `poll`.
    irqs: Cell<f64>,
    /// Out: what `poll` returned, 0 for `reset`, -1 when the firmware is stopped.
    result: Cell<f64>,
    /// Out: fuel spent by the call; 0 with a limit of time.
    cycles: Cell<f64>,
    /// Out: 1 if the slice left a byte of the watched range other than it found it, 0 if not.
    stored: Cell<f64>,
}

/// Stands for "the firmware is stopped" in [`Io::result`].
const STOPPED: f64 = -1.0;

struct Core {
    io: Arc<IoBlock>,
    machine: RefCell<Option<Machine>>,
    health: Rc<Health>,
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
            let irqs = exports::irq_lines(io.irqs.get());
            machine.poll.call(&mut machine.store, irqs).map(f64::from)
        });
    }

    fn reset(&self) {
        if !self.health.mid_call.get()
            && let Err(error) = self.clear_fault()
        {
            return self.stop(Fault::internal(error.reason.clone()));
        }
        self.run(|machine, _| machine.reset.call(&mut machine.store, ()).map(|()| 0.0));
    }

    fn clear_fault(&self) -> Result<()> {
        if let Some(machine) = self.machine.borrow().as_ref() {
            machine.arm()?;
        }
        self.health.clear();
        Ok(())
    }

    /// One slice: its allowance in, the call, what it returned and spent out.
    fn run(&self, slice: impl FnOnce(&mut Machine, &Io) -> wasmtime::Result<f64>) {
        let io = &self.io.0;
        let mut machine = self.machine.borrow_mut();
        let Some(machine) = machine.as_mut().filter(|_| !self.health.stopped.get()) else {
            io.result.set(STOPPED);
            io.cycles.set(0.0);
            return;
        };
        // Should the call panic, this is what JavaScript sees, and no further slice runs.
        io.result.set(STOPPED);
        self.health.stopped.set(true);
        if machine.is_stale()
            && let Err(error) = machine.arm()
        {
            return self.stop(Fault::internal(error.reason.clone()));
        }
        machine.guard.enter();
        machine.watch.keep(&machine.view);
        machine.begin();
        let outcome = slice(machine, io);
        io.cycles.set(machine.end() as f64);
        io.stored.set(if machine.watch.changed(&machine.view) { 1.0 } else { 0.0 });
        match outcome {
            Ok(_) if machine.guard.tripped_in_host() => {
                self.stop(Fault::in_host(&machine.guard, &machine.firmware));
            }
            Ok(result) => {
                io.result.set(result);
                self.health.stopped.set(false);
            }
            Err(error) => {
                self.stop(Fault::of(&error, &machine.guard, &machine.firmware, machine.overdue()));
            }
        }
    }

    fn stop(&self, fault: Fault) {
        self.io.0.result.set(STOPPED);
        self.health.stop(fault);
    }

    fn view(&self) -> Result<Arc<HostView>> {
        let machine = self.machine.borrow();
        machine.as_ref().map(|machine| machine.view.clone()).ok_or_else(disposed)
    }
}

fn disposed() -> Error {
    Code::Disposed.error("the CPU was disposed of")
}

/// The CPU at full speed, as the addon exports it. `WasmtimeCpu` of wasmtime.ts wraps it.
#[napi]
pub struct PlainCpu {
    core: Rc<Core>,
}

#[napi]
impl PlainCpu {
    /// Compiles and instantiates `module` over `pages` × 64 KiB. With `limit` no fuel is counted. Throws ERR_CPU_MODULE, ERR_CPU_MEMORY.
    #[napi(constructor, catch_unwind)]
    pub fn new(
        module: Uint8Array,
        pages: u32,
        fuel_per_slice: f64,
        guard: Vec<GuardRange>,
        watch_start: u32,
        watch_end: u32,
        limit: Option<SliceLimit>,
    ) -> Result<Self> {
        let plan = Plan {
            module: &module,
            pages,
            guard: exports::ranges(guard),
            fuel_per_slice: fuel_per_slice as u64,
            limit: limit.map(|limit| TimeLimit::from(&limit)),
            watch: watch_start as usize..watch_end as usize,
            over: None,
        };
        Self::of(plan, Rc::default())
    }

    fn of(plan: Plan<'_>, health: Rc<Health>) -> Result<Self> {
        let mode = if plan.limit.is_some() { Mode::Timed } else { Mode::Plain };
        let machine = Machine::boot(mode, plan)?;
        let core = Core { io: Arc::new(IoBlock(Io::default())), machine: RefCell::new(Some(machine)), health };
        Ok(Self { core: Rc::new(core) })
    }

    /// INIC memory; the buffer keeps it alive. To be called once.
    #[napi(catch_unwind)]
    pub fn memory<'env>(&self, env: &'env Env) -> Result<ArrayBuffer<'env>> {
        exports::memory(env, &self.core.view()?)
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
        raw::bind(env, c"poll", &self.core, 0, |core, _| {
            core.poll();
            None
        })
    }

    /// The function that resets the firmware, after a fault too. INIC memory stays as it is.
    #[napi(catch_unwind)]
    pub fn reset_function(&self, env: &Env) -> Result<Unknown<'static>> {
        raw::bind(env, c"reset", &self.core, 0, |core, _| {
            core.reset();
            None
        })
    }

    /// Why the firmware is stopped.
    #[napi(catch_unwind)]
    pub fn fault(&self) -> Option<Fault> {
        self.core.health.reason()
    }

    /// Takes back a fault without a reset: INIC memory was loaded from a snapshot.
    #[napi(catch_unwind)]
    pub fn clear_fault(&self) -> Result<()> {
        if self.core.health.mid_call.get() { Ok(()) } else { self.core.clear_fault() }
    }

    /// A debugged CPU of the same firmware over the same memory. Throws ERR_CPU_DISPOSED, ERR_CPU_MEMORY.
    #[napi(catch_unwind)]
    pub fn debug_twin(&self) -> Result<DebugCpu> {
        let machine = self.core.machine.borrow();
        DebugCpu::twin_of(machine.as_ref().ok_or_else(disposed)?, &self.core.health)
    }

    /// A CPU with another firmware over the same memory: guard, watched range, fuel and fault are the same. Nothing is
    /// written to memory: the data segments are the caller's to write. Throws ERR_CPU_DISPOSED, ERR_CPU_STATE,
    /// ERR_CPU_MODULE, ERR_CPU_MEMORY.
    #[napi(catch_unwind)]
    pub fn successor(&self, module: Uint8Array) -> Result<PlainCpu> {
        let machine = self.core.machine.borrow();
        let machine = machine.as_ref().ok_or_else(disposed)?;
        if self.core.health.stopped.get() {
            return Err(Code::State.error("the firmware is stopped, or in mid-call"));
        }
        Self::of(Plan { limit: machine.limit(), ..Plan::over(machine, &module) }, self.core.health.clone())
    }

    /// A CPU with the same firmware over the same memory that counts fuel. Throws ERR_CPU_DISPOSED, ERR_CPU_MEMORY.
    #[napi(catch_unwind)]
    pub fn metered(&self) -> Result<PlainCpu> {
        let machine = self.core.machine.borrow();
        let machine = machine.as_ref().ok_or_else(disposed)?;
        Self::of(Plan::over(machine, &machine.firmware.bytes), self.core.health.clone())
    }

    /// See [`exports::used_pages`].
    #[napi(catch_unwind)]
    pub fn used_pages(&self) -> Result<Uint32Array> {
        Ok(exports::used_pages(&*self.core.view()?))
    }

    /// Frees the engine's state. `memory`, what [`PlainCpu::memory`] returned, is detached first, if it is given.
    #[napi(catch_unwind)]
    pub fn dispose(&self, memory: Option<ArrayBuffer<'_>>) -> Result<()> {
        if let Some(memory) = memory {
            exports::detach(memory)?;
        }
        self.core.machine.take();
        Ok(())
    }
}

/// `SliceLimit` of cpu.ts.
#[napi(object)]
pub struct SliceLimit {
    /// Milliseconds of processor time.
    pub ms: f64,
    /// Address of the byte that the firmware stores 0 to.
    pub leash: u32,
}

impl From<&SliceLimit> for TimeLimit {
    fn from(limit: &SliceLimit) -> Self {
        Self { most: std::time::Duration::from_micros((limit.ms * 1e3) as u64), leash: limit.leash }
    }
}

/// Compiles a firmware on another thread.
pub struct Compilation {
    module: Vec<u8>,
    leash: Option<u32>,
}

impl Task for Compilation {
    type Output = ();
    type JsValue = ();

    fn compute(&mut self) -> napi::Result<()> {
        let mode = if self.leash.is_some() { Mode::Timed } else { Mode::Plain };
        let compiled = Shop::of(mode).and_then(|shop| shop.compile(&self.module, self.leash));
        compiled.map(drop).map_err(|cause| napi::Error::from_reason(cause.reason.clone()))
    }

    fn resolve(&mut self, _: Env, (): ()) -> napi::Result<()> {
        Ok(())
    }
}

/// Compiles `module` for CPUs to come, with that limit, while JavaScript and the boards go on. Rejects for one that does not compile.
#[napi]
pub fn precompile(module: Uint8Array, limit: Option<SliceLimit>) -> AsyncTask<Compilation> {
    AsyncTask::new(Compilation { module: module.to_vec(), leash: limit.map(|limit| limit.leash) })
}
