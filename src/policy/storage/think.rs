//! ThinK: thinner keys (Xu et al. 2024, arXiv 2407.21018).
//!
//! Once, after the prompt: channel c of a kv head scores mean(q_c²) · mean(k_c²), the first mean over the last 32 queries
//! of all heads of the group, the second over the held keys, both after rope; the ⌊λ·D⌋ lowest channels leave the keys
//! (ties: the higher channel leaves). Queries lose the same channels, which is what reading them as 0 does. The
//! `recent` newest keys and those of generated tokens keep all channels, as in the authors' code, which runs it after
//! SnapKV (`snapkv@50%+think`). kvpress' ThinKPress is `recent=0`; its "ratio" counts keys and values and is λ/2.

use linkme::distributed_slice;

use super::super::descriptor::{Descriptor, Family, Paper};
use super::super::key::{Count, Key, Real};
use super::super::part::{LayerView, Moment, Part};
use super::{Storage, held};
use crate::cache::{Code, Pack, Packing};
use crate::policy::registry::REGISTERED;

static RATIO: Key<Real> = Key::new("ratio", "share of the key channels that leave", Real(0.0, 1.0), 0.4);
static WINDOW: Key<Count> = Key::new("window", "last prompt queries that score channels", Count(1, 1_000_000), 32);
static RECENT: Key<Count> =
    Key::new("recent", "newest keys of the prompt that keep all channels", Count(0, 1_000_000), 32);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "think",
    family: Family::Channels,
    idea: "key channels that the last queries make little of leave",
    paper: Some(Paper { title: "ThinK: Thinner Key Cache by Query-Driven Pruning", arxiv: "2407.21018" }),
    budget: None,
    keys: &[&RATIO, &WINDOW, &RECENT],
    build: |spec| {
        let (window, recent) = (spec.get(&WINDOW) as usize, spec.get(&RECENT) as usize);
        Part::storage(Think { ratio: spec.get(&RATIO), window, recent })
    },
};

struct Think {
    ratio: f64,
    window: usize,
    recent: usize,
}

impl Storage for Think {
    fn pack(&self, at: Moment, _packed: &[(usize, usize)], view: &dyn LayerView) -> Vec<Packing> {
        if at.step > 0 {
            return Vec::new();
        }
        let one = |(kv_head, n): (usize, usize)| Packing {
            keys: Some(Pack { to: n.saturating_sub(self.recent), code: Code::Thin(self.channels(kv_head, view)) }),
            values: None,
            salient: Vec::new(),
            again: false,
        };
        held(view).enumerate().map(one).collect()
    }

    fn acts_in_decode(&self) -> bool {
        false
    }

    fn window(&self, prompt: usize) -> usize {
        self.window.min(prompt)
    }
}

impl Think {
    /// Channels that stay, ascending.
    fn channels(&self, kv_head: usize, view: &dyn LayerView) -> Vec<u32> {
        let (dim, end) = (view.head_dim(), view.newest() + 1);
        let squares = |x: &[f32]| {
            let mut mean = vec![0.0f32; dim];
            x.chunks_exact(dim).for_each(|row| mean.iter_mut().zip(row).for_each(|(m, x)| *m += x * x));
            mean.iter_mut().for_each(|m| *m /= (x.len() / dim).max(1) as f32);
            mean
        };
        let rows = end - (self.window as u32).min(end)..end;
        let heads = kv_head * view.group()..(kv_head + 1) * view.group();
        let queries: Vec<f32> = heads.flat_map(|head| view.queries(head, rows.clone())).collect();
        let score: Vec<f32> = squares(&queries).iter().zip(squares(&view.keys(kv_head))).map(|(q, k)| q * k).collect();
        let mut channels: Vec<u32> = (0..dim as u32).collect();
        channels.sort_by(|&a, &b| score[b as usize].total_cmp(&score[a as usize]));
        channels.truncate(dim - (dim as f64 * self.ratio) as usize);
        channels.sort_unstable();
        channels
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{moment, toy};

    /// Mean squares of the last two queries of both heads and of all keys.
    #[test]
    fn channels_of_the_toy() {
        let layer = toy();
        // Q⁰ rows 4, 5: 1 0 1 0 and 0 1 0 2; Q¹ reversed: 0 1 0 1 and 2 0 1 0
        let queries = [5.0 / 4.0, 2.0 / 4.0, 2.0 / 4.0, 5.0 / 4.0];
        // columns of K: 1 .5 .3 — .5 1 .1 — 2 .2 — 1 .4
        let keys = [1.34 / 6.0, 1.26 / 6.0, 4.04 / 6.0, 1.16 / 6.0];
        let score: Vec<f64> = queries.iter().zip(keys).map(|(q, k)| q * k).collect();
        assert!(score[1] < score[3] && score[3] < score[0] && score[0] < score[2]);
        for (ratio, left) in [(0.0, vec![0, 1, 2, 3]), (0.25, vec![0, 2, 3]), (0.5, vec![0, 2]), (0.99, vec![2])] {
            let think = Think { ratio, window: 2, recent: 2 };
            let packing = think.pack(moment(6, 0), &[(0, 0)], &layer).remove(0);
            assert_eq!((packing.keys, packing.values), (Some(Pack { to: 4, code: Code::Thin(left) }), None));
        }
        assert!(Think { ratio: 0.5, window: 2, recent: 0 }.pack(moment(6, 1), &[(6, 0)], &layer).is_empty());
    }
}
