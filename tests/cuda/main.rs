//! CUDA without a card: the search for its libraries, the kernels compiled by NVRTC, and run on the CPU against their
//! twins.

mod alter;
mod blas;
mod caches;
#[path = "../common/chance.rs"]
mod chance;
mod compact;
mod compile;
mod decode_attention;
mod depth;
mod driver;
mod elementwise;
mod embed;
mod emulator;
#[path = "../fidelity/family.rs"]
mod family;
mod frames;
mod gated;
#[path = "../fidelity/golden.rs"]
#[allow(dead_code, reason = "the tests of fidelity use more of it")]
mod golden;
mod kept;
mod libraries;
mod measure;
mod meter;
mod mix;
mod norm;
mod pack;
mod plan;
mod prefill_attention;
mod product;
mod product_tensor;
mod program;
mod ptx;
mod rope;
mod sampling;
mod score;
mod survivors;
mod viewport;
mod wheel;
