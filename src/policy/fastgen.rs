//! FastGen: every head keeps as little as explains its attention (Ge et al. 2023, arXiv 2310.01801).
//!
//! Four sets, each with the one before: special tokens and the first `sinks` positions; punctuation; of the rest the
//! `heavy` part of the prompt with the highest mean attention (received/queries that saw it, mean over the query heads
//! of a kv head); the `local` part of the prompt, newest first. A query head's class is the smallest set that recovers
//! `recovery` of its attention, mean over the last `window` prompt queries (each with the local set that it had), and
//! else "full". A kv head takes the largest class of its query heads. How much is left depends on the prompt.
//!
//! The class stays while decoding: special and punctuation tokens come to stay where their set does; heavy and local
//! sets keep their sizes, and the newest entry is never the one that leaves them. Nothing remembers the class: how many
//! entries of the rest a head holds tells it, since the sets have the same sizes at every step.
//!
//! recovery = 0.9, heavy = local = 30 %, sinks = 4 (paper: 0.85 to 0.95). Authors' code is not public; another
//! implementation (cold-compress) has no sinks and measures over all of the map, which reads every row here too with
//! `window=1000000`. Punctuation: tokens of ASCII punctuation only, spaces aside.

use std::sync::Arc;

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Auto, Choice, Count, Key, OfBudget, Real, every};
use super::part::{LaneView, LayerView, Moment, Part, Schedule, Scorer, Scores, Text, group_mean};
use super::registry::REGISTERED;
use super::select::select;
use super::snapkv::{AUTO, voters};

static RECOVERY: Key<Real> = Key::new("recovery", "attention that a set has to hold", Real(0.0, 1.0), 0.9);
static HEAVY: Key<OfBudget> =
    Key::new("heavy", "most attended entries, a share of the prompt or a number", OfBudget, Amount::percent(30));
static LOCAL: Key<OfBudget> =
    Key::new("local", "newest entries, a share of the prompt or a number", OfBudget, Amount::percent(30));
static SINKS: Key<Count> = Key::new("sinks", "first positions that always stay", Count(1, 1_000_000), 4);
static WINDOW: Key<Auto<Count>> =
    Key::new("window", "last prompt queries whose attention is to be recovered", Auto(Count(1, 1_000_000), AUTO), None);
static EVERY: Key<Choice<Schedule>> = every(Schedule::EveryStep);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "fastgen",
    family: Family::Budget,
    idea: "each head keeps the smallest of a few sets that explains its attention",
    paper: Some(Paper {
        title: "Model Tells You What to Discard: Adaptive KV Cache Compression for LLMs",
        arxiv: "2310.01801",
    }),
    budget: None,
    keys: &[&RECOVERY, &HEAVY, &LOCAL, &SINKS, &WINDOW, &EVERY],
    build: |spec| {
        Part::scorer(FastGen {
            recovery: spec.get(&RECOVERY) as f32,
            heavy: spec.get(&HEAVY),
            local: spec.get(&LOCAL),
            sinks: spec.get(&SINKS) as usize,
            window: spec.get(&WINDOW).map(|w| w as usize),
            schedule: spec.get(&EVERY),
            kinds: Arc::default(),
        })
    },
};

#[derive(Clone)]
struct FastGen {
    recovery: f32,
    heavy: Amount,
    local: Amount,
    sinks: usize,
    window: Option<usize>,
    schedule: Schedule,
    /// Of every token read [positions]
    kinds: Arc<[Kind]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Special,
    Punctuation,
    Other,
}

/// What a head keeps beside special tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Special,
    Punctuation,
    Heavy,
    Local,
    Full,
}

impl Scorer for FastGen {
    fn schedule(&self) -> Schedule {
        self.schedule
    }

    fn window(&self, prompt: usize) -> usize {
        voters(self.window, prompt)
    }

    fn needs_received(&self) -> bool {
        true
    }

    fn surveys(&self) -> bool {
        true
    }

    fn survey(&self, _at: Moment, _mean: f64, lane: &dyn LaneView) -> Option<Arc<dyn Scorer>> {
        let kinds = lane.tokens().iter().map(|&id| kind(lane.text(), id)).collect();
        Some(Arc::new(Self { kinds, ..self.clone() }))
    }

    fn score(&self, at: Moment, _budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let received = group_mean(view, |head| view.received(head).to_vec());
        let mut scores = Scores::free(received);
        let mut own = Vec::new();
        for (kv_head, (values, forced)) in scores.values.iter_mut().zip(&mut scores.forced).enumerate() {
            let positions = view.positions(kv_head);
            for (value, &position) in values.iter_mut().zip(positions) {
                *value /= view.seen().saturating_sub(position).max(1) as f32;
            }
            let head = Head::new(self, at, positions);
            let class = match at.step {
                0 => self.class(at, view, kv_head, &head, values),
                _ => head.held_class(view.newest()),
            };
            let (size, protected) = head.keep(class, at.step > 0);
            own.push(size.max(1));
            *forced = protected;
        }
        Some(Scores { own: Some(own), ..scores })
    }
}

impl FastGen {
    fn kind(&self, position: u32) -> Kind {
        match self.kinds.get(position as usize) {
            _ if (position as usize) < self.sinks => Kind::Special,
            Some(&kind) => kind,
            None => Kind::Other,
        }
    }

    /// The largest that a query head of `kv_head` needs.
    fn class(&self, at: Moment, view: &dyn LayerView, kv_head: usize, head: &Head, values: &[f32]) -> Class {
        let n = values.len();
        let others: Vec<bool> = head.kinds.iter().map(|&kind| kind != Kind::Other).collect();
        let mut heavy = vec![false; n];
        let fixed = others.iter().filter(|&&fixed| fixed).count();
        select(values, &others, fixed + head.heavy).into_iter().for_each(|slot| heavy[slot as usize] = true);
        let end = view.newest() + 1;
        let rows = end.saturating_sub(self.window(at.prompt) as u32)..end;
        let positions = view.positions(kv_head);
        let class = |query_head: usize| {
            let maps = view.rows(query_head, rows.clone());
            let mut mass = [0.0f32; 4];
            for (query, row) in rows.clone().zip(maps.chunks_exact(n.max(1))) {
                let mut local = head.local;
                for slot in (0..positions.partition_point(|&p| p <= query)).rev() {
                    let near = head.kinds[slot] == Kind::Other && local > 0;
                    local -= near as usize;
                    let first = match head.kinds[slot] {
                        Kind::Special => Class::Special,
                        Kind::Punctuation => Class::Punctuation,
                        Kind::Other if heavy[slot] => Class::Heavy,
                        Kind::Other if near => Class::Local,
                        Kind::Other => continue,
                    };
                    mass[first as usize..].iter_mut().for_each(|mass| *mass += row[slot]);
                }
            }
            let enough = |mass: f32| mass / rows.len() as f32 >= self.recovery;
            let classes = [Class::Special, Class::Punctuation, Class::Heavy, Class::Local];
            classes.into_iter().find(|&class| enough(mass[class as usize])).unwrap_or(Class::Full)
        };
        (kv_head * view.group()..(kv_head + 1) * view.group()).map(class).max().unwrap_or(Class::Full)
    }
}

/// What one kv head holds.
struct Head {
    /// [n]
    kinds: Vec<Kind>,
    /// The newest held.
    newest: Option<u32>,
    /// Most entries of the heavy and of the local set.
    heavy: usize,
    local: usize,
}

impl Head {
    fn new(policy: &FastGen, at: Moment, positions: &[u32]) -> Self {
        let kinds = positions.iter().map(|&p| policy.kind(p)).collect();
        let (heavy, local) = (policy.heavy.of(at.prompt), policy.local.of(at.prompt));
        Self { kinds, newest: positions.last().copied(), heavy, local }
    }

    fn count(&self, kind: Kind) -> usize {
        self.kinds.iter().filter(|&&k| k == kind).count()
    }

    /// The class that the sizes of its sets before the entry of `newest` betray.
    fn held_class(&self, newest: u32) -> Class {
        let new = |kind| self.newest == Some(newest) && self.kinds.last() == Some(&kind);
        let before = |kind| self.count(kind) - new(kind) as usize;
        match before(Kind::Other) {
            0 if before(Kind::Punctuation) == 0 => Class::Special,
            0 => Class::Punctuation,
            rest if rest <= self.heavy => Class::Heavy,
            rest if rest <= self.heavy + self.local => Class::Local,
            _ => Class::Full,
        }
    }

    /// How many entries stay, and which of them surely.
    fn keep(&self, class: Class, decoding: bool) -> (usize, Vec<bool>) {
        let (fixed, rest) = match class {
            Class::Special => (Kind::Special, 0),
            Class::Punctuation => (Kind::Punctuation, 0),
            Class::Heavy => (Kind::Punctuation, self.heavy),
            Class::Local => (Kind::Punctuation, self.heavy + self.local),
            Class::Full => return (self.kinds.len(), vec![false; self.kinds.len()]),
        };
        let mut forced: Vec<bool> = self.kinds.iter().map(|&kind| kind <= fixed).collect();
        let size = forced.iter().filter(|&&f| f).count() + rest.min(self.count(Kind::Other));
        // the newest is only scored once others had a chance to look at it
        let newest = match class {
            Class::Local => self.local.max(decoding as usize),
            Class::Heavy => decoding as usize,
            _ => 0,
        };
        let others = (0..forced.len()).rev().filter(|&slot| self.kinds[slot] == Kind::Other);
        others.take(newest.min(rest)).for_each(|slot| forced[slot] = true);
        (size, forced)
    }
}

fn kind(text: &dyn Text, id: u32) -> Kind {
    if text.is_special(id) {
        return Kind::Special;
    }
    let spelled = text.spell(id);
    let bare = spelled.trim();
    match !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_punctuation()) {
        true => Kind::Punctuation,
        false => Kind::Other,
    }
}

#[cfg(test)]
#[path = "fastgen_tests.rs"]
mod tests;
