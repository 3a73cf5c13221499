//! A Linux TAP interface: the kernel's own network stack as the other end of a link.
//!
//! JavaScript reads and writes frames without blocking. A thread waits for the interface to become readable, calls
//! JavaScript once, and does not look again until a read has found nothing left: a reader that falls behind is not
//! called, and frames then pile up in the kernel's queue, which drops what does not fit, as a network card would.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use napi::Env;
use napi::bindgen_prelude::{Function, Unknown};
use napi::threadsafe_function::ThreadsafeFunctionCallMode;
use napi_derive::napi;
use tun_rs::{DeviceBuilder, InterruptEvent, Layer, SyncDevice};

use crate::error::{Code, Error, Result};
use crate::raw::{self, Call};

/// `TapOptions` of tap.ts.
#[napi(object)]
pub struct TapOptions {
    /// Largest payload of a frame in bytes; as it is if absent.
    pub mtu: Option<u16>,
    /// Address and prefix length given to the kernel's end; none if absent.
    pub address: Option<String>,
    /// Brings the interface up or down; as it is if absent.
    pub up: Option<bool>,
}

/// What the waiting thread and JavaScript tell each other.
#[derive(Default)]
struct Watch {
    state: Mutex<WatchState>,
    changed: Condvar,
}

#[derive(Default)]
struct WatchState {
    /// JavaScript was called and has not yet read everything.
    reading: bool,
    closed: bool,
}

impl Watch {
    fn state(&self) -> MutexGuard<'_, WatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything was read: look for more.
    fn drained(&self) {
        let mut state = self.state();
        if state.reading {
            state.reading = false;
            self.changed.notify_one();
        }
    }

    /// Waits until there is reason to look. False: closed.
    fn wait(&self) -> bool {
        let state = self.state();
        let waiting = |state: &mut WatchState| state.reading && !state.closed;
        let state = self.changed.wait_while(state, waiting).unwrap_or_else(PoisonError::into_inner);
        !state.closed
    }
}

struct Core {
    /// `None` once closed: the functions given to JavaScript keep the rest, but must not keep the interface.
    device: RefCell<Option<Arc<SyncDevice>>>,
    watch: Arc<Watch>,
    interrupt: Arc<InterruptEvent>,
    thread: RefCell<Option<JoinHandle<()>>>,
}

impl Core {
    /// Reads a frame into argument 0 at argument 1: its length; 0 for none; a negative errno.
    fn read(&self, call: &Call) -> f64 {
        // SAFETY: the slice does not leave this function.
        let Some(room) = unsafe { call.bytes(0) }.and_then(|bytes| bytes.get_mut(call.u32(1) as usize..)) else {
            return failure(libc::EINVAL);
        };
        let Some(device) = &*self.device.borrow() else {
            return failure(libc::EBADF);
        };
        match device.recv(room) {
            Ok(length) => length as f64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.watch.drained();
                0.0
            }
            Err(error) => failure(error.raw_os_error().unwrap_or(libc::EIO)),
        }
    }

    /// Writes the frame of argument 2 bytes in argument 0 at argument 1: 1; 0 if the queue is full; a negative errno.
    fn write(&self, call: &Call) -> f64 {
        let (start, length) = (call.u32(1) as usize, call.u32(2) as usize);
        // SAFETY: the slice does not leave this function.
        let bytes = unsafe { call.bytes(0) };
        let Some(frame) = bytes.and_then(|bytes| bytes.get(start..start.checked_add(length)?)) else {
            return failure(libc::EINVAL);
        };
        let Some(device) = &*self.device.borrow() else {
            return failure(libc::EBADF);
        };
        match device.send(frame) {
            Ok(_) => 1.0,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0.0,
            Err(error) => failure(error.raw_os_error().unwrap_or(libc::EIO)),
        }
    }

    fn close(&self) {
        self.device.take();
        self.watch.state().closed = true;
        self.watch.changed.notify_one();
        // Nothing to be done if it fails; it has no reason to, its pipe being empty.
        let _ = self.interrupt.trigger();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.close();
    }
}

fn failure(errno: i32) -> f64 {
    -f64::from(errno)
}

/// A TAP interface as the addon exports it. `openTap` of tap.ts wraps it.
#[napi]
pub struct TapDevice {
    core: Rc<Core>,
}

#[napi]
impl TapDevice {
    /// Opens the interface `name`, or creates it. `on_readable` is called when there are frames, and again only after a
    /// read has returned 0. Throws with the code of the system call, EPERM for one.
    #[napi(constructor, catch_unwind)]
    pub fn new(name: String, options: TapOptions, on_readable: Function<'_, (), ()>) -> Result<Self> {
        let device = open(&name, &options).map_err(|cause| os_error(&name, &cause))?;
        let device = Arc::new(device);
        let watch = Arc::new(Watch::default());
        let interrupt = InterruptEvent::new().map_err(|cause| os_error(&name, &cause))?;
        let interrupt = Arc::new(interrupt);
        let notify = on_readable
            .build_threadsafe_function::<()>()
            .build()
            .map_err(|cause| Code::Internal.napi("no function for another thread", &cause))?;

        let (its_device, its_watch, its_interrupt) = (device.clone(), watch.clone(), interrupt.clone());
        let wait_and_notify = move || {
            while its_watch.wait() && its_device.wait_readable_intr(&its_interrupt).is_ok() {
                its_watch.state().reading = true;
                if notify.call((), ThreadsafeFunctionCallMode::NonBlocking) != napi::Status::Ok {
                    break; // The environment is going.
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("tap {name}")).spawn(wait_and_notify);
        let thread = RefCell::new(Some(thread.map_err(|cause| os_error(&name, &cause))?));
        let core = Core { device: RefCell::new(Some(device)), watch, interrupt, thread };
        Ok(Self { core: Rc::new(core) })
    }

    fn ask<T>(&self, question: impl FnOnce(&SyncDevice) -> io::Result<T>) -> Result<T> {
        let device = self.core.device.borrow();
        let device = device.as_ref().ok_or_else(|| Error::new("EBADF".into(), "the TAP interface is closed"))?;
        question(device).map_err(|cause| os_error("TAP interface", &cause))
    }

    /// `(frame: Uint8Array, offset) => length`, 0 for no frame, or a negative errno.
    #[napi(catch_unwind)]
    pub fn read_function(&self, env: &Env) -> Result<Unknown<'static>> {
        raw::bind(env, c"read", &self.core, 2, |core, call| Some(core.read(call)))
    }

    /// `(frame: Uint8Array, offset, length) => 1`, 0 if the queue is full, or a negative errno.
    #[napi(catch_unwind)]
    pub fn write_function(&self, env: &Env) -> Result<Unknown<'static>> {
        raw::bind(env, c"write", &self.core, 3, |core, call| Some(core.write(call)))
    }

    /// The interface's name.
    #[napi(catch_unwind)]
    pub fn name(&self) -> Result<String> {
        self.ask(|device| device.name())
    }

    /// Largest payload of a frame in bytes.
    #[napi(catch_unwind)]
    pub fn mtu(&self) -> Result<u16> {
        self.ask(|device| device.mtu())
    }

    /// Ends the thread and lets go of the interface.
    #[napi(catch_unwind)]
    pub fn close(&self) {
        self.core.close();
    }
}

fn open(name: &str, options: &TapOptions) -> io::Result<SyncDevice> {
    let mut builder = DeviceBuilder::new().name(name).layer(Layer::L2).packet_information(false).inherit_enable_state();
    if let Some(mtu) = options.mtu {
        builder = builder.mtu(mtu);
    }
    if let Some(up) = options.up {
        builder = builder.enable(up);
    }
    if let Some(address) = &options.address {
        let invalid = || io::Error::new(ErrorKind::InvalidInput, format!("{address} is no address with prefix length"));
        let (ip, prefix) = address.split_once('/').ok_or_else(invalid)?;
        let prefix: u8 = prefix.parse().map_err(|_| invalid())?;
        builder = match ip.parse().map_err(|_| invalid())? {
            IpAddr::V4(ip) => builder.ipv4(ip, prefix, None),
            IpAddr::V6(ip) => builder.ipv6(ip, prefix),
        };
    }
    let device = builder.build_sync()?;
    device.set_nonblocking(true)?;
    Ok(device)
}

fn os_error(name: &str, cause: &io::Error) -> Error {
    let (code, advice) = match cause.raw_os_error() {
        Some(libc::EPERM) => ("EPERM", ": a TAP interface needs root or CAP_NET_ADMIN"),
        Some(libc::EACCES) => ("EACCES", ": a TAP interface needs read and write access to /dev/net/tun"),
        Some(libc::EBUSY) => ("EBUSY", ": another process has it open"),
        Some(libc::ENOENT) => ("ENOENT", ": this kernel has no /dev/net/tun"),
        Some(libc::ENODEV) => ("ENODEV", ""),
        Some(libc::EINVAL) => ("EINVAL", ": is it a TAP interface?"),
        Some(libc::EMFILE) => ("EMFILE", ""),
        Some(_) => ("EIO", ""),
        None => ("ERR_INVALID_ARG_VALUE", ""),
    };
    Error::new(code.into(), format!("{name}: {cause}{advice}"))
}
