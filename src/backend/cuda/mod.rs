//! The backend on NVIDIA GPUs. Kernels are in `kernels/`.

pub mod device;
pub mod memory;
