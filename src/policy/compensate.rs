//! The compensation token: one entry that stands for many.

use super::part::{LayerView, Moment, Rewriter, Rewritten};

/// In every kv head that loses entries, the first entry behind the first `sinks` positions becomes the mean of its own
/// and of all that leave, each counted as often as the entries that it stands for already; ln of the count is added to
/// its logit. Nothing happens to a head that does not keep that entry.
pub(super) struct Compensate {
    pub sinks: usize,
}

impl Rewriter for Compensate {
    fn rewrite(&self, _at: Moment, kept: &[Vec<u32>], view: &dyn LayerView) -> Vec<Rewritten> {
        kept.iter().enumerate().map(|(kv_head, kept)| self.head(kv_head, kept, view).unwrap_or_default()).collect()
    }
}

impl Compensate {
    fn head(&self, kv_head: usize, kept: &[u32], view: &dyn LayerView) -> Option<Rewritten> {
        let (positions, dim) = (view.positions(kv_head), view.head_dim());
        let host = positions.partition_point(|&p| (p as usize) < self.sinks);
        let at = kept.binary_search(&(host as u32)).ok().filter(|_| kept.len() < positions.len())?;
        let old = view.offsets(kv_head);
        let offset = |slot: usize| old.get(slot).copied().unwrap_or(0.0);
        let stays = |slot: usize| slot != host && kept.binary_search(&(slot as u32)).is_ok();
        let merged: Vec<usize> = (0..positions.len()).filter(|&slot| !stays(slot)).collect();
        let count: f64 = merged.iter().map(|&slot| (offset(slot) as f64).exp()).sum();
        let filled = |all: &[f32]| {
            let mut new: Vec<f32> = kept.iter().flat_map(|&slot| &all[slot as usize * dim..][..dim]).copied().collect();
            let mut mean = vec![0.0f64; dim];
            for &slot in &merged {
                let weight = (offset(slot) as f64).exp() / count;
                mean.iter_mut().zip(&all[slot * dim..][..dim]).for_each(|(mean, &x)| *mean += weight * x as f64);
            }
            new[at * dim..][..dim].iter_mut().zip(mean).for_each(|(new, mean)| *new = mean as f32);
            Some(new)
        };
        let mut offsets: Vec<f32> = kept.iter().map(|&slot| offset(slot as usize)).collect();
        offsets[at] = count.ln() as f32;
        Some(Rewritten {
            keys: filled(&view.keys(kv_head)),
            values: filled(&view.values(kv_head)),
            offsets: Some(offsets),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{close, moment, toy};

    #[test]
    fn means_of_the_toy() {
        // 1 stands for 1, 2, 3; 0, 4 and 5 stay
        let new = Compensate { sinks: 1 }.rewrite(moment(6, 0), &[vec![0, 1, 4, 5]], &toy()).remove(0);
        close(&new.keys.unwrap()[..8], &[1.0, 0.0, 0.0, 0.0, 0.5 / 3.0, 0.5, 2.0 / 3.0, 0.0]);
        close(&new.values.unwrap()[4..12], &[1.0 / 3.0, 2.0 / 3.0, 4.0 / 3.0, 1.0 / 3.0, 0.0, 0.0, 0.0, -2.0]);
        close(&new.offsets.unwrap(), &[0.0, 3f32.ln(), 0.0, 0.0]);
    }

    #[test]
    fn one_more_joins_a_mean() {
        let mut layer = toy();
        layer.offsets = vec![vec![0.0, 3f32.ln(), 0.0, 0.0, 0.0, 0.0]];
        // (0, 1, 0, 0) · 3 and (0, 0, 3, 0) once
        let new = Compensate { sinks: 1 }.rewrite(moment(6, 1), &[vec![0, 1, 3, 4, 5]], &layer).remove(0);
        close(&new.values.unwrap()[4..8], &[0.0, 0.75, 0.75, 0.0]);
        close(&new.offsets.unwrap(), &[0.0, 4f32.ln(), 0.0, 0.0, 0.0]);
        let same = Compensate { sinks: 1 }.rewrite(moment(6, 1), &[vec![0, 2, 3, 4, 5]], &layer);
        assert_eq!(same, [Rewritten::default()]);
    }
}
