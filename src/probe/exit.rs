//! The logit lens against the last layer: what could be said before all layers have run.
//!
//! p_l = softmax(head(norm(h_l))) after l layers; p_L is what the model says.

use super::distribution::{Distribution, kl};

/// What one layer knows of the token that the last layer finds most probable.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Foresight {
    pub best: u32,
    /// Probability of the layer's own best token.
    pub confidence: f32,
    /// Probability of the last layer's best token, and its rank (1 = the layer's best; equals share the better one).
    pub token_prob: f32,
    pub token_rank: u32,
    /// Nats.
    pub entropy: f32,
    /// KL(p_L ‖ p_l), nats.
    pub kl: f32,
}

impl Foresight {
    /// From a layer's logits and the last layer's, both [V].
    pub fn of(layer: &[f32], last: &[f32]) -> Self {
        let (here, token) = (Distribution::of(layer), Distribution::of(last).argmax);
        let logit = layer.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
        Self {
            best: here.argmax,
            confidence: (here.max - here.lse).exp(),
            token_prob: (logit - here.lse).exp(),
            token_rank: 1 + layer.iter().filter(|&&other| other > logit).count() as u32,
            entropy: here.entropy,
            kl: kl(last, layer),
        }
    }
}

/// The first place from which on all agree with the last: with the best tokens after 0, 1, …, L layers, how many layers
/// had to run. 0 where there are none.
pub fn exit_depth(best: &[u32]) -> usize {
    let agreeing = best.iter().rev().take_while(|&id| Some(id) == best.last()).count();
    best.len() - agreeing
}

/// The first depth from `from` on whose confidence reaches `least`, where a model would leave that cannot see the later
/// ones; L where none does. `seen`: after 0, 1, …, L layers.
pub fn confident_exit(seen: &[Foresight], from: usize, least: f32) -> usize {
    let last = seen.len().saturating_sub(1);
    (from..last).find(|&depth| seen[depth].confidence >= least).unwrap_or(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_may_be_said_once_all_later_layers_say_it() {
        assert_eq!(exit_depth(&[7, 3, 5, 3, 3]), 3);
        assert_eq!(exit_depth(&[3, 3, 3]), 0);
        assert_eq!(exit_depth(&[3, 3, 4]), 2);
        assert_eq!(exit_depth(&[]), 0);
    }

    #[test]
    fn the_last_layer_knows_itself() {
        let last = [0.5f32, 2.0, -1.0, 2.0];
        let known = Foresight::of(&last, &last);
        assert_eq!((known.best, known.token_rank, known.kl), (1, 1, 0.0));
        assert_eq!(known.token_prob, known.confidence);
        // ln of [1, 2, 4, 1] / 8 for a layer that prefers another token
        let layer = [0.0, 2f32.ln(), 4f32.ln(), 0.0];
        let earlier = Foresight::of(&layer, &last);
        assert_eq!((earlier.best, earlier.token_rank), (2, 2));
        assert!((earlier.confidence - 0.5).abs() < 1e-6 && (earlier.token_prob - 0.25).abs() < 1e-6);
        let entropy = 0.5 * 2f32.ln() + 0.25 * 4f32.ln() + 0.25 * 8f32.ln();
        assert!((earlier.entropy - entropy).abs() < 1e-5 && earlier.kl > 0.1);
    }

    #[test]
    fn who_leaves_when_sure_may_leave_too_early() {
        let last = [3.0f32, 0.0];
        let seen = [[0.0f32, 0.1], [0.0, 3.0], [3.0, 0.0]].map(|layer| Foresight::of(&layer, &last));
        assert_eq!(confident_exit(&seen, 0, 0.9), 1);
        assert_ne!(seen[1].best, seen[2].best);
        assert_eq!(confident_exit(&seen, 0, 0.999), 2);
        assert_eq!([0, 1, 2, 3].map(|from| confident_exit(&seen, from, 0.0)), [0, 1, 2, 2]);
    }
}
