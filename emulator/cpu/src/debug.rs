//! The CPU under a debugger.
//!
//! ```text
//!            reset, poll                       stop
//!   idle ─────────────────▶ running ─────────────────────▶ stopped
//!    ▲                        │  ▲         resume             │
//!    └────── done, fault ─────┘  └────────────────────────────┘
//! ```
//!
//! A call into the firmware is a future on a fiber of its own, polled by hand. At a stop the engine awaits our handler,
//! whose future stays pending: the poll returns, the fiber hangs in mid-call. The Store is borrowed all that time, so a
//! request that needs it, such as for the frames, is handed to the handler as a closure, and one more poll runs it. All
//! of this is on one thread, and no JavaScript runs within.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use napi::Env;
use napi::bindgen_prelude::{ArrayBuffer, BigInt, Either, Uint8Array, Uint32Array, Unknown};
use napi_derive::napi;
use wasmtime::{AsContext, AsContextMut, FrameHandle, ModulePC, Store, StoreContextMut, TypedFunc, Val};

use crate::bus::BusGuard;
use crate::desk::{ACCESS, BREAKPOINT, Desk, Order, Profile, Session, Trace, Work, publish_values};
use crate::engine::{Firmware, Mode};
use crate::error::{Code, Result};
use crate::exports::{self, GuardRange};
use crate::fault::Fault;
use crate::instructions::Form;
use crate::machine::{Health, Machine, Plan, Watch};
use crate::memory::{HostView, WASM_PAGE_BYTES};
use crate::panel::{Outcome, Panel, Slot};
use crate::raw;
use crate::watch::{WatchHit, WatchSpec};

/// A Store that a future may hold while we hold it too, never both at work.
struct Shared {
    store: *mut Store<()>,
    /// The call under way. Borrows the Store: goes first.
    call: Option<Pin<Box<dyn Future<Output = wasmtime::Result<f64>>>>>,
    desk: Desk,
}

impl Shared {
    fn new(mut store: Store<()>, desk: Desk) -> Self {
        store.set_debug_handler(desk.clone());
        Self { store: Box::into_raw(Box::new(store)), call: None, desk }
    }

    /// Begins a call; [`Shared::advance`] runs it.
    fn begin<F>(&mut self, call: impl FnOnce(&'static mut Store<()>) -> F)
    where
        F: Future<Output = wasmtime::Result<f64>> + 'static,
    {
        debug_assert!(self.call.is_none());
        // SAFETY: the Store lives until `self` is dropped, which drops the future first; while the future exists the
        // Store is reached through it only.
        self.call = Some(Box::pin(call(unsafe { &mut *self.store })));
    }

    /// Runs the call until it ends or stops. `None`: it has stopped.
    fn advance(&mut self) -> Option<wasmtime::Result<f64>> {
        let polled = self.call.as_mut()?.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        match polled {
            Poll::Pending => None,
            Poll::Ready(result) => {
                self.call = None;
                Some(result)
            }
        }
    }

    /// Does something with the Store, in mid-call too.
    fn with_store<R: Send + 'static>(
        &mut self,
        work: impl for<'a> FnOnce(StoreContextMut<'a, ()>) -> R + Send + 'static,
    ) -> Result<R> {
        if self.call.is_none() {
            // SAFETY: without a call nobody else has the Store.
            return Ok(work(unsafe { &mut *self.store }.as_context_mut()));
        }
        let answer = Arc::new(Mutex::new(None));
        let slot = answer.clone();
        let work: Work = Box::new(move |store| {
            let result = work(store);
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        });
        self.desk.session().order = Some(Order::Work(work));
        self.advance();
        let result = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        result.ok_or_else(|| Code::Internal.error("the stopped call does not answer"))
    }

    /// Unwinds the fiber of a call under way.
    fn abandon(&mut self) {
        if self.call.is_none() {
            return;
        }
        self.desk.session().abandoned = true;
        self.call = None;
        self.desk.session().abandoned = false;
        // Wasmtime drops the handler when it wants to ask it about the end of a fiber that nobody waits for.
        // SAFETY: without a call nobody else has the Store.
        unsafe { &mut *self.store }.set_debug_handler(self.desk.clone());
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.abandon();
        // SAFETY: made in `new`, and the only borrower is gone.
        drop(unsafe { Box::from_raw(self.store) });
    }
}

/// A local or an operand.
#[napi(object)]
pub struct Value {
    /// `i32`, `i64`, `f32`, `f64`, `v128` or `ref`.
    #[napi(js_name = "type")]
    pub kind: String,
    /// i64 and v128 as a BigInt, the latter without sign.
    pub value: Either<f64, BigInt>,
}

/// A function of the firmware that is running.
#[napi(object)]
pub struct DebugFrame {
    /// Index in the module's function space.
    pub function_index: u32,
    /// From the name section.
    pub function_name: Option<String>,
    /// Offset in the module of the next instruction; in a caller, of the one behind the call.
    pub pc: u32,
    /// Parameters, then locals.
    pub locals: Vec<Value>,
    /// Operand stack, bottom first.
    pub stack: Vec<Value>,
}

/// What is left of a [`Machine`] besides its Store.
struct Core {
    shared: Shared,
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
            shared: Shared::new(store, Desk::new(session)),
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
        self.shared.call.is_none() && !self.health.mid_call.get()
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
        // Interrupt lines are 32 bits, and JavaScript may have set the topmost by a signed operation.
        let irqs = self.panel.get(Slot::Irqs) as i64 as u32;
        let function = self.poll.clone();
        self.start(move |store| async move { function.call_async(store, irqs).await.map(f64::from) });
    }

    fn clear_fault(&self) -> Result<()> {
        // SAFETY: the Store holds the memory, and no call is under way.
        unsafe { self.guard.arm() }.map_err(|cause| Code::Memory.error(format!("pages cannot be guarded: {cause}")))?;
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
        self.shared.desk.session().begin(self.stepping);
        self.watch.keep(&self.view);
        self.shared.begin(call);
        self.run();
    }

    fn prepare(&mut self) -> Result<()> {
        self.apply_stepping()?;
        let fuel = self.fuel_per_slice;
        self.shared
            .with_store(move |mut store| store.set_fuel(fuel))?
            .map_err(|cause| Code::Internal.wasmtime("no fuel", &cause))
    }

    fn resume(&mut self) {
        if let Err(error) = self.apply_stepping() {
            self.shared.abandon();
            return self.stop(Fault::internal(error.reason.clone()));
        }
        let mut session = self.shared.desk.session();
        session.counted &= self.stepping;
        session.order = Some(Order::Resume);
        drop(session);
        self.run();
    }

    /// Tells the engine to report each instruction, or no longer.
    fn apply_stepping(&mut self) -> Result<()> {
        let wanted = self.shared.desk.session().wants_steps();
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
        let Some(result) = self.shared.advance() else {
            // The handler has told the panel where and why.
            return self.health.mid_call.set(true);
        };
        let (store, allowance) = (&mut self.shared, self.fuel_per_slice);
        let left = store.with_store(|store| store.get_fuel()).ok().and_then(wasmtime::Result::ok);
        self.panel.set(Slot::Cycles, allowance.saturating_sub(left.unwrap_or(allowance)) as f64);
        self.panel.set(Slot::Stored, if self.watch.changed(&self.view) { 1.0 } else { 0.0 });
        self.shared.desk.session().end();
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
        let frames = std::mem::take(&mut self.shared.desk.session().bulk_frames);
        Fault { frames, ..Fault::in_host(&self.guard, &self.firmware) }
    }

    fn stop(&self, fault: Fault) {
        self.panel.set_outcome(Outcome::Fault);
        self.health.stop(fault);
    }

    fn abandon(&mut self) -> Result<()> {
        if self.shared.call.is_none() {
            return Ok(());
        }
        self.shared.abandon();
        self.panel.set_outcome(Outcome::Done);
        self.panel.set(Slot::Result, 0.0);
        self.health.mid_call.set(false);
        self.health.stopped.set(false);
        let mut session = self.shared.desk.session();
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
        let actual = self.shared.with_store(move |mut store| {
            if let Some(mut edit) = store.as_context_mut().edit_breakpoints() {
                edit.add_breakpoint(&firmware.module, ModulePC::new(pc))?;
            }
            // The engine slips forward to an instruction, and then lists that.
            let set = store.as_context().breakpoints().into_iter().flatten();
            Ok(set.map(|breakpoint| breakpoint.pc.raw()).filter(|actual| *actual >= pc).min().unwrap_or(pc))
        })?;
        let actual = actual.map_err(|cause: wasmtime::Error| Code::Breakpoint.wasmtime("no breakpoint", &cause))?;
        self.breakpoints.insert(pc, actual);
        if let Some(marks) = self.shared.desk.session().marks.get_mut(actual as usize) {
            *marks |= BREAKPOINT;
        }
        Ok(actual)
    }

    fn remove_breakpoint(&mut self, pc: u32) -> Result<bool> {
        let Some(actual) = self.breakpoints.remove(&pc) else {
            return Ok(false);
        };
        let is_last = !self.breakpoints.values().any(|other| *other == actual);
        if let Some(marks) = self.shared.desk.session().marks.get_mut(actual as usize).filter(|_| is_last) {
            *marks &= !BREAKPOINT;
        }
        self.edit_breakpoints(vec![(pc, false)])?;
        Ok(true)
    }

    /// Has the engine report the loads and stores that somebody wants to look at, and no others.
    fn mark_accesses(&mut self) -> Result<()> {
        let mut changes = Vec::new();
        let mut session = self.shared.desk.session();
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
        let done = self.shared.with_store(move |store| match store.edit_breakpoints() {
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

    /// Writes the values of a frame to the panel. False if there is no such frame.
    fn select(&mut self, depth: u32) -> bool {
        if self.shared.call.is_none() {
            return false;
        }
        let panel = self.panel.clone();
        let selected = self.shared.with_store(move |mut store| {
            let mut left = depth;
            let mut next = store.debug_exit_frames().next();
            while let Some(frame) = next {
                // Trampolines do not count.
                if let Ok(Some(_)) = frame.wasm_function_index_and_pc(&mut store) {
                    if left == 0 {
                        publish_values(&panel, &frame, &mut store);
                        return true;
                    }
                    left -= 1;
                }
                next = frame.parent(&mut store).ok().flatten();
            }
            false
        });
        selected.unwrap_or(false)
    }

    fn frames(&mut self) -> Result<Vec<DebugFrame>> {
        if self.shared.call.is_none() {
            return Ok(Vec::new());
        }
        let firmware = self.firmware.clone();
        self.shared
            .with_store(move |mut store| {
                let mut frames = Vec::new();
                let mut next = store.debug_exit_frames().next();
                while let Some(frame) = next {
                    frames.extend(read_frame(&frame, &mut store, &firmware)?);
                    next = frame.parent(&mut store)?;
                }
                Ok(frames)
            })?
            .map_err(|cause: wasmtime::Error| Code::Internal.wasmtime("the frames cannot be read", &cause))
    }
}

fn read_frame(
    frame: &FrameHandle,
    store: &mut StoreContextMut<'_, ()>,
    firmware: &Firmware,
) -> wasmtime::Result<Option<DebugFrame>> {
    let Some((function, pc)) = frame.wasm_function_index_and_pc(&mut *store)? else {
        return Ok(None); // A trampoline.
    };
    // Firmware imports no function, so indices of all functions and of the defined ones are the same.
    let function_index = function.as_u32();
    let mut locals = Vec::new();
    for index in 0..frame.num_locals(&mut *store)? {
        locals.push(value(frame.local(&mut *store, index)?));
    }
    let mut stack = Vec::new();
    for index in 0..frame.num_stacks(&mut *store)? {
        stack.push(value(frame.stack(&mut *store, index)?));
    }
    let function_name = firmware.function_name(function_index);
    Ok(Some(DebugFrame { function_index, function_name, pc: pc.raw(), locals, stack }))
}

fn value(value: Val) -> Value {
    let (kind, value) = match value {
        Val::I32(number) => ("i32", Either::A(f64::from(number))),
        Val::I64(number) => ("i64", Either::B(BigInt::from(number))),
        Val::F32(bits) => ("f32", Either::A(f64::from(f32::from_bits(bits)))),
        Val::F64(bits) => ("f64", Either::A(f64::from_bits(bits))),
        Val::V128(vector) => ("v128", Either::B(BigInt::from(vector.as_u128()))),
        _ => ("ref", Either::A(0.0)),
    };
    Value { kind: kind.into(), value }
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
        let ready = core.as_mut().filter(|core| if from_stop { core.shared.call.is_some() } else { core.is_idle() });
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
    fn of(machine: Machine, health: Rc<Health>) -> Result<Self> {
        let panel = Arc::<Panel>::default();
        let core = Core::new(machine, health.clone(), panel.clone())?;
        Ok(Self { place: Rc::new(Place { panel, health, core: RefCell::new(Some(core)) }) })
    }

    /// A CPU with the firmware of `machine` over its memory.
    pub fn twin_of(machine: &Machine, health: &Rc<Health>) -> Result<Self> {
        let plan = Plan {
            module: &machine.firmware.bytes,
            pages: (machine.view.bytes() as u64 / WASM_PAGE_BYTES) as u32,
            guard: machine.guard.ranges().into(),
            fuel_per_slice: machine.fuel_per_slice,
            limit: None,
            watch: machine.watch.range(),
            over: Some(machine.view.clone()),
        };
        Self::of(Machine::boot(Mode::Debug, plan)?, health.clone())
    }

    fn ask<T>(&self, question: impl FnOnce(&mut Core) -> Result<T>) -> Result<T> {
        match self.place.core.borrow_mut().as_mut() {
            Some(core) => question(core),
            None => Err(Code::Disposed.error("the CPU was disposed of")),
        }
    }

    fn tell(&self, order: impl FnOnce(&mut Session)) -> Result<()> {
        self.ask(|core| {
            order(&mut core.shared.desk.session());
            Ok(())
        })
    }

    fn bind(&self, env: &Env, name: &CStr, arguments: usize, method: raw::Method<Place>) -> Result<Unknown<'static>> {
        raw::bind(env, name, &self.place, arguments, method).map_err(|cause| Code::Internal.napi("no function", &cause))
    }

    fn buffer<'env>(&self, env: &'env Env, (start, bytes): (*mut u8, usize)) -> Result<ArrayBuffer<'env>> {
        // SAFETY: a part of the panel, which lives until the finalizer drops its count.
        unsafe { exports::external(env, start, bytes, self.place.panel.clone()) }
    }
}

#[napi]
impl DebugCpu {
    /// As [`crate::plain::PlainCpu::new`].
    #[napi(constructor, catch_unwind)]
    pub fn new(
        module: Uint8Array,
        pages: u32,
        fuel_per_slice: f64,
        guard: Vec<GuardRange>,
        watch_start: u32,
        watch_end: u32,
    ) -> Result<Self> {
        let plan = Plan {
            module: &module,
            pages,
            guard: exports::ranges(guard),
            fuel_per_slice: fuel_per_slice as u64,
            limit: None,
            watch: watch_start as usize..watch_end as usize,
            over: None,
        };
        Self::of(Machine::boot(Mode::Debug, plan)?, Rc::default())
    }

    /// INIC memory; the buffer keeps it alive. To be called once, and not of a twin.
    #[napi(catch_unwind)]
    pub fn memory<'env>(&self, env: &'env Env) -> Result<ArrayBuffer<'env>> {
        let view = self.ask(|core| Ok(core.view.clone()))?;
        exports::memory(env, &view)
    }

    /// The numbers shared with JavaScript. To be called once.
    #[napi(catch_unwind)]
    pub fn io<'env>(&self, env: &'env Env) -> Result<ArrayBuffer<'env>> {
        self.buffer(env, self.place.panel.numbers())
    }

    /// The values of a frame. To be called once.
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
        self.bind(env, c"reset", 0, |place, _| {
            place.run(false, Core::start_reset);
            None
        })
    }

    /// The function that calls the firmware's `poll`.
    #[napi(catch_unwind)]
    pub fn poll_function(&self, env: &Env) -> Result<Unknown<'static>> {
        self.bind(env, c"poll", 0, |place, _| {
            place.run(false, Core::start_poll);
            None
        })
    }

    /// The function that goes on from a stop.
    #[napi(catch_unwind)]
    pub fn resume_function(&self, env: &Env) -> Result<Unknown<'static>> {
        self.bind(env, c"resume", 0, |place, _| {
            place.run(true, Core::resume);
            None
        })
    }

    /// The function that writes the values of a frame to the panel: 1, or 0 if there is no such frame.
    #[napi(catch_unwind)]
    pub fn select_function(&self, env: &Env) -> Result<Unknown<'static>> {
        self.bind(env, c"select", 1, |place, call| {
            let mut core = place.core.borrow_mut();
            let selected = core.as_mut().is_some_and(|core| core.select(call.u32(0)));
            Some(if selected { 1.0 } else { 0.0 })
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
        let trace = self.ask(|core| Ok(core.shared.desk.session().trace.take()))?;
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
        let samples = self.ask(|core| Ok(std::mem::take(&mut core.shared.desk.session().samples)))?;
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
            let id = core.shared.desk.session().watches.add(&spec, core.view.bytes())?;
            core.mark_accesses()?;
            Ok(id)
        })
    }

    /// Takes back a watchpoint. False if there was none.
    #[napi(catch_unwind)]
    pub fn remove_watchpoint(&self, id: u32) -> Result<bool> {
        self.ask(|core| {
            let removed = core.shared.desk.session().watches.remove(id);
            core.mark_accesses()?;
            Ok(removed)
        })
    }

    /// What the access did that it is stopped behind.
    #[napi(catch_unwind)]
    pub fn watch_hits(&self) -> Result<Vec<WatchHit>> {
        self.ask(|core| Ok(core.shared.desk.session().watches.hits()))
    }

    /// Stops before every instruction, or no longer.
    #[napi(catch_unwind)]
    pub fn single_step(&self, on: bool) -> Result<()> {
        self.tell(|session| session.single_step = on)
    }

    /// The kind of the trap it is stopped at.
    #[napi(catch_unwind)]
    pub fn trap_kind(&self) -> Result<Option<&'static str>> {
        self.ask(|core| Ok(core.shared.desk.session().trap))
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

    /// See [`exports::copy_dirty_of`].
    #[napi(catch_unwind)]
    pub fn copy_dirty(&self, shadow: Uint8Array, pages: Uint32Array, bytes: Uint8Array) -> Result<u32> {
        self.ask(|core| exports::copy_dirty_of(&core.view, shadow, pages, bytes))
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
