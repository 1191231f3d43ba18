//! The backend on NVIDIA GPUs. Kernels are in `kernels/`.
//!
//! CUDA is opened at run time: nothing of it is needed to build this program or to start it. [`libraries`] says which
//! libraries there are and looks for them ([`places`], on a [`system`]); [`shared`] opens them. A kernel family
//! ([`source`]) becomes code for a card in [`image`]: compiled by [`nvrtc`] at first use and kept in a [`store`], or
//! else taken from the PTX inside this program ([`embedded`]). What the backend asks of a card is a [`device`]: the
//! [`driver`] through its [`api`], with cuBLAS ([`blas`]) where it is found, or, in the tests, the kernels built for the
//! CPU.

pub mod api;
pub mod blas;
pub mod device;
pub mod driver;
pub mod embedded;
pub mod error;
pub mod image;
pub mod libraries;
pub mod memory;
pub mod nvrtc;
pub mod places;
pub mod self_test;
pub mod shared;
pub mod source;
pub mod store;
pub mod system;
pub mod version;
