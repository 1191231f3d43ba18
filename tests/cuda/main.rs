//! CUDA without a card: the search for its libraries, the kernels compiled by NVRTC, and run on the CPU against their
//! twins.

mod caches;
mod compact;
mod compile;
mod decode_attention;
mod driver;
mod elementwise;
mod embed;
mod emulator;
mod gated;
mod kept;
mod libraries;
mod meter;
mod norm;
mod plan;
mod prefill_attention;
mod product;
mod ptx;
mod rope;
mod sampling;
mod score;
mod survivors;
mod viewport;
mod wheel;
