//! The CPU under a debugger, over the memory of a plain one.
//!
//! ```text
//!            reset, poll                       stop
//!   idle ─────────────────▶ running ─────────────────────▶ stopped
//!    ▲                        │  ▲         resume             │
//!    └────── done, fault ─────┘  └────────────────────────────┘
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use napi::Env;
use napi::bindgen_prelude::{ArrayBuffer, Uint32Array, Unknown};
use napi_derive::napi;
use wasmtime::{AsContext, AsContextMut, ModulePC, Store, TypedFunc};

use crate::bus::BusGuard;
use crate::desk::{ACCESS, BREAKPOINT, Desk, Order, Profile, Session, Trace};
use crate::engine::{Firmware, Mode};
use crate::error::{Code, Result};
use crate::exports;
use crate::fault::Fault;
use crate::fiber::Fiber;
use crate::frames::{self, DebugFrame};
use crate::instructions::Form;
use crate::machine::{Health, Machine, Plan, Watch};
use crate::memory::HostView;
use crate::panel::{Outcome, Panel, Slot};
use crate::raw;
use crate::watch::{WatchHit, WatchSpec};

/// What is left of a [`Machine`] besides its Store.
struct Core {
    fiber: Fiber,
    reset: TypedFunc<(), ()>,
    poll: TypedFunc<u32, u32>,
    firmware: Arc<Firmware>,
    guard: Arc<BusGuard>,
    view: Arc<HostView>,
    watch: Watch,
    fuel_per_slice: u64,
    /// Where a stop was asked for, and where the engine makes it.
    breakpoints: BTreeMap<u32, u32>,
    panel: Arc<Panel>,
    health: Rc<Health>,
    /// The engine reports each instruction.
    stepping: bool,
    histogram: Option<Arc<Box<[AtomicU32]>>>,
}

impl Core {
    fn new(machine: Machine, health: Rc<Health>, panel: Arc<Panel>) -> Result<Self> {
        let Machine { watched: _, store, reset, poll, firmware, guard, view, fuel_per_slice, watch } = machine;
        let session = Session::new(panel.clone(), firmware.clone(), view.clone(), guard.clone(), fuel_per_slice);
        let mut core = Self {
            fiber: Fiber::new(store, Desk::new(session)),
            reset,
            poll,
            firmware,
            guard,
            view,
            watch,
            fuel_per_slice,
            breakpoints: BTreeMap::new(),
            panel,
            health,
            stepping: false,
            histogram: None,
        };
        core.mark_accesses()?;
        Ok(core)
    }

    fn is_idle(&self) -> bool {
        !self.fiber.is_busy() && !self.health.mid_call.get()
    }

    fn start_reset(&mut self) {
        if let Err(error) = self.clear_fault() {
            return self.stop(Fault::internal(error.reason.clone()));
        }
        let function = self.reset.clone();
        self.start(move |store| async move { function.call_async(store, ()).await.map(|()| 0.0) });
    }

    fn start_poll(&mut self) {
        if self.health.stopped.get() {
            return self.panel.set_outcome(Outcome::Fault);
        }
        if self.guard.is_stale()
            && let Err(error) = self.clear_fault()
        {
            return self.stop(Fault::internal(error.reason.clone()));
        }
        let irqs = exports::irq_lines(self.panel.get(Slot::Irqs));
        let function = self.poll.clone();
        self.start(move |store| async move { function.call_async(store, irqs).await.map(f64::from) });
    }

    fn clear_fault(&self) -> Result<()> {
        // SAFETY: the Store holds the memory, and no call is under way.
        unsafe { self.guard.arm() }?;
        self.health.clear();
        Ok(())
    }

    fn start<F>(&mut self, call: impl FnOnce(&'static mut Store<()>) -> F)
    where
        F: Future<Output = wasmtime::Result<f64>> + 'static,
    {
        if let Err(error) = self.prepare() {
            return self.stop(Fault::internal(error.reason.clone()));
        }
        self.fiber.desk.session().begin(self.stepping);
        self.watch.keep(&self.view);
        self.fiber.begin(call);
        self.run();
    }

    fn prepare(&mut self) -> Result<()> {
        self.apply_stepping()?;
        let fuel = self.fuel_per_slice;
        self.fiber
            .with_store(move |mut store| store.set_fuel(fuel))?
            .map_err(|cause| Code::Internal.wasmtime("no fuel", &cause))
    }

    fn resume(&mut self) {
        if let Err(error) = self.apply_stepping() {
            self.fiber.abandon();
            return self.stop(Fault::internal(error.reason.clone()));
        }
        let mut session = self.fiber.desk.session();
        session.counted &= self.stepping;
        session.order = Some(Order::Resume);
        drop(session);
        self.run();
    }

    /// Tells the engine to report each instruction, or no longer.
    fn apply_stepping(&mut self) -> Result<()> {
        let wanted = self.fiber.desk.session().wants_steps();
        if wanted != self.stepping {
            self.edit(move |edit| edit.single_step(wanted))?;
            self.stepping = wanted;
        }
        Ok(())
    }

    fn run(&mut self) {
        // Should the engine panic, this is what JavaScript sees, and no further call runs.
        self.panel.set_outcome(Outcome::Fault);
        self.health.stopped.set(true);
        self.health.mid_call.set(false);
        let Some(result) = self.fiber.advance() else {
            // The handler has told the panel where and why.
            return self.health.mid_call.set(true);
        };
        let (store, allowance) = (&mut self.fiber, self.fuel_per_slice);
        let left = store.with_store(|store| store.get_fuel()).ok().and_then(wasmtime::Result::ok);
        self.panel.set(Slot::Cycles, allowance.saturating_sub(left.unwrap_or(allowance)) as f64);
        self.panel.set(Slot::Stored, if self.watch.changed(&self.view) { 1.0 } else { 0.0 });
        self.fiber.desk.session().end();
        match &result {
            Ok(_) if self.guard.tripped_in_host() => self.stop(self.fault_in_host()),
            Ok(value) => {
                self.panel.set(Slot::Result, *value);
                self.panel.set_outcome(Outcome::Done);
                self.health.stopped.set(false);
            }
            Err(_) if self.guard.tripped_in_host() => self.stop(self.fault_in_host()),
            Err(error) => self.stop(Fault::of(error, &self.guard, &self.firmware, None)),
        }
    }

    /// A bus fault in `memory.copy` or `memory.fill`, with the call stack noted before it.
    fn fault_in_host(&self) -> Fault {
        let frames = std::mem::take(&mut self.fiber.desk.session().bulk_frames);
        Fault { frames, ..Fault::in_host(&self.guard, &self.firmware) }
    }

    fn stop(&self, fault: Fault) {
        self.panel.set_outcome(Outcome::Fault);
        self.health.stop(fault);
    }

    fn abandon(&mut self) -> Result<()> {
        if !self.fiber.is_busy() {
            return Ok(());
        }
        self.fiber.abandon();
        self.panel.set_outcome(Outcome::Done);
        self.panel.set(Slot::Result, 0.0);
        self.health.mid_call.set(false);
        self.health.stopped.set(false);
        let mut session = self.fiber.desk.session();
        session.counted = false;
        session.end();
        let behind_access = session.behind_access.take();
        drop(session);
        match behind_access {
            Some(pc) => self.edit_breakpoints(vec![(pc, false)]),
            None => Ok(()),
        }
    }

    fn add_breakpoint(&mut self, pc: u32) -> Result<u32> {
        if let Some(actual) = self.breakpoints.get(&pc) {
            return Ok(*actual);
        }
        if pc > self.firmware.last_pc() {
            let message = format!("no instruction at or behind offset {pc:#x} of the firmware");
            return Err(Code::Breakpoint.error(message));
        }
        let firmware = self.firmware.clone();
        let actual = self.fiber.with_store(move |mut store| {
            if let Some(mut edit) = store.as_context_mut().edit_breakpoints() {
                edit.add_breakpoint(&firmware.module, ModulePC::new(pc))?;
            }
            // The engine slips forward to an instruction, and then lists that.
            let set = store.as_context().breakpoints().into_iter().flatten();
            Ok(set.map(|breakpoint| breakpoint.pc.raw()).filter(|actual| *actual >= pc).min().unwrap_or(pc))
        })?;
        let actual = actual.map_err(|cause: wasmtime::Error| Code::Breakpoint.wasmtime("no breakpoint", &cause))?;
        self.breakpoints.insert(pc, actual);
        if let Some(marks) = self.fiber.desk.session().marks.get_mut(actual as usize) {
            *marks |= BREAKPOINT;
        }
        Ok(actual)
    }

    fn remove_breakpoint(&mut self, pc: u32) -> Result<bool> {
        let Some(actual) = self.breakpoints.remove(&pc) else {
            return Ok(false);
        };
        let is_last = !self.breakpoints.values().any(|other| *other == actual);
        if let Some(marks) = self.fiber.desk.session().marks.get_mut(actual as usize).filter(|_| is_last) {
            *marks &= !BREAKPOINT;
        }
        self.edit_breakpoints(vec![(pc, false)])?;
        Ok(true)
    }

    /// Has the engine report the loads and stores that somebody wants to look at, and no others.
    fn mark_accesses(&mut self) -> Result<()> {
        let mut changes = Vec::new();
        let mut session = self.fiber.desk.session();
        let (reads, writes) = session.watches.interests();
        let is_guarded = !self.guard.ranges().is_empty();
        for access in &self.firmware.instructions().accesses {
            let is_wanted = match access.form {
                Form::Load(_) => reads,
                Form::Store(_) => writes,
                Form::Copy => reads || writes || is_guarded,
                Form::Fill => writes || is_guarded,
            };
            let Some(marks) = session.marks.get_mut(access.pc as usize) else { continue };
            if (*marks & ACCESS != 0) != is_wanted {
                *marks ^= ACCESS;
                changes.push((access.pc, is_wanted));
            }
        }
        drop(session);
        if changes.is_empty() { Ok(()) } else { self.edit_breakpoints(changes) }
    }

    /// Sets and takes back breakpoints of the engine, which counts how often each was set.
    fn edit_breakpoints(&mut self, changes: Vec<(u32, bool)>) -> Result<()> {
        let firmware = self.firmware.clone();
        self.edit(move |edit| {
            for (pc, on) in changes {
                let pc = ModulePC::new(pc);
                if on {
                    edit.add_breakpoint(&firmware.module, pc)?;
                } else {
                    edit.remove_breakpoint(&firmware.module, pc)?;
                }
            }
            Ok(())
        })
    }

    fn edit(
        &mut self,
        change: impl FnOnce(&mut wasmtime::BreakpointEdit<'_>) -> wasmtime::Result<()> + Send + 'static,
    ) -> Result<()> {
        let done = self.fiber.with_store(move |store| match store.edit_breakpoints() {
            Some(mut edit) => change(&mut edit),
            None => Ok(()),
        })?;
        done.map_err(|cause| Code::Internal.wasmtime("breakpoints cannot be changed", &cause))
    }

    fn histogram(&mut self) -> Arc<Box<[AtomicU32]>> {
        let bytes = self.firmware.bytes.len();
        let make = || Arc::new((0..bytes).map(|_| AtomicU32::new(0)).collect());
        self.histogram.get_or_insert_with(make).clone()
    }

    fn frames(&mut self) -> Result<Vec<DebugFrame>> {
        if !self.fiber.is_busy() {
            return Ok(Vec::new());
        }
        let firmware = self.firmware.clone();
        self.fiber
            .with_store(move |mut store| frames::read(&mut store, &firmware))?
            .map_err(|cause| Code::Internal.wasmtime("the frames cannot be read", &cause))
    }
}

/// What the functions and methods of a [`DebugCpu`] share.
struct Place {
    panel: Arc<Panel>,
    health: Rc<Health>,
    core: RefCell<Option<Core>>,
}

impl Place {
    /// Runs the firmware, from a stop or from none, or refuses.
    fn run(&self, from_stop: bool, go: impl FnOnce(&mut Core)) {
        let mut core = self.core.borrow_mut();
        let ready = core.as_mut().filter(|core| if from_stop { core.fiber.is_busy() } else { core.is_idle() });
        self.panel.set(Slot::Refused, if ready.is_some() { 0.0 } else { 1.0 });
        if let Some(core) = ready {
            go(core);
        }
    }
}

/// The CPU under a debugger, as the addon exports it. `DebugCpu` of debug.ts wraps it.
#[napi]
pub struct DebugCpu {
    place: Rc<Place>,
}

impl DebugCpu {
    /// A CPU with the firmware of `machine` over its memory.
    pub fn twin_of(machine: &Machine, health: &Rc<Health>) -> Result<Self> {
        let twin = Machine::boot(Mode::Debug, Plan::over(machine, &machine.firmware.bytes))?;
        let panel = Arc::<Panel>::default();
        let core = Core::new(twin, health.clone(), panel.clone())?;
        Ok(Self { place: Rc::new(Place { panel, health: health.clone(), core: RefCell::new(Some(core)) }) })
    }

    fn ask<T>(&self, question: impl FnOnce(&mut Core) -> Result<T>) -> Result<T> {
        match self.place.core.borrow_mut().as_mut() {
            Some(core) => question(core),
            None => Err(Code::Disposed.error("the CPU was disposed of")),
        }
    }

    fn tell(&self, order: impl FnOnce(&mut Session)) -> Result<()> {
        self.ask(|core| {
            order(&mut core.fiber.desk.session());
            Ok(())
        })
    }

    fn buffer<'env>(&self, env: &'env Env, (start, bytes): (*mut u8, usize)) -> Result<ArrayBuffer<'env>> {
        // SAFETY: a part of the panel, which lives until the finalizer drops its count.
        unsafe { exports::external(env, start, bytes, self.place.panel.clone()) }
    }
}

#[napi]
impl DebugCpu {
    /// The numbers shared with JavaScript. To be called once.
    #[napi(catch_unwind)]
    pub fn io<'env>(&self, env: &'env Env) -> Result<ArrayBuffer<'env>> {
        self.buffer(env, self.place.panel.numbers())
    }

    /// The locals of the innermost frame. To be called once.
    #[napi(catch_unwind)]
    pub fn values<'env>(&self, env: &'env Env) -> Result<ArrayBuffer<'env>> {
        self.buffer(env, self.place.panel.values())
    }

    /// Their kinds. To be called once.
    #[napi(catch_unwind)]
    pub fn kinds<'env>(&self, env: &'env Env) -> Result<ArrayBuffer<'env>> {
        self.buffer(env, self.place.panel.kinds())
    }

    /// The function that calls the firmware's `reset`. Clears a fault.
    #[napi(catch_unwind)]
    pub fn reset_function(&self, env: &Env) -> Result<Unknown<'static>> {
        raw::bind(env, c"reset", &self.place, 0, |place, _| {
            place.run(false, Core::start_reset);
            None
        })
    }

    /// The function that calls the firmware's `poll`.
    #[napi(catch_unwind)]
    pub fn poll_function(&self, env: &Env) -> Result<Unknown<'static>> {
        raw::bind(env, c"poll", &self.place, 0, |place, _| {
            place.run(false, Core::start_poll);
            None
        })
    }

    /// The function that goes on from a stop.
    #[napi(catch_unwind)]
    pub fn resume_function(&self, env: &Env) -> Result<Unknown<'static>> {
        raw::bind(env, c"resume", &self.place, 0, |place, _| {
            place.run(true, Core::resume);
            None
        })
    }

    /// The next run stops before instruction number `step` of the call.
    #[napi(catch_unwind)]
    pub fn stop_at_step(&self, step: f64) -> Result<()> {
        self.tell(|session| session.target = Some(step as u64))
    }

    /// The next run stops before the instruction so many behind this one.
    #[napi(catch_unwind)]
    pub fn stop_after(&self, steps: f64) -> Result<()> {
        self.tell(|session| session.target = Some(session.next.saturating_add(steps as u64)))
    }

    /// The next run notes the offset of each instruction.
    #[napi(catch_unwind)]
    pub fn start_trace(&self, limit: u32) -> Result<()> {
        self.tell(|session| session.trace = Some(Trace { pcs: Vec::new(), limit: limit as usize }))
    }

    /// Ends the trace: what it noted.
    #[napi(catch_unwind)]
    pub fn take_trace(&self) -> Result<Uint32Array> {
        let trace = self.ask(|core| Ok(core.fiber.desk.session().trace.take()))?;
        Ok(Uint32Array::new(trace.map_or_else(Vec::new, |trace| trace.pcs)))
    }

    /// Count instructions from the next call on, or no longer.
    #[napi(catch_unwind)]
    pub fn set_counting(&self, on: bool) -> Result<()> {
        self.tell(|session| session.counting = on)
    }

    /// Count by instruction from the next run on, and note call stacks.
    #[napi(catch_unwind)]
    pub fn start_profile(&self, sample_period: u32, sample_words: u32) -> Result<()> {
        let histogram = self.ask(|core| Ok(core.histogram()))?;
        self.tell(|session| {
            let (period, limit) = (sample_period, sample_words as usize);
            session.profile = Some(Profile { histogram, period, countdown: period, limit });
        })
    }

    /// Count no longer.
    #[napi(catch_unwind)]
    pub fn stop_profile(&self) -> Result<()> {
        self.tell(|session| session.profile = None)
    }

    /// The counts. To be called once.
    #[napi(catch_unwind)]
    pub fn histogram<'env>(&self, env: &'env Env) -> Result<ArrayBuffer<'env>> {
        let histogram = self.ask(|core| Ok(core.histogram()))?;
        let start = histogram.as_ptr().cast::<u8>().cast_mut();
        let bytes = size_of_val(&**histogram);
        // SAFETY: atomics, as many as that, which live until the finalizer drops their count.
        unsafe { exports::external(env, start, bytes, histogram) }
    }

    /// Takes the samples away.
    #[napi(catch_unwind)]
    pub fn take_samples(&self) -> Result<Uint32Array> {
        let samples = self.ask(|core| Ok(std::mem::take(&mut core.fiber.desk.session().samples)))?;
        Ok(Uint32Array::new(samples))
    }

    /// Stops before the instruction at `pc`, or the next one behind it; returns its offset. Throws ERR_CPU_BREAKPOINT.
    #[napi(catch_unwind)]
    pub fn add_breakpoint(&self, pc: u32) -> Result<u32> {
        self.ask(|core| core.add_breakpoint(pc))
    }

    /// Takes back what [`DebugCpu::add_breakpoint`] was given. False if there was none.
    #[napi(catch_unwind)]
    pub fn remove_breakpoint(&self, pc: u32) -> Result<bool> {
        self.ask(|core| core.remove_breakpoint(pc))
    }

    /// Stops behind loads and stores. Throws ERR_CPU_OPTION.
    #[napi(catch_unwind)]
    pub fn add_watchpoint(&self, spec: WatchSpec) -> Result<u32> {
        self.ask(|core| {
            let id = core.fiber.desk.session().watches.add(&spec, core.view.bytes())?;
            core.mark_accesses()?;
            Ok(id)
        })
    }

    /// Takes back a watchpoint. False if there was none.
    #[napi(catch_unwind)]
    pub fn remove_watchpoint(&self, id: u32) -> Result<bool> {
        self.ask(|core| {
            let removed = core.fiber.desk.session().watches.remove(id);
            core.mark_accesses()?;
            Ok(removed)
        })
    }

    /// What the access did that it is stopped behind.
    #[napi(catch_unwind)]
    pub fn watch_hits(&self) -> Result<Vec<WatchHit>> {
        self.ask(|core| Ok(core.fiber.desk.session().watches.hits()))
    }

    /// Stops before every instruction, or no longer.
    #[napi(catch_unwind)]
    pub fn single_step(&self, on: bool) -> Result<()> {
        self.tell(|session| session.single_step = on)
    }

    /// The kind of the trap it is stopped at.
    #[napi(catch_unwind)]
    pub fn trap_kind(&self) -> Result<Option<&'static str>> {
        self.ask(|core| Ok(core.fiber.desk.session().trap))
    }

    /// The stopped call stack, innermost first; empty between calls.
    #[napi(catch_unwind)]
    pub fn frames(&self) -> Result<Vec<DebugFrame>> {
        self.ask(Core::frames)
    }

    /// Why the firmware is stopped for good.
    #[napi(catch_unwind)]
    pub fn fault(&self) -> Option<Fault> {
        self.place.health.reason()
    }

    /// Takes back a fault without a reset: INIC memory was loaded from a snapshot.
    #[napi(catch_unwind)]
    pub fn clear_fault(&self) -> Result<()> {
        self.ask(|core| if core.is_idle() { core.clear_fault() } else { Ok(()) })
    }

    /// Ends a call that is stopped, where it is.
    #[napi(catch_unwind)]
    pub fn abandon(&self) -> Result<()> {
        self.ask(Core::abandon)
    }

    /// See [`exports::used_pages`].
    #[napi(catch_unwind)]
    pub fn used_pages(&self) -> Result<Uint32Array> {
        self.ask(|core| Ok(exports::used_pages(&core.view)))
    }

    /// Ends a call under way and frees the engine's state. `memory` is detached first, if it is given.
    #[napi(catch_unwind)]
    pub fn dispose(&self, memory: Option<ArrayBuffer<'_>>) -> Result<()> {
        if let Some(memory) = memory {
            exports::detach(memory)?;
        }
        if let Some(core) = self.place.core.borrow_mut().as_mut() {
            core.abandon()?;
        }
        self.place.core.take();
        self.place.panel.set_outcome(Outcome::Fault);
        Ok(())
    }
}
