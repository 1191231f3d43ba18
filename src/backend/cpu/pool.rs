//! Threads that all walk the same program. An operation is finished when all its items are done, not when all
//! threads have come: a thread that the system took the core from holds up nobody unless it was in the middle of an
//! item. So there is no fork and join per operation, and no collapse when another process wants a core.
//! Waiting is to spin briefly, then yield, then sleep on a futex.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

const SPINS: u32 = 4000;
const YIELDS: u32 = 40;

/// Something that threads wait for.
struct Gate {
    value: AtomicU32,
    sleepers: AtomicU32,
}

impl Gate {
    const fn new() -> Self {
        Self { value: AtomicU32::new(0), sleepers: AtomicU32::new(0) }
    }

    /// Wakes whoever waits; what they wait for has been stored before.
    fn open(&self) {
        self.value.fetch_add(1, SeqCst);
        if self.sleepers.load(SeqCst) > 0 {
            atomic_wait::wake_all(&self.value);
        }
    }

    /// Returns once `ready`.
    fn wait(&self, ready: impl Fn() -> bool) {
        for _ in 0..SPINS {
            if ready() {
                return;
            }
            std::hint::spin_loop();
        }
        for _ in 0..YIELDS {
            if ready() {
                return;
            }
            std::thread::yield_now();
        }
        self.sleepers.fetch_add(1, SeqCst);
        loop {
            let seen = self.value.load(SeqCst);
            if ready() {
                break;
            }
            atomic_wait::wait(&self.value, seen);
        }
        self.sleepers.fetch_sub(1, SeqCst);
    }
}

/// The work of the operations of one program.
pub struct Shares {
    threads: usize,
    /// Per operation: items claimed of each thread's part, then items done.
    counts: Vec<AtomicUsize>,
}

/// The work of one operation.
#[derive(Clone, Copy)]
pub struct Share<'a> {
    claimed: &'a [AtomicUsize],
    done: &'a AtomicUsize,
}

impl Share<'_> {
    pub fn threads(&self) -> usize {
        self.claimed.len()
    }
}

impl Shares {
    pub fn new(operations: usize, threads: usize) -> Self {
        Self { threads, counts: (0..operations * (threads + 1)).map(|_| AtomicUsize::new(0)).collect() }
    }

    #[inline(always)]
    pub fn of(&self, operation: usize) -> Share<'_> {
        let counts = &self.counts[operation * (self.threads + 1)..][..self.threads + 1];
        Share { claimed: &counts[..self.threads], done: &counts[self.threads] }
    }
}

struct Shared {
    threads: usize,
    /// Number of the program; odd while one runs.
    round: AtomicUsize,
    program: AtomicPtr<&'static (dyn Fn(Worker<'_>) + Sync)>,
    /// Threads inside the program.
    inside: AtomicUsize,
    /// The program is given up: a panic or an interruption.
    stop: AtomicBool,
    quit: AtomicBool,
    start: Gate,
    progress: Gate,
    left: Gate,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// One thread's place in a running program.
#[derive(Clone, Copy)]
pub struct Worker<'a> {
    pub id: usize,
    shared: &'a Shared,
}

impl Worker<'_> {
    pub fn stopped(&self) -> bool {
        self.shared.stop.load(Relaxed)
    }

    /// Gives the program up: every thread leaves at its next wait.
    pub fn stop(&self) {
        self.shared.stop.store(true, SeqCst);
        self.shared.progress.open();
    }

    /// Hands out `0..n` in pieces of `grain` until none is left, then waits until all are done. Each thread begins
    /// with a part of its own, so that what it streams through (and what the CPU fetches ahead) lies side by side,
    /// and helps with the others' when that is done.
    #[inline(always)]
    pub fn spans(&self, share: Share<'_>, n: usize, grain: usize, mut work: impl FnMut(Range<usize>)) {
        let (threads, pieces) = (share.claimed.len(), n.div_ceil(grain));
        for i in 0..threads {
            let owner = (self.id + i) % threads;
            let first = pieces * owner / threads;
            let count = pieces * (owner + 1) / threads - first;
            let claimed = &share.claimed[owner];
            while claimed.load(Relaxed) < count {
                let piece = claimed.fetch_add(1, Relaxed);
                if piece >= count {
                    break;
                }
                let from = (first + piece) * grain;
                let to = (from + grain).min(n);
                work(from..to);
                if share.done.fetch_add(to - from, AcqRel) + to - from == n {
                    self.shared.progress.open();
                }
            }
        }
        if share.done.load(Acquire) < n {
            self.shared.progress.wait(|| share.done.load(Acquire) >= n || self.stopped());
        }
    }

    /// Runs one part of the program; a panic gives the program up and is kept for the caller.
    pub fn guarded(&self, part: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(part)) {
            self.shared.panic.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(panic);
            self.stop();
        }
    }
}

pub struct Pool {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

fn help(shared: &Shared, id: usize) {
    let mut seen = 0;
    loop {
        shared.start.wait(|| shared.round.load(SeqCst) != seen || shared.quit.load(SeqCst));
        if shared.quit.load(SeqCst) {
            return;
        }
        shared.inside.fetch_add(1, SeqCst);
        seen = shared.round.load(SeqCst);
        if seen % 2 == 1 {
            let worker = Worker { id, shared };
            // SAFETY: `run` set the pointer before it made the round odd, and keeps the program alive until the
            // round is even again and nobody is inside.
            let program = unsafe { *shared.program.load(SeqCst) };
            worker.guarded(|| program(worker));
        }
        if shared.inside.fetch_sub(1, SeqCst) == 1 {
            shared.left.open();
        }
    }
}

impl Pool {
    /// `threads` ≥ 1, the caller's own included.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            threads: threads.max(1),
            round: AtomicUsize::new(0),
            program: AtomicPtr::new(std::ptr::null_mut()),
            inside: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            quit: AtomicBool::new(false),
            start: Gate::new(),
            progress: Gate::new(),
            left: Gate::new(),
            panic: Mutex::new(None),
        });
        let mut handles = Vec::new();
        for id in 1..threads.max(1) {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name(format!("attnscope-cpu-{id}"));
            handles.push(thread.spawn(move || help(&shared, id))?);
        }
        Ok(Self { shared, handles })
    }

    pub fn threads(&self) -> usize {
        self.shared.threads
    }

    /// Runs `program` on every thread and returns when all work is done and every thread has left; the first panic
    /// of any thread is the error.
    pub fn run(&mut self, program: &(dyn Fn(Worker<'_>) + Sync)) -> Result<(), String> {
        let shared = &*self.shared;
        // SAFETY: the lifetime is forgotten only until nobody is inside any more, below.
        let mut program: &'static (dyn Fn(Worker<'_>) + Sync) = unsafe { std::mem::transmute(program) };
        shared.program.store(&mut program, SeqCst);
        shared.stop.store(false, SeqCst);
        shared.round.fetch_add(1, SeqCst);
        if !self.handles.is_empty() {
            shared.start.open();
        }
        let worker = Worker { id: 0, shared };
        worker.guarded(|| program(worker));
        shared.round.fetch_add(1, SeqCst);
        shared.left.wait(|| shared.inside.load(SeqCst) == 0);
        match shared.panic.lock().unwrap_or_else(|e| e.into_inner()).take() {
            None => Ok(()),
            Some(panic) => Err(panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()))
                .unwrap_or_else(|| "unknown panic".into())),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.quit.store(true, SeqCst);
        self.shared.start.open();
        for handle in self.handles.drain(..) {
            let _ = handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_done_once_and_before_the_next_operation() {
        let mut pool = Pool::new(3).unwrap();
        for _ in 0..300 {
            let shares = Shares::new(20, 3);
            let cells: Vec<AtomicUsize> = (0..50).map(|_| AtomicUsize::new(0)).collect();
            let wrong = AtomicUsize::new(0);
            pool.run(&|w| {
                for round in 0..20 {
                    w.spans(shares.of(round), cells.len(), 3, |span| {
                        for i in span {
                            // The neighbour was finished in the round before, whoever did it.
                            let neighbour = cells[(i + 7) % cells.len()].load(Relaxed);
                            if neighbour < round || cells[i].fetch_add(1, Relaxed) != round {
                                wrong.fetch_add(1, Relaxed);
                            }
                        }
                    });
                }
            })
            .unwrap();
            assert_eq!(wrong.load(Relaxed), 0);
            assert!(cells.iter().all(|c| c.load(Relaxed) == 20));
        }
    }

    #[test]
    fn a_panic_is_an_error_and_the_pool_lives_on() {
        let mut pool = Pool::new(2).unwrap();
        let shares = Shares::new(2, 2);
        let error = pool.run(&|w| {
            w.spans(shares.of(0), 10, 1, |span| assert!(span.start != 4, "item four fell"));
            w.spans(shares.of(1), 10, 1, |_| {});
        });
        assert!(error.unwrap_err().contains("item four fell"));
        let shares = Shares::new(1, 2);
        let count = AtomicUsize::new(0);
        pool.run(&|w| {
            w.spans(shares.of(0), 5, 2, |span| {
                count.fetch_add(span.len(), Relaxed);
            })
        })
        .unwrap();
        assert_eq!(count.load(Relaxed), 5);
    }
}
