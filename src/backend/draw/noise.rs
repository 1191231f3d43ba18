//! Counter-based noise: Philox4x32-10 (Salmon et al. 2011) and what becomes of its words.

// Lanes are written as plain counted loops: that is the form which the compiler turns into vectors.
#![allow(clippy::needless_range_loop)]

use super::Draw;

/// Four words of each of N counters.
#[inline(always)]
pub fn philox<const N: usize>(mut counters: [[u32; N]; 4], mut key: [u32; 2]) -> [[u32; N]; 4] {
    for _ in 0..10 {
        for i in 0..N {
            let [a, b] = [u64::from(counters[0][i]) * 0xD251_1F53, u64::from(counters[2][i]) * 0xCD9E_8D57];
            counters[0][i] = (b >> 32) as u32 ^ counters[1][i] ^ key[0];
            counters[1][i] = b as u32;
            counters[2][i] = (a >> 32) as u32 ^ counters[3][i] ^ key[1];
            counters[3][i] = a as u32;
        }
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counters
}

/// Words of the tokens from 4 · `group` on, in the order of their ids [N][4].
#[inline(always)]
pub fn words<const N: usize>(draw: &Draw, group: u32) -> [[u32; 4]; N] {
    let [low, high, step, row, stream] = draw.words();
    let groups = std::array::from_fn(|i| group + i as u32);
    let words = philox([groups, [step; N], [row; N], [stream; N]], [low, high]);
    std::array::from_fn(|i| [words[0][i], words[1][i], words[2][i], words[3][i]])
}

/// Uniform in (0, 1), finest near 0.
#[inline(always)]
pub fn uniform(word: u32) -> f32 {
    const SMALLEST_BELOW_1: f32 = 1.0 - 1.0 / (1 << 24) as f32;
    ((word as f32 + 0.5) * (1.0 / (1u64 << 32) as f32)).min(SMALLEST_BELOW_1)
}

/// Gumbel noise −ln(−ln(1 − t)) of a uniform t, from −2.81 to 22.87: fine-grained at the upper end, where winners are.
pub fn gumbel(word: u32) -> f32 {
    -(-(-uniform(word)).ln_1p()).ln()
}

/// Noise of one token.
pub fn of_token(draw: &Draw, id: u32) -> f32 {
    gumbel(words::<1>(draw, id / 4)[0][id as usize % 4])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random123's known answers, and those of counters side by side.
    #[test]
    fn known_answers_of_philox() {
        let all = u32::MAX;
        let cases = [
            ([0; 4], [0; 2], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
            ([all; 4], [all; 2], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
            (
                [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
                [0xa4093822, 0x299f31d0],
                [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox(counter.map(|c| [c]), key).map(|[word]| word), expected);
            assert_eq!(philox(counter.map(|c| [c, 7, c]), key).map(|[_, _, word]| word), expected);
        }
    }

    #[test]
    fn tokens_have_the_words_of_their_counters() {
        let draw = Draw { temperature: 1.0, seed: 0x299f31d0_a4093822, step: 3, row: 5, stream: 9, ..Draw::GREEDY };
        let words = words::<4>(&draw, 6);
        for id in 24..40u32 {
            let counter = [[id / 4], [3], [5], [9]];
            let expected = philox(counter, [0xa4093822, 0x299f31d0])[id as usize % 4][0];
            assert_eq!(words[id as usize / 4 - 6][id as usize % 4], expected, "{id}");
            assert_eq!(of_token(&draw, id), gumbel(expected));
        }
    }

    #[test]
    fn noise_spans_what_it_says_and_is_that_of_f64() {
        assert_eq!((uniform(0), uniform(u32::MAX)), (0.5 / 2f32.powi(32), 1.0 - 2f32.powi(-24)));
        assert!((gumbel(0) - 22.873).abs() < 1e-3 && (gumbel(u32::MAX) + 2.811).abs() < 1e-3);
        for i in 0..100_000u32 {
            let word = i.wrapping_mul(2_654_435_761);
            let exact = -(-(-f64::from(uniform(word))).ln_1p()).ln();
            assert!((f64::from(gumbel(word)) - exact).abs() < 2f64.powi(-19) + 2f64.powi(-22), "{word}");
        }
    }
}
