//! CUDA without a card: the search for its libraries, the kernels compiled by NVRTC, and run on the CPU against their
//! twins.

mod compile;
mod driver;
mod emulator;
mod gated;
mod kept;
mod libraries;
mod plan;
mod ptx;
mod wheel;
