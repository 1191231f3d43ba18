//! How far altered predictions of a text are from unaltered ones.

use serde::Serialize;

use super::distribution::{Distribution, kl};

/// Means over tokens of a text, each predicted from those before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Difference {
    pub tokens: u32,
    /// −ln p of the text, nats: altered, and unaltered.
    pub nll: f32,
    pub nll_before: f32,
    /// KL(unaltered ‖ altered), nats.
    pub kl: f32,
    /// Share of the tokens before which another one is preferred.
    pub flips: f32,
}

/// Adds up rows as they come.
#[derive(Debug, Clone, Default)]
pub struct Differences {
    tokens: u32,
    flips: u32,
    nll: f64,
    nll_before: f64,
    kl: f64,
}

impl Differences {
    /// Logits [V] before `token`, unaltered and altered.
    pub fn add(&mut self, before: &[f32], altered: &[f32], token: u32) {
        let (b, a) = (Distribution::of(before), Distribution::of(altered));
        self.tokens += 1;
        self.flips += (b.argmax != a.argmax || !a.lse.is_finite()) as u32;
        self.nll_before += b.nll(before, token) as f64;
        self.nll += a.nll(altered, token) as f64;
        self.kl += kl(before, altered) as f64;
    }

    pub fn means(&self) -> Difference {
        let mean = |sum: f64| (sum / self.tokens.max(1) as f64) as f32;
        Difference {
            tokens: self.tokens,
            nll: mean(self.nll),
            nll_before: mean(self.nll_before),
            kl: mean(self.kl),
            flips: self.flips as f32 / self.tokens.max(1) as f32,
        }
    }
}

impl Difference {
    /// What the alteration costs, nats a token.
    pub fn cost(&self) -> f32 {
        self.nll - self.nll_before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_no_difference_and_a_swap_is_one() {
        let mut differences = Differences::default();
        let (p, q) = ([2.0f32, 0.0, 0.0], [0.0f32, 2.0, 0.0]);
        differences.add(&p, &p, 0);
        assert_eq!((differences.means().kl, differences.means().flips, differences.means().cost()), (0.0, 0.0, 0.0));
        differences.add(&p, &q, 0);
        let found = differences.means();
        // ln p is 2 higher before: half of that on average
        assert!((found.cost() - 1.0).abs() < 1e-6 && found.flips == 0.5 && found.tokens == 2);
        // Σ p (ln p − ln q) = 2 (p₀ − p₁), over two tokens
        let z = 2f32.exp() + 2.0;
        assert!((found.kl - (2f32.exp() - 1.0) / z).abs() < 1e-6, "{}", found.kl);
    }
}
