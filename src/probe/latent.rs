//! What caches of other designs would hold for one token of one layer, if their latents had the ranks measured here.
//! Estimates: ranks say what these keys and values need, not what a model converted to such a cache would lose.

use super::spectrum::Spectrum;

/// Bytes per token and layer; lists are for 90, 95 and 99 % of the energy.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct LatentBytes {
    /// Keys and values of all kv heads, as this model caches them: 2·G·D cells.
    pub gqa: u64,
    /// MLA and what converts to it (X-EcoMLA, TransMLA): one latent for keys before rope and values, of their joint rank,
    /// and one rotated key of D/2 channels for all heads.
    pub mla: [u64; 3],
    /// MFA: one key and one value of width C = the larger of both ranks.
    pub mfa: [u64; 3],
    /// MFA with keys that serve as values: C.
    pub mfa_kr: [u64; 3],
}

impl LatentBytes {
    /// `keys` (before rope), `values` and `both` [keys | values]: over all `kv_heads` of `dim` channels together;
    /// `cell`: bytes of one cached number.
    pub fn new(keys: &Spectrum, values: &Spectrum, both: &Spectrum, kv_heads: usize, dim: usize, cell: usize) -> Self {
        let bytes = |cells: usize| (cells * cell) as u64;
        let wide = |i: usize| keys.ranks[i].max(values.ranks[i]);
        Self {
            gqa: bytes(2 * kv_heads * dim),
            mla: both.ranks.map(|rank| bytes(rank + dim / 2)),
            mfa: std::array::from_fn(|i| bytes(2 * wide(i))),
            mfa_kr: std::array::from_fn(|i| bytes(wide(i))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_follow_the_ranks() {
        let ranks = |ranks| Spectrum { singular: Vec::new(), effective_rank: 0.0, ranks };
        let bytes = LatentBytes::new(&ranks([10, 20, 40]), &ranks([30, 31, 32]), &ranks([35, 45, 60]), 3, 64, 2);
        assert_eq!(bytes.gqa, 768);
        assert_eq!((bytes.mla, bytes.mfa, bytes.mfa_kr), ([134, 154, 184], [120, 124, 160], [60, 62, 80]));
    }
}
