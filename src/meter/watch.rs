//! A thread that looks at a card now and then. Nobody waits for it: what it saw last is there with its age, and a call
//! that hangs keeps only the thread.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use super::card::CardSample;
use super::nvml::{Card, Which};

/// Between the begins of two looks.
const EVERY: Duration = Duration::from_millis(500);
/// A look that takes longer is given up at the next call.
const DEADLINE: Duration = Duration::from_millis(400);

/// Looks at a card.
pub trait Look {
    /// `None` where the card did not answer, or no longer `in_time`.
    fn look(&mut self, in_time: &dyn Fn() -> bool) -> Option<CardSample>;
}

#[derive(Default)]
struct Seen {
    /// When the look began.
    last: Option<(Instant, CardSample)>,
    problem: Option<String>,
}

/// Dropping it ends the thread at its next pause.
pub struct CardMeter {
    seen: Arc<Mutex<Seen>>,
    _running: Sender<()>,
}

impl CardMeter {
    /// Watches a card through NVML, which is looked for and started by the thread.
    pub fn start(which: Which) -> std::io::Result<Self> {
        Self::with(move || Card::open(which), EVERY, DEADLINE)
    }

    /// Looks `every` so often, each time until a `deadline`, with what `open` gives; says why where it gives nothing.
    pub fn with<L: Look>(
        open: impl FnOnce() -> Result<L, String> + Send + 'static,
        every: Duration,
        deadline: Duration,
    ) -> std::io::Result<Self> {
        let (running, quit) = bounded::<()>(0);
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let seen_there = seen.clone();
        let put =
            move |change: &dyn Fn(&mut Seen)| change(&mut seen_there.lock().unwrap_or_else(PoisonError::into_inner));
        let work = move || {
            let mut card = match open() {
                Ok(card) => card,
                Err(why) => return put(&|seen| seen.problem = Some(why.clone())),
            };
            loop {
                let began = Instant::now();
                if let Some(sample) = card.look(&|| began.elapsed() <= deadline) {
                    put(&|seen| seen.last = Some((began, sample.clone())));
                }
                let pause = every.saturating_sub(began.elapsed());
                if quit.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
            }
        };
        // Never joined: it may hang in the driver for good.
        Builder::new().name("attnscope-nvml".into()).spawn(work)?;
        Ok(Self { seen, _running: running })
    }

    /// What was seen last, with its age now; `None` before the first time.
    pub fn latest(&self) -> Option<CardSample> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, sample) = seen.last.as_ref()?;
        let age_ms = began.elapsed().as_millis().min(u128::from(u32::MAX)) as u32;
        Some(CardSample { age_ms, ..sample.clone() })
    }

    /// Why there will be nothing to see.
    pub fn problem(&self) -> Option<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).problem.clone()
    }

    /// The first sight of the card, waited for no longer than `limit`.
    pub fn first(&self, limit: Duration) -> Option<CardSample> {
        let start = Instant::now();
        loop {
            let latest = self.latest();
            if latest.is_some() || self.problem().is_some() || start.elapsed() >= limit {
                return latest;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(20);

    /// Answers at once, then hangs for as long as it is told to.
    struct Script {
        looks: u32,
        hang: Duration,
    }

    impl Look for Script {
        fn look(&mut self, in_time: &dyn Fn() -> bool) -> Option<CardSample> {
            self.looks += 1;
            if self.looks > 1 {
                std::thread::sleep(self.hang);
            }
            in_time().then(|| CardSample { busy_percent: Some(self.looks), ..CardSample::default() })
        }
    }

    fn meter(hang: Duration) -> CardMeter {
        CardMeter::with(move || Ok(Script { looks: 0, hang }), SHORT, SHORT).unwrap()
    }

    #[test]
    fn what_hangs_holds_nobody_up_and_ages() {
        let start = Instant::now();
        let meter = meter(LONG);
        let first = meter.first(LONG).expect("the first look");
        std::thread::sleep(4 * SHORT);
        let later = meter.latest().expect("still there");
        assert_eq!((first.busy_percent, later.busy_percent), (Some(1), Some(1)));
        assert!(later.age_ms >= first.age_ms + 4 * SHORT.as_millis() as u32, "{first:?} {later:?}");
        drop(meter);
        assert!(start.elapsed() < LONG / 2);
    }

    #[test]
    fn a_look_beyond_its_deadline_is_given_up() {
        let meter = meter(4 * SHORT);
        meter.first(LONG).expect("the first look");
        std::thread::sleep(12 * SHORT);
        assert_eq!(meter.latest().expect("still there").busy_percent, Some(1));
    }

    #[test]
    fn looks_follow_each_other() {
        let meter = meter(Duration::ZERO);
        let start = Instant::now();
        while meter.latest().is_none_or(|sample| sample.busy_percent < Some(3)) {
            assert!(start.elapsed() < LONG);
            std::thread::sleep(SHORT);
        }
    }

    #[test]
    fn what_cannot_be_opened_says_why() {
        let meter = CardMeter::with(|| Err::<Script, _>("no such card".into()), SHORT, SHORT).unwrap();
        assert_eq!(meter.first(LONG), None);
        assert_eq!(meter.problem().as_deref(), Some("no such card"));
    }
}
