//! The recorded run: a file of frames that is written while the model runs and looked at without it.
//!
//! A trace file is a preamble and records, little-endian, only ever appended to:
//!
//! | part | bytes |
//! |---|---|
//! | preamble | magic [8], version u32, CRC-32 of these 12 bytes u32 |
//! | record | head [24], contents |
//! | head | kind u8, codec u8 (0 plain, 1 deflate), zero u16, step u32, stored length u32, plain length u32, CRC-32 of the stored contents u32, CRC-32 of these 20 bytes u32 |
//!
//! Kinds: 1 header (first, once), 2 prompt, 3 spellings, 4 frame, 5 rewound, 6 forked. Contents are postcard of the
//! types in [`record`]. A file that was cut off in a record opens up to it; any other damage is an error.

mod check;
pub mod diff;
mod error;
pub mod export;
mod packed;
pub mod player;
pub mod reader;
pub mod record;
pub mod recorder;
mod standing;
#[cfg(test)]
mod tests;
mod wire;
pub mod writer;

pub use error::TraceError;
pub use reader::Trace;
pub use standing::Standing;
pub use wire::VERSION;
