//! What the backend asks of a CUDA device: memory, copies, launches, marks in time. The driver does it on a card; in the
//! tests the kernels, built for the CPU, do.

use crate::backend::Result;
use crate::cache::KvType;

/// One argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg {
    /// An address on the device.
    Pointer(u64),
    Int(i32),
    Float(f32),
}

impl From<i32> for Arg {
    fn from(x: i32) -> Self {
        Self::Int(x)
    }
}

impl From<f32> for Arg {
    fn from(x: f32) -> Self {
        Self::Float(x)
    }
}

/// Blocks of threads that run a kernel.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    pub kernel: &'static str,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic shared memory, bytes.
    pub shared: u32,
    pub args: &'a [Arg],
}

/// out (+)= x · weightsᵀ, summed in f32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gemm {
    /// Number type of x and weights.
    pub kind: KvType,
    /// Address of x [rows, inputs].
    pub x: u64,
    /// Address of weights [outs, inputs].
    pub weights: u64,
    /// Address of the first number written, f32; rows lie `width` numbers apart.
    pub out: u64,
    pub rows: usize,
    pub inputs: usize,
    pub outs: usize,
    pub width: usize,
    /// Added to what is there.
    pub add: bool,
}

/// A place in the order of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(pub u64);

/// Launches that are carried out together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Graph(pub u64);

/// Work is carried out in the order of the calls; copies to and from the host wait for what was asked before.
pub trait Device: Send + Sync {
    /// e.g. "NVIDIA H100 80GB HBM3, compute 9.0".
    fn describe(&self) -> String;
    /// As NVML knows it, `GPU-…`; `None` where it has none.
    fn uuid(&self) -> Option<String> {
        None
    }
    /// Bytes that are free; `None` where that is not known.
    fn room(&self) -> Option<u64> {
        None
    }
    /// Blocks of threads that work at a time, if each takes a whole multiprocessor.
    fn multiprocessors(&self) -> usize {
        1
    }
    /// [`Device::product`] does something.
    fn has_products(&self) -> bool {
        false
    }
    /// Memory with anything in it, aligned to 256 bytes.
    fn allocate(&self, bytes: usize) -> Result<u64>;
    fn free(&self, at: u64, bytes: usize);
    fn upload(&self, from: &[u8], to: u64) -> Result<()>;
    fn download(&self, from: u64, to: &mut [u8]) -> Result<()>;
    /// Between places that do not overlap.
    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()>;
    fn clear(&self, at: u64, bytes: usize) -> Result<()>;
    fn launch(&self, launch: Launch<'_>) -> Result<()>;
    /// Waits until all that was asked for is done.
    fn finish(&self) -> Result<()>;
    /// Launches and marks from here to `end_graph` are gathered, not carried out; nothing else may lie between. The
    /// kernels have been launched before. Each run of the graph sets its marks anew; they live as long as it does.
    fn begin_graph(&self) -> Result<()>;
    /// What was gathered.
    fn end_graph(&self) -> Result<Graph>;
    fn run_graph(&self, graph: Graph) -> Result<()>;
    /// It is run no more.
    fn drop_graph(&self, graph: Graph);
    /// A product by a library of the device's; false where there is none, and nothing was done.
    fn product(&self, _gemm: Gemm) -> Result<bool> {
        Ok(false)
    }
    fn mark(&self) -> Result<Mark>;
    /// Nanoseconds from one mark to a later one; waits for that.
    fn between(&self, from: Mark, to: Mark) -> Result<u64>;
    /// The marks so far are asked for no more, but for those of graphs.
    fn clear_marks(&self);
}
