//! Policies that evict nothing and read only a part of the cache in every step.
//!
//! Scores of all entries are computed all the same: this is an instrument, and what share of the dense attention the
//! entries read would have had is a thing to know. What counts as read is what the policy asks for; memory is not
//! reduced, and what a reader keeps to choose by adds to it.

use std::ops::Range;

use super::part::LaneView;

/// What a reader starts with, after the prompt.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Entries that a query head may read of a layer; `None`: all.
    pub budget: Option<usize>,
    pub layers: usize,
    pub kv_heads: usize,
    /// Query heads of a kv head.
    pub group: usize,
    pub head_dim: usize,
}

/// A policy that reads a part.
pub trait Reader: Send + Sync {
    /// What reads for each kv head [kv heads], from the first step after the prompt on.
    fn start(&self, setting: Setting, lane: &dyn LaneView) -> Vec<Box<dyn HeadReader>>;
    /// Queries at the end of a prompt of `prompt` tokens that it starts with, or whose rows.
    fn window(&self, _prompt: usize) -> usize {
        0
    }
}

/// Reads for one kv head: sees layer after layer of a step, step after step. All it remembers is in it, so that a copy
/// goes on as the original would.
pub trait HeadReader: Send + Sync {
    /// What is read of the layer in sight.
    fn read(&mut self, sight: &Sight<'_>) -> Choice;
    /// The attention that came of it [group][n], 0 where nothing was read.
    fn learn(&mut self, _sight: &Sight<'_>, _rows: &[&[f32]]) {}
    /// Bytes held beside the cache to choose by.
    fn metadata(&self) -> u64 {
        0
    }
    /// Bytes that a copy takes.
    fn bytes(&self) -> u64 {
        0
    }
    fn copy(&self) -> Box<dyn HeadReader>;
}

/// One kv head of one layer in one step. Slots are the entries held, ascending by position, the query's own the last.
pub struct Sight<'a> {
    pub layer: usize,
    /// Position of the query in the text.
    pub position: u32,
    /// After rope [group, D].
    pub queries: &'a [f32],
    /// Original positions of the slots [n].
    pub positions: &'a [u32],
    /// What each query head would give every slot if it read all [group][n].
    pub dense: &'a [Vec<f32>],
    /// Bytes of the key and the value of one entry.
    pub entry: u64,
    /// Keys of some slots after rope [slots, D].
    pub keys: &'a dyn Fn(Range<usize>) -> Vec<f32>,
}

/// What a kv head reads.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Choice {
    /// Of each query head [group]; `None`: all.
    pub heads: Option<Vec<Picked>>,
    /// Bytes read to choose by.
    pub metadata: u64,
}

/// What a query head reads.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Picked {
    /// Ascending and unique. Where there is none, the query reads its own.
    pub slots: Vec<u32>,
    /// Added to the logits, nats [slots]; empty where nothing is.
    pub offsets: Vec<f32>,
}

impl Choice {
    pub fn all() -> Self {
        Self::default()
    }

    /// These slots of each query head, at the price of reading `metadata` bytes.
    pub fn slots(heads: impl IntoIterator<Item = Vec<u32>>, metadata: u64) -> Self {
        let heads = heads.into_iter().map(|slots| Picked { slots, offsets: Vec::new() });
        Self { heads: Some(heads.collect()), metadata }
    }
}

/// What was read of one kv head of one layer in the newest step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeadReads {
    /// Entries that some query head of the group read, and those that there are.
    pub entries: u32,
    pub held: u32,
    /// Bytes of the keys and values of one entry, and bytes read to choose by.
    pub entry: u64,
    pub metadata: u64,
    /// Share of each query head's dense attention that falls on what it read [group].
    pub covered: Vec<f32>,
}

/// What reads for all kv heads of a lane.
#[derive(Default)]
pub struct Readers(pub Vec<Follower>);

/// What reads for one kv head, and what it read of each layer in the newest step (empty where it did not come by yet).
pub struct Follower {
    pub reader: Box<dyn HeadReader>,
    /// [layers]
    pub log: Vec<HeadReads>,
}

impl Readers {
    pub fn new(heads: Vec<Box<dyn HeadReader>>, layers: usize) -> Self {
        Self(heads.into_iter().map(|reader| Follower { reader, log: vec![HeadReads::default(); layers] }).collect())
    }

    /// Before a step.
    pub fn clear_log(&mut self) {
        self.0.iter_mut().flat_map(|head| &mut head.log).for_each(|log| *log = HeadReads::default());
    }

    /// Bytes held beside the cache to choose by.
    pub fn metadata(&self) -> u64 {
        self.0.iter().map(|head| head.reader.metadata()).sum()
    }

    /// Bytes that a copy takes.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|head| head.reader.bytes()).sum()
    }
}

impl Clone for Readers {
    fn clone(&self) -> Self {
        Self(self.0.iter().map(|head| Follower { reader: head.reader.copy(), log: head.log.clone() }).collect())
    }
}
