//! The run as it stands at the end of a trace: steps that were gone back over are left out.

use super::reader::{Entry, Trace};
use super::record::Prompt;

/// The last prompt and its frames.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standing {
    pub prompt: Option<Prompt>,
    /// (step, entry of the trace), ascending steps.
    pub frames: Vec<(u32, usize)>,
}

impl Standing {
    pub fn of(trace: &Trace) -> Self {
        let mut standing = Self::default();
        trace.entries.iter().enumerate().for_each(|(index, entry)| standing.follow(index, entry));
        standing
    }

    /// What entry `index` leaves.
    pub fn follow(&mut self, index: usize, entry: &Entry) {
        match entry {
            Entry::Prompt(ids) => *self = Self { prompt: Some(ids.clone()), frames: Vec::new() },
            Entry::Frame(step) => {
                let from = self.frames.partition_point(|(s, _)| s < step);
                self.frames.truncate(from);
                self.frames.push((*step, index));
            }
            Entry::Rewound(step) => self.frames.truncate(self.frames.partition_point(|(s, _)| s <= step)),
            Entry::Forked(_) => {}
        }
    }
}
