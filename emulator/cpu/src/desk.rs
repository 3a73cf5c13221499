//! The debug handler: what happens at each instruction that the engine reports.
//!
//! Most of them are none of JavaScript's business: they are counted, traced, sampled or compared with the watchpoints
//! here, and the firmware runs on. At a stop the handler's future stays pending, and waits for orders.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use wasmtime::{AsContextMut, DebugEvent, DebugHandler, ModulePC, StoreContextMut, Val};

use crate::bus::BusGuard;
use crate::engine::Firmware;
use crate::fault::{Frame, describe};
use crate::frames::{call_stack, place_of, publish_locals};
use crate::instructions::{Access, Form};
use crate::memory::HostView;
use crate::panel::{Outcome, Panel, Slot};
use crate::watch::{Touch, Watches};

/// Something to be done with the Store while the firmware is stopped.
pub type Work = Box<dyn for<'a> FnOnce(StoreContextMut<'a, ()>) + Send>;

/// What the CPU, outside, tells the handler, inside.
pub enum Order {
    /// Go on.
    Resume,
    /// Do this.
    Work(Work),
}

/// An instruction that JavaScript asked to stop at.
pub const BREAKPOINT: u8 = 1;
/// A load or store that has to be looked at.
pub const ACCESS: u8 = 2;

/// Offsets of the instructions that ran.
pub struct Trace {
    /// In order.
    pub pcs: Vec<u32>,
    /// How many at most.
    pub limit: usize,
}

/// What is noted while a profile is taken.
pub struct Profile {
    /// Counts by offset in the module.
    pub histogram: Arc<Box<[AtomicU32]>>,
    /// Instructions from one sample to the next; 0 for none.
    pub period: u32,
    /// Instructions until the next one.
    pub countdown: u32,
    /// Numbers that are kept at most.
    pub limit: usize,
}

/// What the handler works with. The CPU changes it while the firmware does not run.
pub struct Session {
    /// What is shared with JavaScript.
    pub panel: Arc<Panel>,
    /// The image that runs.
    pub firmware: Arc<Firmware>,
    /// Its memory.
    pub view: Arc<HostView>,
    /// What it must not touch.
    pub guard: Arc<BusGuard>,
    /// Fuel that the call began with.
    pub allowance: u64,
    /// [`BREAKPOINT`] and [`ACCESS`] by offset in the module.
    pub marks: Vec<u8>,
    /// What is watched.
    pub watches: Watches,
    /// Stop at each instruction.
    pub single_step: bool,
    /// Count instructions.
    pub counting: bool,
    /// For this run: stop before this instruction of the call.
    pub target: Option<u64>,
    /// For this run: note instructions.
    pub trace: Option<Trace>,
    /// Note what is run most.
    pub profile: Option<Profile>,
    /// Depth, then function and offset of each frame; for each sample.
    pub samples: Vec<u32>,
    /// Number of the instruction before which the firmware is, or would be if all were counted.
    pub next: u64,
    /// They were, from the start of the call.
    pub counted: bool,
    /// The call ends without running on.
    pub abandoned: bool,
    /// What to do next.
    pub order: Option<Order>,
    /// The kind of the trap it is stopped at.
    pub trap: Option<&'static str>,
    /// Call stack of the first `memory.copy` or `memory.fill` of the call that reaches into a guarded range.
    pub bulk_frames: Vec<Frame>,
    /// Where the engine was told to stop for the end of an access.
    pub behind_access: Option<u32>,
    /// Where the firmware is.
    pc: u32,
}

impl Session {
    /// Nothing asked for.
    pub fn new(
        panel: Arc<Panel>,
        firmware: Arc<Firmware>,
        view: Arc<HostView>,
        guard: Arc<BusGuard>,
        allowance: u64,
    ) -> Self {
        Self {
            marks: vec![0; firmware.bytes.len()],
            panel,
            firmware,
            view,
            guard,
            allowance,
            watches: Watches::default(),
            single_step: false,
            counting: false,
            target: None,
            trace: None,
            profile: None,
            samples: Vec::new(),
            next: 0,
            counted: false,
            abandoned: false,
            order: None,
            trap: None,
            bulk_frames: Vec::new(),
            behind_access: None,
            pc: 0,
        }
    }

    /// The engine has to report each instruction.
    pub fn wants_steps(&self) -> bool {
        self.single_step || self.counting || self.profile.is_some() || self.is_quiet()
    }

    /// This run stops for a trap, and where it was told to, only.
    fn is_quiet(&self) -> bool {
        self.target.is_some() || self.trace.is_some()
    }

    /// Before a call.
    pub fn begin(&mut self, stepping: bool) {
        self.next = 0;
        self.counted = stepping;
        self.trap = None;
        self.order = None;
        self.bulk_frames.clear();
        self.watches.forget();
    }

    /// After a call: what is left to JavaScript.
    pub fn end(&mut self) {
        self.target = None;
        self.watches.forget();
        let steps = if self.counted { self.next as f64 } else { -1.0 };
        self.panel.set(Slot::Steps, steps);
    }

    /// The engine has come to an instruction, or to a trap of the one before. True: stop here.
    fn arrive(&mut self, store: &mut StoreContextMut<'_, ()>, trap: Option<&'static str>) -> bool {
        if self.abandoned {
            return false;
        }
        if let Some(pc) = self.behind_access.take() {
            self.toggle_breakpoint(store, pc, false);
        }
        let frame = store.debug_exit_frames().next();
        let place = frame.as_ref().and_then(|frame| place_of(frame, store));
        let outcome = match (trap, place) {
            (Some(_), _) => {
                self.watches.forget();
                Outcome::Trap
            }
            (None, None) => return false,
            (None, Some((_, pc))) => {
                self.pc = pc;
                match self.stop_at(pc) {
                    Some(outcome) => outcome,
                    None => {
                        self.depart(store);
                        return false;
                    }
                }
            }
        };
        self.trap = trap;
        self.target = None;
        let panel = &self.panel;
        let (_, pc) = place.unwrap_or_default();
        let left = store.get_fuel().unwrap_or(self.allowance);
        panel.set_outcome(outcome);
        panel.set(Slot::Pc, f64::from(pc));
        panel.set(Slot::Cycles, self.allowance.saturating_sub(left) as f64);
        panel.set(Slot::Steps, if self.counted { self.next as f64 } else { -1.0 });
        match frame {
            Some(frame) => publish_locals(panel, &frame, store),
            None => panel.set(Slot::Locals, 0.0),
        }
        true
    }

    /// Why to stop before the instruction at `pc`.
    fn stop_at(&mut self, pc: u32) -> Option<Outcome> {
        let watched = self.watches.is_expecting() && self.watches.complete(&self.view);
        let full = self.trace.as_ref().is_some_and(|trace| trace.pcs.len() >= trace.limit);
        if full || self.target == Some(self.next) {
            return Some(Outcome::Step);
        }
        if self.is_quiet() {
            return None;
        }
        if watched {
            return Some(Outcome::Watch);
        }
        if self.marks.get(pc as usize).is_some_and(|marks| marks & BREAKPOINT != 0) {
            return Some(Outcome::Breakpoint);
        }
        self.single_step.then_some(Outcome::Step)
    }

    /// The instruction is about to run.
    fn depart(&mut self, store: &mut StoreContextMut<'_, ()>) {
        let pc = self.pc;
        self.next += 1;
        if let Some(trace) = &mut self.trace {
            trace.pcs.push(pc);
        }
        if let Some(profile) = &mut self.profile {
            if let Some(count) = profile.histogram.get(pc as usize) {
                // Not an atomic addition: nobody else counts.
                count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
            }
            if profile.period > 0 {
                profile.countdown = profile.countdown.saturating_sub(1);
                if profile.countdown == 0 {
                    profile.countdown = profile.period;
                    let limit = profile.limit;
                    self.sample(store, limit);
                }
            }
        }
        if self.marks.get(pc as usize).is_some_and(|marks| marks & ACCESS != 0) {
            let access = self.firmware.instructions().access_at(pc).copied();
            if let Some(access) = access {
                self.before_access(store, &access);
            }
        }
    }

    fn sample(&mut self, store: &mut StoreContextMut<'_, ()>, limit: usize) {
        let frames = call_stack(store);
        if self.samples.len() + 1 + 2 * frames.len() > limit {
            return;
        }
        self.samples.push(frames.len() as u32);
        self.samples.extend(frames.into_iter().flat_map(|(function, pc)| [function, pc]));
    }

    fn before_access(&mut self, store: &mut StoreContextMut<'_, ()>, access: &Access) {
        let Some(frame) = store.debug_exit_frames().next() else { return };
        let operands = frame.num_stacks(&mut *store).unwrap_or(0);
        let mut operand = |below: u32| match operands.checked_sub(below + 1).map(|at| frame.stack(&mut *store, at)) {
            Some(Ok(Val::I32(number))) => Some(u64::from(number as u32)),
            _ => None,
        };
        let pc = access.pc;
        // What is read, and what is written: address and bytes.
        let (read, written) = match access.form {
            Form::Load(place) => (operand(place.above).map(|at| (at + place.offset, place.bytes)), None),
            Form::Store(place) => (None, operand(place.above).map(|at| (at + place.offset, place.bytes))),
            Form::Copy => (operand(1).zip(operand(0)), operand(2).zip(operand(0))),
            Form::Fill => (None, operand(2).zip(operand(0))),
        };
        let is_bulk = matches!(access.form, Form::Copy | Form::Fill);
        if is_bulk && self.bulk_frames.is_empty() {
            let reaches = |(at, bytes): (u64, u64)| {
                self.guard.ranges().iter().any(|range| at < range.end as u64 && at + bytes > range.start as u64)
            };
            if read.is_some_and(reaches) || written.is_some_and(reaches) {
                self.bulk_frames = self.fault_frames(store);
            }
        }
        let mut watched = false;
        for (touched, write) in [(read, false), (written, true)] {
            if let Some((address, bytes)) = touched {
                watched |= self.watches.expect(&self.view, Touch { pc, write, address, bytes });
            }
        }
        if watched {
            self.toggle_breakpoint(store, access.next, true);
            self.behind_access = Some(access.next);
        }
    }

    fn toggle_breakpoint(&self, store: &mut StoreContextMut<'_, ()>, pc: u32, on: bool) {
        let Some(mut edit) = store.as_context_mut().edit_breakpoints() else { return };
        let (module, pc) = (&self.firmware.module, ModulePC::new(pc));
        // Refused for a module of another engine only.
        let _ = if on { edit.add_breakpoint(module, pc) } else { edit.remove_breakpoint(module, pc) };
    }

    /// The call stack as a fault has it: callers at the instruction that calls.
    fn fault_frames(&self, store: &mut StoreContextMut<'_, ()>) -> Vec<Frame> {
        let frames = call_stack(store).into_iter().enumerate().map(|(depth, (function_index, pc))| {
            let call = self.firmware.instructions().call_before(pc).filter(|_| depth > 0);
            let function_name = self.firmware.function_name(function_index);
            Frame { function_index, function_name, pc: Some(call.unwrap_or(pc)) }
        });
        frames.collect()
    }
}

/// The handler: a reference to the session.
#[derive(Clone)]
pub struct Desk(Arc<Mutex<Session>>);

impl Desk {
    /// A handler for this session.
    pub fn new(session: Session) -> Self {
        Self(Arc::new(Mutex::new(session)))
    }

    /// The session. Not to be held while the firmware runs.
    pub fn session(&self) -> MutexGuard<'_, Session> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DebugHandler for Desk {
    type Data = ();

    fn handle(&self, mut store: StoreContextMut<'_, ()>, event: DebugEvent<'_>) -> impl Future<Output = ()> + Send {
        let trap = match event {
            DebugEvent::Breakpoint | DebugEvent::EpochYield => None,
            DebugEvent::Trap(trap) => Some(describe(trap).0),
            DebugEvent::HostcallError(error) => {
                Some(error.downcast_ref().map_or("internal", |trap: &wasmtime::Trap| describe(*trap).0))
            }
            DebugEvent::Exception(_) => Some("internal"),
        };
        let desk = self.clone();
        async move {
            let stopped = desk.session().arrive(&mut store, trap);
            if !stopped {
                return;
            }
            loop {
                let next = std::future::poll_fn(|_| match desk.session().order.take() {
                    Some(order) => Poll::Ready(order),
                    None => Poll::Pending,
                });
                match next.await {
                    Order::Resume => break,
                    Order::Work(work) => work(store.as_context_mut()),
                }
            }
            if trap.is_none() {
                desk.session().depart(&mut store);
            }
        }
    }
}
