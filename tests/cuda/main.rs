//! The kernels without a card: compiled by NVRTC, and run on the CPU against their twins.

mod caches;
mod decode_attention;
mod emulator;
mod gated;
