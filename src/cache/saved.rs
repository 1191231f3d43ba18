//! Going back to an earlier state.

use super::{HeadCache, Strand};

/// What brings a cache back to an earlier state: a length where nothing was evicted or packed since, else a copy.
#[derive(Clone)]
pub enum Saved {
    Length { slots: usize, received: Vec<Vec<f32>>, row: Vec<Vec<f32>> },
    Copy(Box<HeadCache>),
}

impl Saved {
    /// The copy, where a length was not enough.
    pub fn copy(&self) -> Option<&HeadCache> {
        match self {
            Saved::Length { .. } => None,
            Saved::Copy(head) => Some(head),
        }
    }

    pub fn bytes(&self) -> u64 {
        match self {
            Saved::Length { slots, received, .. } => (slots * received.len() * 8) as u64,
            Saved::Copy(head) => head.allocated_bytes(),
        }
    }
}

impl HeadCache {
    /// `append_only`: nothing will be evicted or packed before `restore`, so the length is enough.
    pub fn save(&self, append_only: bool) -> Saved {
        if append_only {
            let cut = |sums: &[Strand]| sums.iter().map(|s| s[..self.len()].to_vec()).collect();
            Saved::Length { slots: self.len(), received: cut(&self.received), row: cut(&self.row) }
        } else {
            Saved::Copy(Box::new(self.clone()))
        }
    }

    pub fn restore(&mut self, saved: &Saved) {
        match saved {
            Saved::Copy(copy) => *self = (**copy).clone(),
            Saved::Length { slots, received, row } => {
                self.truncate(*slots);
                for g in 0..received.len() {
                    self.received[g][..*slots].copy_from_slice(&received[g]);
                    self.row[g][..*slots].copy_from_slice(&row[g]);
                }
            }
        }
    }
}
