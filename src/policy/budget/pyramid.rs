//! PyramidKV: lower layers get more (Cai et al. 2024, arXiv 2406.02069).
//!
//! n entries per kv head on average, T prompt tokens, w of them forced by the scorer (SnapKV's window), L layers:
//! the last layer gets n/β and the first 2n − n/β, but no more than T − w (then the last gets 2n less that); layer l
//! lies on the line between them, rounded. kvpress' formula: w counts inside. Where the last layer would get less
//! than w, every layer gets n, rounded: with w = 64 that is usual on short prompts, and the policy is the plain
//! scorer then.
//!
//! β = 20. The authors' code excludes the window from these budgets and divides whole numbers. As in kvpress, l and L
//! count every layer of the model, those with a sliding window of their own too, so that on such models the mean
//! over the layers that do evict is not n.

use linkme::distributed_slice;

use crate::policy::descriptor::{Descriptor, Family, Paper};
use crate::policy::key::{Count, Key};
use crate::policy::part::{Allocator, Divide, Level, Part, Scores};
use crate::policy::registry::REGISTERED;
use crate::policy::spec::PartSpec;

static BETA: Key<Count> =
    Key::new("beta", "how steep: the last layer gets 1/beta of an even budget", Count(1, 1000), 20);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "pyramid",
    family: Family::Budget,
    idea: "lower layers keep more, in a straight line from first to last",
    paper: Some(Paper {
        title: "PyramidKV: Dynamic KV Cache Compression based on Pyramidal Information Funneling",
        arxiv: "2406.02069",
    }),
    budget: None,
    keys: &[&BETA],
    build: |spec: &PartSpec| Part::allocator(Pyramid { beta: spec.get(&BETA) as f64 }),
};

struct Pyramid {
    beta: f64,
}

impl Allocator for Pyramid {
    fn level(&self) -> Level {
        Level::Layers
    }

    fn allocate(&self, ask: Divide<'_>, scores: &mut [Option<Scores>], budgets: &mut [Vec<usize>]) {
        let forced = scores.iter().flatten().flat_map(|scores| &scores.forced);
        let forced = forced.map(|forced| forced.iter().filter(|&&forced| forced).count()).max().unwrap_or(0);
        for (layer, budgets) in budgets.iter_mut().enumerate() {
            budgets.fill(self.layer(ask.mean, ask.at.prompt, forced, layer, ask.at.layers));
        }
    }
}

impl Pyramid {
    /// Budget of layer `layer` of `layers`.
    fn layer(&self, mean: f64, prompt: usize, forced: usize, layer: usize, layers: usize) -> usize {
        let (prompt, forced) = (prompt as f64, forced as f64);
        let mut last = mean / self.beta;
        let mut first = mean * 2.0 - last;
        if first >= prompt - forced {
            first = prompt - forced;
            last = mean * 2.0 - first;
        }
        let budget = match prompt >= first && first >= last && last >= forced {
            true => first - layer as f64 * (first - last) / (layers.max(2) - 1) as f64,
            false => mean,
        };
        (budget.round_ties_even() as usize).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(prompt: usize, kept: f64, window: usize, layers: usize) -> Vec<usize> {
        let pyramid = Pyramid { beta: 20.0 };
        (0..layers).map(|layer| pyramid.layer(prompt as f64 * kept, prompt, window, layer, layers)).collect()
    }

    #[test]
    fn kvpress_numbers() {
        assert_eq!(layers(2000, 0.5, 64, 4), [1936, 1312, 688, 64]);
        assert_eq!(layers(4000, 0.5, 64, 4), [3900, 2633, 1367, 100]);
        assert_eq!(layers(1000, 0.25, 64, 4), [250; 4]);
        assert_eq!(layers(1000, 0.25, 8, 4), [488, 329, 171, 12]);
        // its runs on SmolLM2 (30 layers): prompts of 166 and 671 tokens
        assert_eq!(layers(166, 0.5, 16, 30)[..9], [150, 145, 141, 136, 132, 127, 122, 118, 113]);
        assert_eq!(layers(671, 0.75, 64, 30)[..9], [607, 600, 593, 586, 578, 571, 564, 557, 550]);
        assert_eq!(layers(671, 0.25, 64, 30), [168; 30]);
        // Gemma 3: the full-attention layers among 18
        assert_eq!([5, 11, 17].map(|l| layers(464, 0.75, 64, 18)[l]), [369, 333, 296]);
    }

    #[test]
    fn one_layer_and_tiny_prompts() {
        assert_eq!(layers(2000, 0.5, 0, 1), [1950]);
        assert!(layers(3, 0.4, 3, 4).iter().all(|&n| n == 1));
    }
}
