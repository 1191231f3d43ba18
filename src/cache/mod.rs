//! Slots of a KV cache: keys, values, original positions and the running sums that belong to them.

mod cells;
mod code;
#[cfg(test)]
mod definition;
mod hadamard;
mod head;
mod holes;
mod kept_range;
mod kind;
mod pack;
#[cfg(test)]
mod pack_tests;
mod packed;
mod queries;
mod saved;
mod strand;
mod stratum;
mod wiring;

pub(crate) use cells::with_cells;
pub use cells::{Cells, Columns, TILE};
pub use head::HeadCache;
pub use kept_range::{KeptRange, Renewal};
pub use kind::KvType;
pub use pack::{Pack, Packing};
pub use packed::{Code, Packed, Quantization, Smoothing};
pub use queries::{Queries, QueryWriter};
pub use saved::Saved;
pub use strand::Strand;
pub use stratum::{Groups, Parts, Stratum};
pub use wiring::{Holds, Wiring, WiringError};
