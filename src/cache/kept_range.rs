//! Positions that are kept of what grows at its end, within a budget of bytes.

use std::ops::Range;

/// Which positions are kept, and for how many there is memory; the memory itself is the owner's.
pub struct KeptRange {
    /// First position kept and one past the last.
    first: u32,
    end: u32,
    capacity: usize,
    position_bytes: u64,
    budget: u64,
}

/// Memory to be made anew: so many of the oldest positions go, so many find room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    pub drop: usize,
    pub capacity: usize,
}

impl KeptRange {
    /// The first position kept will be `first`.
    pub fn new(first: u32, position_bytes: u64, budget: u64) -> Self {
        Self { first, end: first, capacity: 0, position_bytes, budget }
    }

    pub fn range(&self) -> Range<u32> {
        self.first..self.end
    }

    pub fn first(&self) -> u32 {
        self.first
    }

    /// Of the memory, used or not.
    pub fn bytes(&self) -> u64 {
        self.capacity as u64 * self.position_bytes
    }

    /// Forgets positions from `end` on.
    pub fn truncate(&mut self, end: u32) {
        self.end = self.end.min(end);
        self.first = self.first.min(self.end);
    }

    /// What has to be done before `more` positions follow the newest; where the budget does not allow it, the oldest go.
    pub fn room_for(&self, more: usize) -> Option<Renewal> {
        let held = (self.end - self.first) as usize;
        if held + more <= self.capacity {
            return None;
        }
        let most = ((self.budget / self.position_bytes.max(1)) as usize).max(more);
        // A quarter at once: dropping one by one would move everything at every step.
        let over = held + more > most;
        let drop = if over { (held + more - most).max(most / 4).min(held) } else { 0 };
        let need = held - drop + more;
        Some(Renewal { drop, capacity: (need + (held / 4).clamp(64, 1024)).min(most.max(need)) })
    }

    /// That has been done.
    pub fn renewed(&mut self, Renewal { drop, capacity }: Renewal) {
        self.first += drop as u32;
        self.capacity = capacity;
    }

    /// `more` positions follow the newest.
    pub fn extend(&mut self, more: usize) {
        self.end += more as u32;
    }
}
