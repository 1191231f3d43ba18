//! FlashSampling (arXiv 2603.15854): a token is drawn as the winner of logits and Gumbel noise, argmax z / T + g, which
//! is an exact sample of softmax(z / T) and needs no second look at the logits. The reference of kernels/sampling.cu.

mod filter;
mod kernel;
mod noise;
mod row;

pub use kernel::KernelRow;
pub use noise::{gumbel, philox};

/// Best candidates that a draw brings along: as many as the kernel keeps.
pub const CANDIDATES: usize = 32;

/// What one row is drawn with. The noise of token `id` is one word of Philox4x32-10: key = seed, counter = (id / 4, step,
/// row, stream), word id % 4. Nothing else moves it: no tile, thread, or row beside it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    /// 0: the largest logit, no noise and no filters.
    pub temperature: f32,
    pub seed: u64,
    pub step: u32,
    pub row: u32,
    pub stream: u32,
    /// Only the k largest; 0: all.
    pub top_k: u32,
    /// Of those, only the fewest that hold this probability; 1: all.
    pub top_p: f32,
    /// Of those, only the ones at least so probable as a share of the most probable; 0: all.
    pub min_p: f32,
}

/// What is left of a row of logits z [V] after a draw; x = z / temperature, or z where that is 0. −∞ and what is no number
/// is masked.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    /// `None` where all tokens are masked.
    pub winner: Option<u32>,
    /// What would have been drawn without the winner; `None` where nothing else survives.
    pub runner_up: Option<u32>,
    /// x + g of both; −∞ where there is none.
    pub scores: [f32; 2],
    /// The difference of the scores, nats; ∞ without a runner-up.
    pub margin: f32,
    /// The largest x.
    pub max: f32,
    /// ln Σ eˣ over all tokens, nats.
    pub lse: f32,
    /// Of softmax(x) over all tokens, nats; NaN where all are masked.
    pub entropy: f32,
    /// The largest logits, best first, the smaller id of equals first.
    pub candidates: Vec<Candidate>,
    /// Tokens that are left to draw from; V without filters.
    pub survivors: u32,
    /// False where the candidates do not tell what the filters leave: then the row has to be drawn from again, as a whole.
    pub exact: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    pub id: u32,
    pub z: f32,
    /// Probability after temperature and filters: what was drawn from.
    pub p: f32,
}

impl Draw {
    /// The row that the largest logit is taken of.
    pub const GREEDY: Self =
        Self { temperature: 0.0, seed: 0, step: 0, row: 0, stream: 0, top_k: 0, top_p: 1.0, min_p: 0.0 };

    pub fn greedy(&self) -> bool {
        self.temperature <= 0.0
    }

    /// Some tokens may be cut before the draw.
    pub fn filters(&self) -> bool {
        !self.greedy() && (self.top_k > 0 || self.top_p < 1.0 || self.min_p > 0.0)
    }

    /// What logits are divided by.
    pub fn heat(&self) -> f32 {
        if self.greedy() { 1.0 } else { self.temperature }
    }

    /// As the kernels take it: seed (low, high), step, row, stream.
    pub fn words(&self) -> [u32; 5] {
        [self.seed as u32, (self.seed >> 32) as u32, self.step, self.row, self.stream]
    }
}

/// Two devices that draw from the same logits may disagree about a winner of this score only where its margin is smaller.
///
/// 2^-16 for scores up to 64. Each of two scores is x + g: g is up to 22.87, its two logarithms within one unit in the last
/// place, 2^-19 and, of the inner one, 2^-23; the sum is rounded by at most 2^-19; together below 2^-18. Two scores on two
/// devices are off by four times that. Larger scores have larger last places. Logits that differ by δ themselves add
/// 2 δ / temperature.
pub fn doubt(score: f32) -> f32 {
    const UP_TO_64: f32 = 1.0 / 65536.0;
    UP_TO_64 * (score.abs() / 64.0).max(1.0)
}
