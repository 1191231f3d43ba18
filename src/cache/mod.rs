//! Slots of a KV cache: keys, values, original positions and the running sums that belong to them.

mod head;
mod kind;
mod queries;
mod strand;
mod wiring;

pub(crate) use head::with_cells;
pub use head::{Cells, Columns, HeadCache, Saved, TILE};
pub use kind::KvType;
pub use queries::{Queries, QueryWriter};
pub use strand::Strand;
pub use wiring::{Holds, Wiring, WiringError};
