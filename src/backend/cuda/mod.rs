//! The backend on NVIDIA GPUs. Kernels are in `kernels/`.
//!
//! CUDA is opened at run time: nothing of it is needed to build this program or to start it. [`libraries`] says which
//! libraries there are and looks for them ([`places`], on a [`system`]); [`shared`] opens them. A kernel family
//! ([`source`]) becomes code for a card in [`image`]: compiled by [`nvrtc`] at first use and kept in a [`store`], or
//! else taken from the PTX inside this program ([`embedded`]). What the backend asks of a card is a [`device`]: the
//! [`driver`] through its [`api`], with cuBLAS ([`blas`]) where it is found, or, in the tests, the kernels built for the
//! CPU.
//!
//! [`backend`] holds a model's [`weights`], each lane's [`cache`] and the kept [`queries`]; [`record`] turns a pass into a
//! [`program`] of launches; [`inspect`] reads what it left. What has no kernel attends with the CPU ([`on_host`]). [`self_test`] and
//! [`measure`] say whether kernels are right, and how fast.

mod alter;
pub mod api;
mod attend;
pub mod backend;
pub mod blas;
mod cache;
mod depth;
pub mod device;
pub mod driver;
pub mod embedded;
pub mod error;
mod exchange;
mod fetched;
pub mod image;
mod inspect;
pub mod libraries;
mod maps;
pub mod measure;
pub mod memory;
pub mod nvrtc;
mod on_host;
mod peaks;
pub mod places;
mod program;
mod queries;
mod record;
mod records;
mod sample;
pub mod self_test;
pub mod shared;
pub mod source;
mod stage;
pub mod store;
pub mod system;
pub mod version;
mod weights;
