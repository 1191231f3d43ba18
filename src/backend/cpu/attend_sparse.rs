//! Rows of a prompt that is read sparsely: raw scores to the weights of the values.

use crate::backend::{Attention, Buf};
use crate::cache::{Cells, HeadCache, TILE};
use crate::policy::delta::{RowKind, Sparse};

use super::attend::{scores, widen_keys};
use super::attention::visible;
use super::program::{Exec, Run};
use super::simd::vectorized;
use super::softmax::{RowReductions, softmax, softmax_part};

/// A prompt of `prompt` tokens read by `rule`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SparseRead {
    pub rule: Sparse,
    pub prompt: u32,
}

/// How the rows of one head turn scores into weights, and what dense rows gained on the way.
pub struct SparseRows<'a> {
    read: SparseRead,
    exec: &'a Exec<'a>,
    attention: &'a Attention,
    cache: &'a HeadCache,
    /// Positions of dense rows, and their probabilities less those of the sparse row there [slots seen].
    gains: Vec<(u32, Vec<f32>)>,
}

impl<'a> SparseRows<'a> {
    /// For rows `first..first + count` of the pass. The dense rows that these borrow from are rows of `run`.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        read: SparseRead,
        exec: &'a Exec<'a>,
        attention: &'a Attention,
        run: &Run,
        (first, count): (usize, usize),
        cache: &'a HeadCache,
        head: usize,
        qkv: Buf,
    ) -> Self {
        let mut rows = Self { read, exec, attention, cache, gains: Vec::new() };
        let start = exec.rows[run.first].position;
        for row in &exec.rows[first..first + count] {
            let RowKind::Repaired(leader) = read.rule.row(row.position, read.prompt) else { continue };
            if rows.gains.last().is_none_or(|(known, _)| *known != leader) {
                // SAFETY: nobody writes qkv in this operation.
                let queries = unsafe { exec.buffers[qkv.0].row(run.first + (leader - start) as usize) };
                let gain = rows.gain(leader, &queries[head * exec.dim..(head + 1) * exec.dim]);
                rows.gains.push((leader, gain));
            }
        }
        rows
    }

    /// Raw scores of what the row at `position` sees [n] to its weights; the reductions are of the row itself, without
    /// what it borrows. Last, the share of the dense row that it read.
    pub fn weigh(&self, row: &mut [f32], position: u32) -> (RowReductions, f32) {
        match self.read.rule.row(position, self.read.prompt) {
            RowKind::Dense => (self.dense(row, position), 1.0),
            kind => {
                let all = self.dense(&mut row.to_vec(), position);
                let reductions = self.sparse(row, position);
                if let RowKind::Repaired(leader) = kind {
                    let gain = self.gains.iter().find(|(known, _)| *known == leader);
                    gain.iter().for_each(|(_, gain)| row.iter_mut().zip(gain).for_each(|(w, gain)| *w += gain));
                }
                (reductions, (reductions.lse - all.lse).exp().min(1.0))
            }
        }
    }

    fn dense(&self, row: &mut [f32], position: u32) -> RowReductions {
        let n = row.len();
        let (scale, cap, recent) = (self.attention.scale, self.attention.softcap, self.exec.recent_window);
        let offsets = self.cache.offsets.get(..n).unwrap_or_default();
        vectorized(
            #[inline(always)]
            || softmax(row, &self.cache.positions[..n], position, scale, cap, offsets, recent),
        )
    }

    fn sparse(&self, row: &mut [f32], position: u32) -> RowReductions {
        let n = row.len();
        let seen = &self.cache.positions[..n];
        let slots: Vec<u32> =
            (0..).zip(seen).filter(|(_, p)| self.read.rule.sees(position, **p)).map(|(s, _)| s).collect();
        let (scale, cap, recent) = (self.attention.scale, self.attention.softcap, self.exec.recent_window);
        let offsets = self.cache.offsets.get(..n).unwrap_or_default();
        softmax_part(row, &slots, &[], seen, position, scale, cap, offsets, recent)
    }

    /// What the row at `position`, whose query is `query` [D], has more or less than if it were sparse [slots seen].
    fn gain(&self, position: u32, query: &[f32]) -> Vec<f32> {
        let n = visible(&self.cache.positions, position, None).1;
        let (mut dense, mut wide) = (vec![0.0; n.next_multiple_of(TILE)], Cells::default());
        vectorized(
            #[inline(always)]
            || {
                widen_keys(self.cache, 0..n, &mut wide);
                let tiles = 0..n.div_ceil(TILE);
                scores(
                    query,
                    1,
                    self.exec.dim,
                    &wide,
                    tiles,
                    #[inline(always)]
                    |_, tile, s| dense[tile * TILE..(tile + 1) * TILE].copy_from_slice(s),
                );
            },
        );
        dense.truncate(n);
        let mut sparse = dense.clone();
        self.dense(&mut dense, position);
        self.sparse(&mut sparse, position);
        dense.iter_mut().zip(sparse).for_each(|(dense, sparse)| *dense -= sparse);
        dense
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::backend::cpu::CpuBackend;
    use crate::backend::{Backend, Inspect, Row, Shape};
    use crate::cache::KvType;
    use crate::engine::message::Probes;
    use crate::policy::delta::Repair;

    const D: usize = 8;
    /// One kv head, two query heads.
    const HEADS: usize = 2;
    const WIDTH: usize = (HEADS + 2) * D;
    const PROMPT: usize = 180;
    const ATTENTION: Attention =
        Attention { layer: 0, rope: 0, scale: 0.9, softcap: None, window: None, qk_norm: None };

    fn drawn() -> Vec<f32> {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(4);
        (0..PROMPT * WIDTH).map(|_| rng.random_range(-1.5..1.5)).collect()
    }

    /// Outputs [PROMPT, H·D] and covered mass [H][PROMPT] of a prompt read `part` rows at a time.
    fn read(qkv: &[f32], rule: Option<Sparse>, part: usize) -> (Vec<f32>, Vec<Vec<f32>>) {
        let shape = Shape {
            layers: 1,
            heads: HEADS,
            kv_heads: 1,
            head_dim: D,
            hidden: D,
            vocab: 4,
            max_rows: PROMPT,
            ropes: vec![vec![0.0; D / 2]],
            kv: KvType::F32,
            queries_budget: 1 << 20,
            recent_window: 8,
            stream_points: false,
            depth_sources: 0,
            streams: 0,
        };
        let mut backend = CpuBackend::new(shape, true, 2).unwrap();
        let (x, out) = (backend.buffer(WIDTH), backend.buffer(HEADS * D));
        let cache = backend.cache();
        backend.set_sparse(cache, rule.map(|rule| (rule, PROMPT))).unwrap();
        let (mut outputs, mut covered) = (Vec::new(), vec![Vec::new(); HEADS]);
        for from in (0..PROMPT).step_by(part) {
            let positions = from..PROMPT.min(from + part);
            let row = |p: usize| Row { token: 0, position: p as u32, turned: p as u32, cache };
            let rows: Vec<Row> = positions.clone().map(row).collect();
            backend.begin(&rows, Probes::default(), None).unwrap();
            backend.buffers[x.0].as_mut_slice()[..rows.len() * WIDTH]
                .copy_from_slice(&qkv[from * WIDTH..positions.end * WIDTH]);
            backend.attend(&ATTENTION, x, out);
            backend.run().unwrap();
            outputs.extend(backend.read(out));
            let masses = backend.covered();
            for (head, all) in covered.iter_mut().enumerate() {
                all.extend(masses.iter().skip(head * rows.len()).take(rows.len()));
            }
        }
        (outputs, covered)
    }

    /// In f64, output by output: Δ is added to outputs.
    fn slow(qkv: &[f32], rule: Sparse) -> (Vec<f64>, Vec<Vec<f64>>) {
        let vector = |p: usize, at: usize| &qkv[p * WIDTH + at * D..][..D];
        let attend = |head: usize, p: usize, sparse: bool| -> (Vec<f64>, f64) {
            let weight = |t: usize| {
                let dot: f64 = vector(p, head).iter().zip(vector(t, HEADS)).map(|(&q, &k)| q as f64 * k as f64).sum();
                (dot * ATTENTION.scale as f64).exp()
            };
            let seen: Vec<usize> =
                (0..=p).filter(|&t| !sparse || t < rule.sinks as usize || t + rule.window as usize > p).collect();
            let (part, all): (f64, f64) = (seen.iter().map(|&t| weight(t)).sum(), (0..=p).map(weight).sum());
            let sum = |c: usize| seen.iter().map(|&t| weight(t) * vector(t, HEADS + 1)[c] as f64).sum::<f64>() / part;
            ((0..D).map(sum).collect(), part / all)
        };
        let (mut outputs, mut covered) = (Vec::new(), vec![Vec::new(); HEADS]);
        let end = (PROMPT - PROMPT % rule.gamma as usize).saturating_sub(128);
        for p in 0..PROMPT {
            for (head, covered) in covered.iter_mut().enumerate() {
                let leader = p - p % rule.gamma as usize;
                let dense = rule.repair != Repair::Off && (p >= end || p == leader);
                let (mut output, mass) = attend(head, p, !dense);
                if rule.repair == Repair::Delta && !dense {
                    let (gained, lost) = (attend(head, leader, false).0, attend(head, leader, true).0);
                    output.iter_mut().zip(gained).zip(lost).for_each(|((x, g), l)| *x += g - l);
                }
                outputs.extend(output);
                covered.push(mass);
            }
        }
        (outputs, covered)
    }

    #[test]
    fn outputs_are_those_of_the_definition_however_the_prompt_is_parted() {
        let qkv = drawn();
        for repair in [Repair::Delta, Repair::Recompute, Repair::Off] {
            let rule = Sparse { sinks: 3, window: 5, gamma: 16, repair };
            let (expected, masses) = slow(&qkv, rule);
            let (whole, covered) = read(&qkv, Some(rule), PROMPT);
            for (x, exact) in whole.iter().zip(&expected) {
                assert!((*x as f64 - exact).abs() < 1e-5, "{repair:?}: {x} {exact}");
            }
            for (mass, exact) in covered.iter().flatten().zip(masses.iter().flatten()) {
                assert!((*mass as f64 - exact).abs() < 1e-5, "{repair:?}: covers {mass}, not {exact}");
            }
            assert_eq!(read(&qkv, Some(rule), 48).0, whole, "{repair:?}");
        }
    }

    #[test]
    fn a_window_that_holds_everything_is_dense_and_dense_rows_bring_outputs_nearer_to_it() {
        let qkv = drawn();
        let rule = |window, repair| Some(Sparse { sinks: 1, window, gamma: 16, repair });
        let dense = read(&qkv, None, PROMPT).0;
        assert_eq!(read(&qkv, rule(PROMPT as u32, Repair::Off), PROMPT).0, dense);
        let error = |repair| -> f32 {
            let outputs = read(&qkv, rule(4, repair), PROMPT).0;
            outputs.iter().zip(&dense).map(|(a, b)| (a - b).powi(2)).sum::<f32>()
        };
        assert!(error(Repair::Recompute) < error(Repair::Off));
    }

    #[test]
    #[should_panic(expected = "begin at a dense row")]
    fn a_part_that_begins_elsewhere_is_refused() {
        read(&drawn(), Some(Sparse { sinks: 1, window: 4, gamma: 16, repair: Repair::Delta }), 20);
    }
}
