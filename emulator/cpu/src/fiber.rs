//! A call into the firmware on a fiber of its own, polled by hand.
//!
//! At a stop the engine awaits our handler, whose future stays pending: the poll returns, the fiber hangs in mid-call. The
//! Store is borrowed all that time, so a request that needs it, such as for the frames, is handed to the handler as a
//! closure, and one more poll runs it. All of this is on one thread, and no JavaScript runs within.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use wasmtime::{AsContextMut, Store, StoreContextMut};

use crate::desk::{Desk, Order, Work};
use crate::error::{Code, Result};

/// A Store, and the call that it runs. The call's future holds the Store while we hold it too, never both at work.
pub struct Fiber {
    store: *mut Store<()>,
    /// The call under way. Borrows the Store: goes first.
    call: Option<Pin<Box<dyn Future<Output = wasmtime::Result<f64>>>>>,
    /// What happens at a stop.
    pub desk: Desk,
}

impl Fiber {
    /// Of a Store without a call.
    pub fn new(mut store: Store<()>, desk: Desk) -> Self {
        store.set_debug_handler(desk.clone());
        Self { store: Box::into_raw(Box::new(store)), call: None, desk }
    }

    /// Begins a call; [`Fiber::advance`] runs it.
    pub fn begin<F>(&mut self, call: impl FnOnce(&'static mut Store<()>) -> F)
    where
        F: Future<Output = wasmtime::Result<f64>> + 'static,
    {
        debug_assert!(self.call.is_none());
        // SAFETY: the Store lives until `self` is dropped, which drops the future first; while the future exists the
        // Store is reached through it only.
        self.call = Some(Box::pin(call(unsafe { &mut *self.store })));
    }

    /// A call is under way: it is stopped.
    pub fn is_busy(&self) -> bool {
        self.call.is_some()
    }

    /// Runs the call until it ends or stops. `None`: it has stopped.
    pub fn advance(&mut self) -> Option<wasmtime::Result<f64>> {
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
    pub fn with_store<R: Send + 'static>(
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
    pub fn abandon(&mut self) {
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

impl Drop for Fiber {
    fn drop(&mut self) {
        self.abandon();
        // SAFETY: made in `new`, and the only borrower is gone.
        drop(unsafe { Box::from_raw(self.store) });
    }
}
