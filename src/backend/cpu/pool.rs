//! Threads that all run the same program and meet at barriers: one fork and join per pass, not per operation.
//! A waiting thread spins briefly, then yields, then sleeps on a futex, so nothing collapses when another process
//! wants the core.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering::*};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A number that threads wait on.
struct Gate {
    value: AtomicU32,
    sleepers: AtomicU32,
}

impl Gate {
    const fn new() -> Self {
        Self { value: AtomicU32::new(0), sleepers: AtomicU32::new(0) }
    }

    fn open(&self) {
        self.value.fetch_add(1, SeqCst);
        if self.sleepers.load(SeqCst) > 0 {
            atomic_wait::wake_all(&self.value);
        }
    }

    /// Returns once the value is no longer `seen`.
    fn pass(&self, seen: u32, spins: u32) {
        for _ in 0..spins {
            if self.value.load(Acquire) != seen {
                return;
            }
            std::hint::spin_loop();
        }
        for _ in 0..20 {
            if self.value.load(Acquire) != seen {
                return;
            }
            std::thread::yield_now();
        }
        self.sleepers.fetch_add(1, SeqCst);
        while self.value.load(SeqCst) == seen {
            atomic_wait::wait(&self.value, seen);
        }
        self.sleepers.fetch_sub(1, SeqCst);
    }
}

struct Shared {
    threads: u32,
    /// Opened once per program.
    start: Gate,
    program: AtomicPtr<&'static (dyn Fn(Worker<'_>) + Sync)>,
    quit: AtomicBool,
    arrived: AtomicU32,
    barrier: Gate,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// One thread's place in a running program.
#[derive(Clone, Copy)]
pub struct Worker<'a> {
    pub id: usize,
    pub threads: usize,
    shared: &'a Shared,
}

impl Worker<'_> {
    /// Returns once all threads have come here.
    pub fn barrier(&self) {
        let shared = self.shared;
        let seen = shared.barrier.value.load(Acquire);
        if shared.arrived.fetch_add(1, AcqRel) + 1 == shared.threads {
            shared.arrived.store(0, Relaxed);
            shared.barrier.open();
        } else {
            shared.barrier.pass(seen, 4000);
        }
    }

    /// Runs one part of the program; a panic is kept for the caller so that the other threads still meet it
    /// at the next barrier.
    pub fn guarded(&self, part: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(part)) {
            self.shared.panic.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(panic);
        }
    }
}

pub struct Pool {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

impl Pool {
    /// `threads` ≥ 1, the caller's own included.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            threads: threads.max(1) as u32,
            start: Gate::new(),
            program: AtomicPtr::new(std::ptr::null_mut()),
            quit: AtomicBool::new(false),
            arrived: AtomicU32::new(0),
            barrier: Gate::new(),
            panic: Mutex::new(None),
        });
        let mut handles = Vec::new();
        for id in 1..threads.max(1) {
            let shared = shared.clone();
            let work = move || {
                let mut seen = 0;
                loop {
                    shared.start.pass(seen, 2000);
                    seen = seen.wrapping_add(1);
                    if shared.quit.load(Acquire) {
                        return;
                    }
                    let worker = Worker { id, threads: shared.threads as usize, shared: &shared };
                    // SAFETY: `run` keeps the program alive until every thread has passed the last barrier.
                    let program = unsafe { *shared.program.load(Acquire) };
                    worker.guarded(|| program(worker));
                    worker.barrier();
                }
            };
            handles.push(std::thread::Builder::new().name(format!("attnscope-cpu-{id}")).spawn(work)?);
        }
        Ok(Self { shared, handles })
    }

    pub fn threads(&self) -> usize {
        self.shared.threads as usize
    }

    /// Runs `program` on every thread and returns when all have finished; the first panic of any thread is the error.
    pub fn run(&mut self, program: &(dyn Fn(Worker<'_>) + Sync)) -> Result<(), String> {
        // SAFETY: the lifetime is forgotten only until the barrier below, which every thread passes last.
        let mut program: &'static (dyn Fn(Worker<'_>) + Sync) = unsafe { std::mem::transmute(program) };
        self.shared.program.store(&mut program, Release);
        self.shared.start.open();
        let worker = Worker { id: 0, threads: self.threads(), shared: &self.shared };
        worker.guarded(|| program(worker));
        worker.barrier();
        match self.shared.panic.lock().unwrap_or_else(|e| e.into_inner()).take() {
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
        self.shared.quit.store(true, Release);
        self.shared.start.open();
        for handle in self.handles.drain(..) {
            let _ = handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn every_thread_sees_what_was_written_before_a_barrier() {
        let mut pool = Pool::new(3).unwrap();
        for _ in 0..200 {
            let cells: Vec<AtomicUsize> = (0..3).map(|_| AtomicUsize::new(0)).collect();
            let wrong = AtomicUsize::new(0);
            pool.run(&|w| {
                for round in 1..20 {
                    cells[w.id].store(round, Relaxed);
                    w.barrier();
                    if cells.iter().any(|c| c.load(Relaxed) != round) {
                        wrong.fetch_add(1, Relaxed);
                    }
                    w.barrier();
                }
            })
            .unwrap();
            assert_eq!(wrong.load(Relaxed), 0);
        }
    }

    #[test]
    fn a_panic_is_an_error_and_the_pool_lives_on() {
        let mut pool = Pool::new(2).unwrap();
        let error = pool.run(&|w| {
            w.guarded(|| assert!(w.id != 1, "thread one fell"));
            w.barrier();
        });
        assert!(error.unwrap_err().contains("thread one fell"));
        let count = AtomicUsize::new(0);
        pool.run(&|_| {
            count.fetch_add(1, Relaxed);
        })
        .unwrap();
        assert_eq!(count.load(Relaxed), 2);
    }
}
