//! The trait of tensor operations; `cpu` and `cuda` implement it.
