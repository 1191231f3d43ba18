//! What interventions do to rows of activations.

use std::ops::Range;

use super::backend::CudaBackend;
use super::device::Arg;
use crate::backend::Buf;
use crate::backend::alter::{Alter, Short};

impl CudaBackend {
    /// See [`crate::backend::Backend::alter`].
    pub(super) fn record_alter(&mut self, x: Buf, rows: Range<usize>, how: &Alter) {
        let (at, width, first) = (Arg::Pointer(self.at(x)), self.width(x), Arg::Int(rows.start as i32));
        let int = |x: usize| Arg::Int(x as i32);
        let (kernel, columns, args) = match how {
            Alter::Set { cols, value } => {
                let args = vec![at, int(width), first, int(cols.start), int(cols.len()), Arg::Float(*value)];
                ("alter_set", cols.len(), args)
            }
            Alter::Zero => ("alter_set", width, vec![at, int(width), first, int(0), int(width), Arg::Float(0.0)]),
            Alter::Round(short) => {
                let half = Arg::Int(i32::from(*short == Short::F16));
                ("alter_round", width, vec![at, int(width), first, half])
            }
            Alter::Copy { to } => ("alter_copy", width, vec![at, Arg::Pointer(self.at(*to)), int(width), first]),
            Alter::Between { from, by } => {
                let args = vec![at, Arg::Pointer(self.at(*from)), int(width), first, Arg::Float(*by)];
                ("alter_between", width, args)
            }
        };
        self.program.op("intervention", (rows.len() * columns * 8) as u64, 0);
        self.program.launch(kernel, [columns.div_ceil(256), rows.len(), 1], 256, 0, args);
    }
}
