//! TidalDecode: picks entries in a few layers, the layers after them read the same (Yang et al. 2024, arXiv 2410.05076).
//!
//! Layers before `select` read everything. Layer `select` does too, and each query head h of it remembers the k
//! positions that its logits favour; head h of the layers that follow reads only those. Layer `correct` reads
//! everything again and picks anew. Steps only, the prompt is read whole. Per query head: what a kv head reads is the
//! union over its group.
//!
//! Defaults: k = 256, select = 2, correct = 9 (the authors' scripts: 9 or 13, by model; 0 picks once). The query's
//! own entry has no right to be read, as in the authors' code; a head with nothing to read reads that. Where evictors
//! or windows leave other entries in a later layer, those of the chosen that are there are read, and where `select` or
//! `correct` is a layer with a window of its own, the next one without picks.

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Count, Key};
use super::part::{LaneView, Part};
use super::reader::{Choice, HeadReader, Reader, Setting, Sight};
use super::registry::REGISTERED;
use super::select::select;

static SELECT: Key<Count> =
    Key::new("select", "layer that picks first; those before it read everything", Count(0, 1024), 2);
static CORRECT: Key<Count> = Key::new("correct", "layer that picks again; 0 for none", Count(0, 1024), 9);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "tidal",
    family: Family::Reader,
    idea: "pick entries in one layer, read the same in those after it",
    paper: Some(Paper {
        title: "TidalDecode: Fast and Accurate LLM Decoding with Position Persistent Sparse Attention",
        arxiv: "2410.05076",
    }),
    budget: Some(Amount::Tokens(256)),
    keys: &[&SELECT, &CORRECT],
    build: |spec| Part::reader(Tidal { select: spec.get(&SELECT) as usize, correct: spec.get(&CORRECT) as usize }),
};

#[derive(Clone, Copy)]
struct Tidal {
    select: usize,
    correct: usize,
}

impl Reader for Tidal {
    fn start(&self, setting: Setting, _lane: &dyn LaneView) -> Vec<Box<dyn HeadReader>> {
        let head = HeadTidal { layers: *self, budget: setting.budget, picked: None };
        (0..setting.kv_heads).map(|_| head.copy()).collect()
    }
}

#[derive(Clone)]
struct HeadTidal {
    layers: Tidal,
    budget: Option<usize>,
    picked: Option<Pick>,
}

/// What a layer picked for those after it, in the step of the query at `position`.
#[derive(Clone)]
struct Pick {
    position: u32,
    layer: usize,
    /// Positions, ascending [group][k].
    kept: Vec<Vec<u32>>,
}

impl HeadTidal {
    /// What to read in `layer`; `None`: it picks.
    fn standing(&self, position: u32, layer: usize) -> Option<&Pick> {
        let pick = self.picked.as_ref().filter(|pick| pick.position == position)?;
        let corrected = pick.layer >= self.layers.correct || layer < self.layers.correct;
        corrected.then_some(pick)
    }
}

impl HeadReader for HeadTidal {
    fn read(&mut self, sight: &Sight<'_>) -> Choice {
        let Some(budget) = self.budget.filter(|_| sight.layer >= self.layers.select) else { return Choice::all() };
        if let Some(pick) = self.standing(sight.position, sight.layer) {
            return Choice::slots(pick.kept.iter().map(|kept| held(sight.positions, kept)), 0);
        }
        let best = |row: &Vec<f32>| {
            let slots = select(row, &vec![false; row.len()], budget);
            slots.into_iter().map(|slot| sight.positions[slot as usize]).collect()
        };
        let kept = sight.dense.iter().map(best).collect();
        self.picked = Some(Pick { position: sight.position, layer: sight.layer, kept });
        Choice::all()
    }

    fn bytes(&self) -> u64 {
        self.picked.iter().flat_map(|pick| &pick.kept).map(|kept| 4 * kept.len() as u64).sum()
    }

    fn copy(&self) -> Box<dyn HeadReader> {
        Box::new(self.clone())
    }
}

/// Slots of those of `wanted` that are among `positions`, both ascending.
pub(super) fn held(positions: &[u32], wanted: &[u32]) -> Vec<u32> {
    let mut wanted = wanted.iter().copied().peekable();
    let mut slots = Vec::with_capacity(wanted.len());
    for (slot, &position) in (0..).zip(positions) {
        while wanted.next_if(|&w| w < position).is_some() {}
        if wanted.next_if_eq(&position).is_some() {
            slots.push(slot);
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::reading::{dense, look, reader};
    use crate::policy::testing::{Layer, random_layer};

    /// The k largest, ascending.
    fn top(row: &[f32], k: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..row.len() as u32).collect();
        order.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]));
        order.truncate(k);
        order.sort();
        order
    }

    fn slots(choice: Choice) -> Vec<Vec<u32>> {
        choice.heads.expect("a part").into_iter().map(|head| head.slots).collect()
    }

    #[test]
    fn layers_read_what_the_last_picking_one_favours() {
        let mut layers: Vec<Layer> = (0..6).map(|seed| random_layer(seed, (1, 2), 4, 40)).collect();
        layers.iter_mut().for_each(|layer| (layer.newest, layer.held) = (36, vec![(0..37).collect()]));
        let mut tidal = reader("tidal@8:select=1,correct=4", &layers[0]);
        for _ in 0..2 {
            layers.iter_mut().for_each(Layer::step);
            let mut picked = Vec::new();
            for (number, layer) in layers.iter().enumerate() {
                let choice = look(layer, number, |sight| tidal.read(sight));
                match number {
                    0 => assert_eq!(choice, Choice::all()),
                    1 | 4 => {
                        assert_eq!(choice, Choice::all());
                        picked = dense(layer).iter().map(|row| top(row, 8)).collect();
                    }
                    _ => assert_eq!(slots(choice), picked, "layer {number}"),
                }
            }
        }
    }

    #[test]
    fn positions_are_reused_where_slots_differ() {
        let layer = random_layer(9, (1, 1), 4, 30);
        let mut tidal = reader("tidal@6:select=0,correct=0", &layer);
        look(&layer, 0, |sight| tidal.read(sight));
        let picked = top(&dense(&layer)[0], 6);
        let mut thinner = layer.clone();
        thinner.held[0].retain(|p| p % 2 == 0);
        let expected: Vec<u32> = picked.iter().filter(|&p| p % 2 == 0).map(|p| p / 2).collect();
        assert_eq!(slots(look(&thinner, 1, |sight| tidal.read(sight))), [expected]);
    }

    #[test]
    fn a_whole_budget_reads_everything_and_a_copy_goes_on_alike() {
        let layer = random_layer(2, (1, 2), 4, 30);
        let mut whole = reader("tidal@100%:select=0", &layer);
        assert_eq!(look(&layer, 3, |sight| whole.read(sight)), Choice::all());
        let mut tidal = reader("tidal@4:select=0", &layer);
        look(&layer, 0, |sight| tidal.read(sight));
        let mut copy = tidal.copy();
        assert_eq!(look(&layer, 1, |sight| copy.read(sight)), look(&layer, 1, |sight| tidal.read(sight)));
    }
}
