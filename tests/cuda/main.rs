//! The kernels without a card: compiled by NVRTC, and run on the CPU against their twins.

mod caches;
mod compact;
mod decode_attention;
mod elementwise;
mod embed;
mod emulator;
mod gated;
mod norm;
mod prefill_attention;
mod product;
mod rope;
mod sampling;
mod score;
mod survivors;
mod viewport;
