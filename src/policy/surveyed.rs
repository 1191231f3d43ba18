//! Scores that were found by looking at the whole lane at once.

use super::key::{Choice, Key};
use super::part::{LaneView, LayerView, Moment, Scorer, Scores};

/// What is known about one layer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    /// Original positions that were scored, ascending [kv heads][n].
    pub positions: Vec<Vec<u32>>,
    /// [kv heads][n]
    pub scores: Scores,
}

pub static SHARE: Key<Choice<Share>> = Key::new(
    "share",
    "who competes for the budget",
    Choice(&[("all", Share::All), ("layer", Share::Layer)]),
    Share::All,
);

/// Who competes for the budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Share {
    /// The heads of all layers.
    All,
    /// The heads of each layer.
    Layer,
}

impl Share {
    /// Each kv head says itself how many it keeps, `mean` on average, rounded up together.
    pub fn divide(self, layers: &mut [Option<Known>], mean: f64) {
        let heads = |known: &Option<Known>| known.as_ref().map_or(0, |known| known.positions.len());
        let together = |layers: &mut [Option<Known>]| {
            let total = mean * layers.iter().map(heads).sum::<usize>() as f64;
            compete(layers, total.ceil() as usize);
        };
        match self {
            Self::All => together(layers),
            Self::Layer => layers.iter_mut().for_each(|known| together(std::slice::from_mut(known))),
        }
    }
}

impl Known {
    /// Positions below `count` stay.
    pub fn keep_first(&mut self, count: usize) {
        for (forced, held) in self.scores.forced.iter_mut().zip(&self.positions) {
            let first = held.partition_point(|&p| (p as usize) < count);
            forced[..first].fill(true);
        }
    }
}

/// Rates entries by what is known about their positions; others lowest.
pub struct Surveyed {
    /// `None` where a layer is left alone.
    pub layers: Vec<Option<Known>>,
}

impl Scorer for Surveyed {
    fn score(&self, at: Moment, _budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let known = self.layers.get(at.layer)?.as_ref()?;
        let mut scores = Scores { own: known.scores.own.clone(), ..Scores::default() };
        for (kv_head, all) in known.positions.iter().enumerate() {
            let place = |p: &u32| all.binary_search(p).ok();
            let held = view.positions(kv_head);
            let value = |p| place(p).map_or(f32::NEG_INFINITY, |at| known.scores.values[kv_head][at]);
            scores.values.push(held.iter().map(value).collect());
            let forced = |p| place(p).is_some_and(|at| known.scores.forced[kv_head][at]);
            scores.forced.push(held.iter().map(forced).collect());
        }
        Some(scores)
    }
}

/// Positions held by every kv head of every layer that policies act on.
pub fn held(lane: &dyn LaneView, layers: usize) -> Vec<Option<Known>> {
    let one = |layer| {
        let mut known = None;
        lane.layer(layer, &mut |view| {
            let positions: Vec<Vec<u32>> = (0..view.kv_heads()).map(|g| view.positions(g).to_vec()).collect();
            let scores = Scores::free(positions.iter().map(|held| vec![0.0; held.len()]).collect());
            known = Some(Known { positions, scores });
        });
        known
    };
    (0..layers).map(one).collect()
}

/// Divides `total` entries over all layers and kv heads: the best of each head stays, then those with the highest
/// scores, forced ones first. Each kv head then says itself how many it keeps.
pub fn compete(layers: &mut [Option<Known>], total: usize) {
    let mut all: Vec<(bool, f32, u32, usize, usize)> = Vec::new();
    for (layer, known) in layers.iter().enumerate() {
        for (head, known) in known.iter().flat_map(|k| k.scores.values.iter().zip(&k.scores.forced)).enumerate() {
            let cells = known.0.iter().zip(known.1).zip(0..);
            all.extend(cells.map(|((&score, &forced), slot)| (forced, score, slot, layer, head)));
        }
    }
    // forced before free, then by score, then the newer, then the later layer
    all.sort_unstable_by(|a, b| (b.0.cmp(&a.0)).then(b.1.total_cmp(&a.1)).then(b.2.cmp(&a.2)).then(b.3.cmp(&a.3)));
    let mut own: Vec<Vec<usize>> =
        layers.iter().map(|known| vec![0; known.as_ref().map_or(0, |k| k.positions.len())]).collect();
    let heads: usize = own.iter().map(Vec::len).sum();
    let mut free = total.saturating_sub(heads);
    for (.., layer, head) in all {
        let own = &mut own[layer][head];
        if *own > 0 && free > 0 {
            free -= 1;
            *own += 1;
        }
        *own = (*own).max(1);
    }
    for (known, own) in layers.iter_mut().zip(own) {
        if let Some(known) = known {
            known.scores.own = Some(own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{moment, toy};

    #[test]
    fn heads_of_all_layers_compete() {
        let layer = |values: Vec<f32>, forced: &[usize]| {
            let positions = vec![(0..values.len() as u32).collect()];
            let mut scores = Scores::free(vec![values]);
            forced.iter().for_each(|&slot| scores.forced[0][slot] = true);
            Some(Known { positions, scores })
        };
        let mut layers = [layer(vec![0.1, 0.9, 0.2], &[0]), None, layer(vec![0.8, 0.7, 0.0], &[])];
        compete(&mut layers, 4);
        let own = |layer: &Option<Known>| layer.as_ref().and_then(|k| k.scores.own.clone());
        assert_eq!((own(&layers[0]), own(&layers[1]), own(&layers[2])), (Some(vec![2]), None, Some(vec![2])));
        compete(&mut layers, 2);
        assert_eq!((own(&layers[0]), own(&layers[2])), (Some(vec![1]), Some(vec![1])));
    }

    #[test]
    fn a_head_that_loses_everywhere_takes_no_more_than_its_best_from_the_others() {
        let (positions, values) = (vec![vec![0, 1, 2]; 2], vec![vec![0.3, 0.2, 0.1], vec![0.9, 0.8, 0.7]]);
        let mut layers = [Some(Known { positions, scores: Scores::free(values) })];
        compete(&mut layers, 3);
        assert_eq!(layers[0].as_ref().and_then(|known| known.scores.own.clone()), Some(vec![1, 2]));
    }

    #[test]
    fn scores_follow_the_positions() {
        let mut layers = held(&toy().alone(), 1);
        let known = layers[0].as_mut().unwrap();
        known.scores.values[0] = vec![5.0, 4.0, 3.0, 2.0, 1.0, 0.0];
        known.scores.forced[0][3] = true;
        let mut view = toy();
        view.held = vec![vec![1, 3, 5]];
        let scores = Surveyed { layers }.score(moment(6, 0), 2, &view).unwrap();
        assert_eq!((scores.values, scores.forced), (vec![vec![4.0, 2.0, 0.0]], vec![vec![false, true, false]]));
    }
}
