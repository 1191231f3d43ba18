//! The kernels without a card: compiled by NVRTC, and run on the CPU against their twins.

mod emulator;
mod gated;
