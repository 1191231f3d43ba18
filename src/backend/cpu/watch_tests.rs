//! What looks at rows while they are computed sees every row once, as it is.

use std::sync::Arc;

use super::packed_tests::{HEADS, Rig, attention};
use crate::backend::Inspect;
use crate::policy::watch::{RowAt, Watch, Watches};

/// Σ pᵏ · (position + 1).
struct Powers(i32);

impl Watch for Powers {
    fn name(&self) -> String {
        format!("powers {}", self.0)
    }

    fn row(&self, at: RowAt, positions: &[u32], row: &mut [f32], sums: &mut [f32]) {
        assert_eq!((positions.last(), at.layer), (Some(&at.position), 0));
        let factor = if self.0 > 1 { at.position as f32 + 1.0 } else { 1.0 };
        sums.iter_mut().zip(&*row).for_each(|(sum, p)| *sum += p.powi(self.0) * factor);
        // a copy: nobody else sees this
        row.fill(7.0);
    }
}

#[test]
fn every_row_is_seen_once_however_the_prompt_is_cut() {
    for (window, chunks) in [(None, &[40usize, 1, 33, 7][..]), (Some(19), &[1, 60]), (None, &[1])] {
        let mut rig = Rig::new(24, window, 5);
        let (cache, other) = (rig.backend.cache(), rig.backend.cache());
        rig.backend.watch(&Watches(vec![Arc::new(Powers(1)), Arc::new(Powers(2))]));
        let mut n = 0;
        for &count in chunks {
            // another cache is read beside it and not watched
            rig.read(&[cache, other], n, count, Some(cache));
            n += count as u32;
        }
        let watched = rig.backend.take_watched();
        assert_eq!(watched[0].len(), HEADS.0);
        for (head, (plain, weighted)) in watched[0].iter().zip(&watched[1]).enumerate() {
            assert_eq!(plain, rig.backend.received(cache, 0, head), "column sums, the same bits");
            let rows = rig.backend.rows(cache, &attention(window), head, 0..n).unwrap();
            for (t, found) in weighted.iter().enumerate() {
                let row = |i: usize| rows[i * n as usize + t];
                let expected: f32 = (0..n as usize).map(|i| row(i) * row(i) * (i + 1) as f32).sum();
                assert!((found - expected).abs() <= 2e-5 * expected.max(0.01), "{t}: {found} {expected}");
            }
        }
        // it has ended
        rig.read(&[cache], n, 3, Some(cache));
        assert!(rig.backend.take_watched().is_empty());
    }
}
