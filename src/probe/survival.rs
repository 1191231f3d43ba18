//! What is left of a span of the prompt: the share of its positions that each kv head still holds.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::engine::frame::Kept;

/// Of one span in one lane's caches.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Survival {
    /// Share of the span's positions that is held, 0..=1: mean over the layers that may evict and their kv heads.
    pub share: f32,
    /// The least share, and the first layer and kv head that has it.
    pub least: f32,
    pub layer: u32,
    pub kv_head: u32,
}

/// Of `span` in `layers`, those in which policies act; `None` where there is no position or no layer.
pub fn survival(kept: &Kept, span: Range<u32>, layers: impl Iterator<Item = usize>) -> Option<Survival> {
    let length = span.len() as f32;
    let (mut sum, mut heads) = (0.0f64, 0u32);
    let mut least: Option<Survival> = None;
    for layer in layers {
        for kv_head in 0..kept.kv_heads {
            let share = kept.held_in(layer, kv_head, span.clone()) as f32 / length;
            sum += f64::from(share);
            heads += 1;
            if least.is_none_or(|least| share < least.least) {
                least = Some(Survival { share, least: share, layer: layer as u32, kv_head: kv_head as u32 });
            }
        }
    }
    least.filter(|_| length > 0.0).map(|least| Survival { share: (sum / f64::from(heads)) as f32, ..least })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_a_known_set() {
        let mut kept = Kept::new(3, 2, 100);
        // layer 0 holds all of 60..70 in head 0 and half of it in head 1; layer 2 nothing and one in ten
        (60..70).for_each(|p| kept.set(0, 0, p));
        (60..65).for_each(|p| kept.set(0, 1, p));
        kept.set(2, 1, 66);
        (0..100).for_each(|p| kept.set(1, 0, p));
        let all = survival(&kept, 60..70, [0, 2].into_iter()).unwrap();
        assert_eq!((all.share, all.least, all.layer, all.kv_head), (0.4, 0.0, 2, 0));
        let first = survival(&kept, 60..70, 0..1).unwrap();
        assert_eq!((first.share, first.least, first.layer, first.kv_head), (0.75, 0.5, 0, 1));
        assert_eq!(survival(&kept, 62..68, 0..1).map(|s| s.least), Some(0.5));
        assert_eq!(survival(&kept, 7..7, 0..3), None);
        assert_eq!(survival(&kept, 0..9, 0..0), None);
    }
}
