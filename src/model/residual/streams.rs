//! Hyper-connections on a backend.

use super::HyperConnections;
use crate::backend::hyper::{Gates, StreamOp};
use crate::backend::{Backend, Buf, Result};

pub struct Streams {
    /// Of each sublayer, and of the end.
    gates: Vec<Gates>,
    /// x [R, n·d]
    x: Buf,
    /// The embedding, then what the newest sublayer wrote [R, d].
    y: Buf,
}

impl Streams {
    pub fn load(of: &HyperConnections, hidden: usize, backend: &mut dyn Backend) -> Result<Self> {
        let keys = of.keys;
        let mut gates = Vec::new();
        for (target, weights) in of.targets.iter().enumerate() {
            gates.push(Gates {
                target,
                streams: keys.streams,
                map: backend.numbers(&weights.map)?,
                base: backend.numbers(&weights.base)?,
                scale: weights.scale,
                norm_eps: of.norm_eps,
                eps: keys.eps,
                rounds: keys.rounds,
                transposed: keys.transposed,
            });
        }
        Ok(Self { gates, x: backend.buffer(keys.streams * hidden), y: backend.buffer(hidden) })
    }

    /// Gets the embedding, and what sublayers write.
    pub fn out(&self) -> Buf {
        self.y
    }

    /// What target `target` reads, once the sublayer before it has run, becomes h.
    pub fn enter(&self, b: &mut dyn Backend, target: usize, h: Buf) {
        b.residual_point(self.y, self.gates.len() + target);
        let (x, y) = (self.x, self.y);
        match target.checked_sub(1) {
            None => b.streams(&StreamOp::Spread { e: y, x }),
            Some(writer) => b.streams(&StreamOp::Scatter { gates: self.gates[writer], y, x }),
        }
        b.streams(&StreamOp::Gather { gates: self.gates[target], x, h });
    }
}
