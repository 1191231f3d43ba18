//! ZigZagKV: layers that look at much keep much (Zhong et al. 2024, arXiv 2412.09036).
//!
//! Budgets are proportional to how spread out a layer's attention is, mean over its query heads and the last `window`
//! prompt queries (after a step: the newest). `by=entropy`: −Σ a ln a of a row, nats, as proposed to kvpress.
//! `by=count`: the least number of entries that hold `mass` of a row, which is the paper's idea of a layer's uncertainty
//! (read from a summary: its exact constants are not confirmed). What a layer cannot hold goes to the others.

use linkme::distributed_slice;

use super::{acting, divide};
use crate::policy::descriptor::{Descriptor, Family, Paper};
use crate::policy::key::{Auto, Choice, Count, Key, Real};
use crate::policy::part::{Allocator, Divide, LayerView, Level, Part, Scores};
use crate::policy::registry::REGISTERED;
use crate::policy::snapkv::{AUTO, voters};
use crate::policy::spec::PartSpec;

static BY: Key<Choice<By>> =
    Key::new("by", "how spread is measured", Choice(&[("entropy", By::Entropy), ("count", By::Count)]), By::Entropy);
static MASS: Key<Real> = Key::new("mass", "part of a row that `count` has to hold", Real(0.0, 1.0), 0.9);
static WINDOW: Key<Auto<Count>> =
    Key::new("window", "last prompt queries that are measured", Auto(Count(1, 1_000_000), AUTO), None);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "zigzag",
    family: Family::Budget,
    idea: "layers keep in proportion to how spread out their attention is",
    paper: Some(Paper {
        title: "ZigZagkv: Dynamic KV Cache Compression for Long-context Modeling based on Layer Uncertainty",
        arxiv: "2412.09036",
    }),
    budget: None,
    keys: &[&BY, &MASS, &WINDOW],
    build: |spec: &PartSpec| {
        Part::allocator(ZigZag {
            by: spec.get(&BY),
            mass: spec.get(&MASS) as f32,
            window: spec.get(&WINDOW).map(|w| w as usize),
        })
    },
};

#[derive(Clone, Copy, PartialEq)]
enum By {
    Entropy,
    Count,
}

struct ZigZag {
    by: By,
    mass: f32,
    window: Option<usize>,
}

impl Allocator for ZigZag {
    fn level(&self) -> Level {
        Level::Layers
    }

    fn window(&self, prompt: usize) -> usize {
        voters(self.window, prompt)
    }

    fn allocate(&self, ask: Divide<'_>, scores: &mut [Option<Scores>], budgets: &mut [Vec<usize>]) {
        let rows = if ask.at.step == 0 { self.window(ask.at.prompt) } else { 1 };
        let weight = |layer: usize| {
            let mut spread = 0.0;
            ask.lane.layer(layer, &mut |view| spread = self.spread(view, rows as u32));
            // a layer that looks at one entry only has an entropy of 0, and still gets its first
            spread.max(1e-3)
        };
        let weights: Vec<f64> = acting(budgets).map(weight).collect();
        divide(&weights, scores, budgets);
    }
}

impl ZigZag {
    fn spread(&self, view: &dyn LayerView, rows: u32) -> f64 {
        let (heads, end) = (view.kv_heads() * view.group(), view.newest() + 1);
        let of_head = |head: usize| {
            let n = view.positions(head / view.group()).len().max(1);
            let all = view.rows(head, end.saturating_sub(rows)..end);
            let sum: f64 = all.chunks_exact(n).map(|row| self.of_row(row)).sum();
            sum / (all.len() / n).max(1) as f64
        };
        (0..heads).map(of_head).sum::<f64>() / heads as f64
    }

    fn of_row(&self, row: &[f32]) -> f64 {
        match self.by {
            By::Entropy => row.iter().filter(|&&a| a > 0.0).map(|&a| -(a as f64) * (a as f64).ln()).sum(),
            By::Count => {
                let mut sorted = row.to_vec();
                sorted.sort_by(|a, b| b.total_cmp(a));
                let mut held = 0.0;
                let enough = sorted.iter().position(|a| {
                    held += a;
                    held >= self.mass
                });
                enough.map_or(row.len(), |last| last + 1) as f64
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::policy::part::Moment;
    use crate::policy::testing::{Lane, Layer, moment};

    fn spread(by: By, mass: f32, row: &[f32]) -> f64 {
        ZigZag { by, mass, window: None }.of_row(row)
    }

    #[test]
    fn rows_are_measured() {
        assert!((spread(By::Entropy, 0.9, &[0.5, 0.0, 0.25, 0.25]) - 1.5 * 2f64.ln()).abs() < 1e-9);
        assert_eq!(
            [0.5, 0.6, 0.8, 1.0].map(|mass| spread(By::Count, mass, &[0.25, 0.0, 0.5, 0.25])),
            [1.0, 2.0, 3.0, 3.0]
        );
    }

    /// Last rows over eight entries: all alike, two alike, one. Entropies 3, 1 and 0 times ln 2.
    #[test]
    fn layers_keep_in_proportion() {
        let layer = |seen: usize| {
            let row =
                |i: usize| (0..8).map(move |t| if t <= i && t < seen { 1.0 / seen.min(i + 1) as f32 } else { 0.0 });
            Layer::new(vec![(0..8).flat_map(row).collect()], vec![vec![1.0; 16]], vec![vec![0.0; 16]], 2, 8)
        };
        let layers = [layer(8), layer(2), layer(1)];
        let budgets = |spec: &str| {
            let decisions =
                Policy::parse(spec).unwrap().decide(0, Moment { layers: 3, ..moment(8, 0) }, &Lane(&layers));
            let kept = |d: &Option<crate::policy::Decision>| d.as_ref().map_or(8, |d| d.kept[0].len());
            decisions.iter().map(kept).collect::<Vec<_>>()
        };
        assert_eq!(budgets("zigzag:window=1+knorm@3"), [6, 2, 1]);
        assert_eq!(budgets("zigzag:by=count,mass=1,window=1+knorm@3"), [6, 2, 1]);
        assert_eq!(Policy::parse("zigzag+knorm@3").unwrap().window(300), 64);
    }
}
