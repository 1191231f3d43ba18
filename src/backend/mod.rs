//! The trait of tensor operations; `cpu` and `cuda` implement it.

pub mod cpu;
