//! What interventions do to rows of activations.

use std::ops::Range;

use half::{bf16, f16};

use super::CpuBackend;
use super::program::{Exec, Items, Op};
use crate::backend::Buf;
use crate::backend::alter::{Alter, Short};

impl CpuBackend {
    /// See [`crate::backend::Backend::alter`].
    pub(super) fn record_alter(&mut self, x: Buf, rows: Range<usize>, how: Alter) {
        self.written(x);
        if let Alter::Copy { to } = how {
            self.written(to);
        }
        let bytes = (rows.len() * self.buffers[x.0].width() * 8) as u64;
        self.push("intervention", Op::Alter { x, rows, how }, bytes, 0);
    }
}

/// Rows `rows` of x [rows of the pass, width].
pub fn alter(exec: &Exec<'_>, items: Items<'_>, x: Buf, rows: &Range<usize>, how: &Alter) {
    items.each(rows.len(), 4, |i| {
        let r = rows.start + i;
        // SAFETY: one thread per row, and the other matrix is another one.
        let row = unsafe { exec.buffers[x.0].row_mut(r) };
        match how {
            Alter::Set { cols, value } => row[cols.clone()].fill(*value),
            Alter::Zero => row.fill(0.0),
            Alter::Round(short) => row.iter_mut().for_each(|x| *x = rounded(*x, *short)),
            // SAFETY: as above.
            Alter::Copy { to } => unsafe { exec.buffers[to.0].row_mut(r) }.copy_from_slice(row),
            Alter::Between { from, by } => {
                // SAFETY: as above.
                let from = unsafe { exec.buffers[from.0].row(r) };
                row.iter_mut().zip(from).for_each(|(x, &from)| *x = between(from, *x, *by));
            }
        }
    });
}

fn rounded(x: f32, short: Short) -> f32 {
    match short {
        Short::F16 => f16::from_f32(x).to_f32(),
        Short::Bf16 => bf16::from_f32(x).to_f32(),
    }
}

fn between(from: f32, x: f32, by: f32) -> f32 {
    if by == 0.0 { from } else { by.mul_add(x - from, from) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_even_and_overflow() {
        // 1 + 2⁻¹¹ lies between two f16, 1 + 2⁻⁸ between two bf16: the even one is 1
        assert_eq!(rounded(1.0 + 2f32.powi(-11), Short::F16), 1.0);
        assert_eq!(rounded(1.0 + 3.0 * 2f32.powi(-11), Short::F16), 1.0 + 2f32.powi(-9));
        assert_eq!(rounded(1.0 + 2f32.powi(-8), Short::Bf16), 1.0);
        assert_eq!(rounded(65504.0, Short::F16), 65504.0);
        assert_eq!((rounded(-7e4, Short::F16), rounded(7e4, Short::Bf16)), (f32::NEG_INFINITY, 70144.0));
    }

    #[test]
    fn nothing_of_what_was_added_stays_at_zero() {
        assert_eq!(between(3.0, f32::NAN, 0.0), 3.0);
        assert_eq!((between(3.0, 5.0, 0.5), between(3.0, 5.0, 1.0), between(3.0, 5.0, -1.0)), (4.0, 5.0, 1.0));
    }
}
