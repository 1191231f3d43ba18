//! What a lane's interventions change about a pass: rows of the residual stream, of the heads' outputs, of what
//! sublayers add. Other rows of the pass, and passes without any, stay as they are, bit for bit.

use std::ops::Range;
use std::sync::Arc;

use crate::backend::alter::{Alter, Short};
use crate::backend::{Backend, Buf};

/// Which tokens of a lane.
#[derive(Debug, Clone, PartialEq)]
pub enum Tokens {
    All,
    /// At these positions of the text.
    At(Vec<u32>),
}

/// A channel of the residual stream is set where it passes `point` (0 = embedding, then after each sublayer).
#[derive(Debug, Clone, PartialEq)]
pub struct SetChannel {
    pub point: usize,
    pub channel: usize,
    pub value: f32,
    pub tokens: Tokens,
}

/// All of a lane's.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Alterations {
    pub channels: Vec<SetChannel>,
    /// (layer, query head) whose outputs are zero.
    pub heads: Vec<(usize, usize)>,
    /// (sublayer, factor) of what is added to the residual stream.
    pub sublayers: Vec<(usize, f32)>,
    /// The residual stream is rounded to this at every point.
    pub cast: Option<Short>,
}

impl Alterations {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Rows of a pass that are altered: they follow each other in the text, the first at position `first`.
#[derive(Debug, Clone)]
pub struct Altered {
    pub rows: Range<usize>,
    pub first: u32,
    pub by: Arc<Alterations>,
}

impl Altered {
    /// The rows of `tokens`.
    fn rows_of(&self, tokens: &Tokens) -> Vec<Range<usize>> {
        match tokens {
            Tokens::All => vec![self.rows.clone()],
            Tokens::At(positions) => {
                let row = |&p: &u32| p.checked_sub(self.first).map(|row| self.rows.start + row as usize);
                let rows = positions.iter().filter_map(row).filter(|row| *row < self.rows.end);
                rows.map(|row| row..row + 1).collect()
            }
        }
    }

    /// The residual stream `h` passes `point`; where depth is mixed, what the next sublayer reads.
    pub fn point(&self, b: &mut dyn Backend, h: Buf, point: usize) {
        for set in self.by.channels.iter().filter(|set| set.point == point) {
            for rows in self.rows_of(&set.tokens) {
                b.alter(h, rows, Alter::Set { cols: set.channel..set.channel + 1, value: set.value });
            }
        }
        if let Some(short) = self.by.cast {
            b.alter(h, self.rows.clone(), Alter::Round(short));
        }
    }

    /// `attn` [rows, H · dim] holds what the heads of `layer` give.
    pub fn heads(&self, b: &mut dyn Backend, attn: Buf, layer: usize, dim: usize) {
        for &(_, head) in self.by.heads.iter().filter(|(of, _)| *of == layer) {
            b.alter(attn, self.rows.clone(), Alter::Set { cols: head * dim..(head + 1) * dim, value: 0.0 });
        }
    }

    fn factor(&self, sublayer: usize) -> Option<f32> {
        let factors = self.by.sublayers.iter().filter(|(of, _)| *of == sublayer).map(|(_, factor)| *factor);
        factors.reduce(|a, b| a * b)
    }

    /// Before sublayer `sublayer` adds to `out`, or puts its output there (`fresh`): what that starts from goes to `aside`.
    pub fn before(&self, b: &mut dyn Backend, out: Buf, fresh: bool, sublayer: usize, aside: Buf) {
        match self.factor(sublayer) {
            None => {}
            Some(_) if fresh => b.alter(aside, self.rows.clone(), Alter::Zero),
            Some(_) => b.alter(out, self.rows.clone(), Alter::Copy { to: aside }),
        }
    }

    /// After it has.
    pub fn after(&self, b: &mut dyn Backend, out: Buf, sublayer: usize, aside: Buf) {
        if let Some(by) = self.factor(sublayer) {
            b.alter(out, self.rows.clone(), Alter::Between { from: aside, by });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_among_the_rows_of_a_pass() {
        let altered = Altered { rows: 3..8, first: 10, by: Arc::default() };
        assert_eq!(altered.rows_of(&Tokens::All).first(), Some(&(3..8)));
        assert_eq!(altered.rows_of(&Tokens::At(vec![0, 10, 14, 15])), [3..4, 7..8]);
    }

    #[test]
    fn factors_of_one_sublayer_multiply() {
        let by = Alterations { sublayers: vec![(2, 0.5), (3, 0.0), (2, 0.5)], ..Alterations::default() };
        let altered = Altered { rows: 0..1, first: 0, by: Arc::new(by) };
        assert_eq!([1, 2, 3].map(|sublayer| altered.factor(sublayer)), [None, Some(0.25), Some(0.0)]);
    }
}
