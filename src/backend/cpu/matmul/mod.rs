//! Products x · Wᵀ with weights kept as they are stored: quantised ones against activations in 8 bits.
//!
//! All threads of the backend call these on the same matrices with their own share of the weight's tiles. One output
//! element is computed by the same float operations in the same order whatever the split, the number of rows and the
//! instruction set, so results never depend on who else is running.

mod float;
mod format;
mod isa;
mod kernel;
mod memory;
mod pack;
mod panel;
mod quantize;
mod quantized;
mod rows;
mod simd;
#[cfg(test)]
mod tests;

pub use float::{FloatMatrix, FloatMatrixError, matmul_float};
pub use isa::Isa;
pub use memory::WeightMemory;
pub use pack::{PackError, PackedMatrix, TILE};
pub use quantized::{Sink, matmul};
pub use rows::QuantizedRows;
