//! Stops firmware that does not return, by the clock.
//!
//! One thread looks at all slices that run, [`LOOKS_PER_SECOND`] times a second and while there is a CPU to watch. It costs a
//! slice two stores. A slice that has used up its time loses the page in which its leash is held (leash.rs). Where a host
//! function touches that page before the firmware does, it gets it back, as it cannot be stopped; so it is taken again and again,
//! [`BITES_PER_SECOND`] times, until the firmware is the first.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use crate::memory::Page;

const LOOKS_PER_SECOND: u32 = 20;
const BITES_PER_SECOND: u32 = 5000;

/// What a CPU is stopped by that counts no fuel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimit {
    /// Processor time of one call: a machine that is busy with something else, or asleep, is no reason to stop.
    pub most: Duration,
    /// Address of the byte that the firmware stores 0 to wherever it passes by. In a page that it has all to itself, the
    /// devices apart.
    pub leash: u32,
}

/// The slices of one CPU, as the watchdog sees them.
pub struct Beat {
    /// The limit that was agreed.
    pub limit: TimeLimit,
    /// Odd while a slice runs, and another number for each.
    count: AtomicU64,
    bitten: AtomicBool,
    /// Where the page of the leash is in this process; `None` once the memory may be gone.
    page: Mutex<Option<Page>>,
    clock: clock::OfThread,
}

impl Beat {
    /// Has the slices of this thread watched whose leash is in `page`.
    pub fn watched(limit: TimeLimit, page: Page) -> Arc<Self> {
        let beat = Arc::new(Self {
            limit,
            count: AtomicU64::new(0),
            bitten: AtomicBool::new(false),
            page: Mutex::new(Some(page)),
            clock: clock::OfThread::new(),
        });
        KENNEL.watch(&beat);
        beat
    }

    /// A slice begins. The one before may have ended in a panic of the engine, without a word.
    #[inline]
    pub fn begin(&self) {
        self.count.store((self.count.load(Ordering::Relaxed) + 1) | 1, Ordering::Release);
    }

    /// It has ended.
    #[inline]
    pub fn end(&self) {
        self.count.store(self.count.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// The page was taken away since [`Beat::forgive`]. While no slice runs that is an old story: the slice ended at that moment, or
    /// another CPU has reset the firmware since.
    #[inline]
    pub fn is_bitten(&self) -> bool {
        self.bitten.load(Ordering::Relaxed)
    }

    /// The slice that has just trapped did so because its time was up. Waits for a watchdog that is about to say so.
    pub fn was_bitten(&self) -> bool {
        let _page = self.page();
        self.is_bitten()
    }

    /// Gives the page back.
    pub fn forgive(&self) -> rustix::io::Result<()> {
        let page = self.page();
        match page.as_ref().filter(|_| self.bitten.swap(false, Ordering::Relaxed)) {
            // SAFETY: `retire` has not said that the view is gone.
            Some(page) => unsafe { page.give() },
            None => Ok(()),
        }
    }

    /// The memory is about to go.
    pub fn retire(&self) {
        self.page().take();
    }

    /// Takes the page away, if slice number `count` still runs.
    fn bite(&self, count: u64) {
        let page = self.page();
        let Some(page) = page.as_ref().filter(|_| self.count.load(Ordering::Acquire) == count) else { return };
        // SAFETY: `retire` has not said that the view is gone.
        let taken = unsafe { page.take() };
        self.bitten.store(taken.is_ok(), Ordering::Relaxed);
    }

    fn page(&self) -> MutexGuard<'_, Option<Page>> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the watchdog knows of one CPU.
struct Watched {
    beat: Weak<Beat>,
    /// The slice that ran when it last looked.
    count: u64,
    /// Reading of the clock when it first saw that slice.
    since: Duration,
}

struct Kennel {
    watched: Mutex<Vec<Watched>>,
    /// There is somebody to watch.
    work: Condvar,
}

static KENNEL: Kennel = Kennel { watched: Mutex::new(Vec::new()), work: Condvar::new() };

impl Kennel {
    fn watch(&'static self, beat: &Arc<Beat>) {
        static STARTED: AtomicBool = AtomicBool::new(false);
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.push(Watched { beat: Arc::downgrade(beat), count: 0, since: Duration::ZERO });
        self.work.notify_one();
        if !STARTED.swap(true, Ordering::Relaxed) {
            let patrol = thread::Builder::new().name("inic-watchdog".into()).spawn(|| self.patrol());
            STARTED.store(patrol.is_ok(), Ordering::Relaxed);
        }
    }

    fn patrol(&self) {
        loop {
            let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            while watched.is_empty() {
                watched = self.work.wait(watched).unwrap_or_else(PoisonError::into_inner);
            }
            let mut rate = LOOKS_PER_SECOND;
            watched.retain_mut(|one| match one.look() {
                Seen::Gone => false,
                Seen::InTime => true,
                Seen::Overdue => {
                    rate = BITES_PER_SECOND;
                    true
                }
            });
            drop(watched);
            thread::sleep(Duration::from_secs(1) / rate);
        }
    }
}

impl Watched {
    /// Looks, and bites a slice that is overdue.
    fn look(&mut self) -> Seen {
        let Some(beat) = self.beat.upgrade() else { return Seen::Gone };
        let count = beat.count.load(Ordering::Acquire);
        if count % 2 == 0 {
            self.count = count;
            return Seen::InTime;
        }
        let Some(now) = beat.clock.now() else { return Seen::InTime };
        if count != self.count {
            (self.count, self.since) = (count, now);
        } else if now.saturating_sub(self.since) >= beat.limit.most {
            beat.bite(count);
            return Seen::Overdue;
        }
        Seen::InTime
    }
}

/// What a look saw.
enum Seen {
    /// The CPU is gone.
    Gone,
    /// No slice, or one that may still run.
    InTime,
    Overdue,
}

/// Processor time of a thread, asked for by another one.
#[cfg(target_os = "linux")]
mod clock {
    use std::time::Duration;

    pub struct OfThread(libc::clockid_t);

    impl OfThread {
        pub fn new() -> Self {
            let mut id = libc::CLOCK_MONOTONIC;
            // SAFETY: this thread is alive; a failure leaves the wall's clock, which will do.
            unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &mut id) };
            Self(id)
        }

        /// `None` once the thread is gone.
        pub fn now(&self) -> Option<Duration> {
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: `time` is there to be written; the kernel refuses the clock of a thread that is gone.
            let read = unsafe { libc::clock_gettime(self.0, &mut time) };
            (read == 0).then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
        }
    }
}

/// Elsewhere the time that passes.
#[cfg(not(target_os = "linux"))]
mod clock {
    use std::time::{Duration, Instant};

    pub struct OfThread(Instant);

    impl OfThread {
        pub fn new() -> Self {
            Self(Instant::now())
        }

        pub fn now(&self) -> Option<Duration> {
            Some(self.0.elapsed())
        }
    }
}
