//! Products of large matrices through cuBLAS, where it is found. Its functions are looked up by name: one that is
//! missing is an error, no panic.
//!
//! `cublasGemmEx` takes both operands in one number type and sums in f32. [`operands`] says how activations, which are
//! f32, and weights of a format come to one without losing what f32 holds.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;

use super::api::Handle;
use super::device::Gemm;
use super::error::CudaError;
use super::shared::Shared;
use crate::cache::KvType;
use crate::model::tensor::DType;

/// As cublas_api.h and library_types.h number them.
const TRANSPOSED: c_int = 1;
const AS_IT_IS: c_int = 0;
const SUMS_F32: c_int = 68;
const ANY_ALGORITHM: c_int = -1;
/// The default, without sums of parts in fewer bits than f32.
const MATH: c_int = 16;

const fn number_type(kind: KvType) -> c_int {
    match kind {
        KvType::F32 => 0,
        KvType::F16 => 2,
        KvType::BF16 => 14,
    }
}

/// So many bf16 numbers hold one in f32: 3 · 8 significant bits.
pub const TERMS: usize = 3;

/// What is done before a product, so that both operands have one number type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operands {
    /// F32: as they are.
    F32,
    /// BF16: the kernel `split_bf16` makes [`TERMS`] matrices of the activations, which are multiplied one after
    /// another, the later ones added.
    Bf16,
    /// All others: the kernel `dequantize` writes the weights in f32 first [outs, in].
    Dequantized,
}

/// For weights of a format.
pub fn operands(weights: DType) -> Operands {
    match weights {
        DType::F32 => Operands::F32,
        DType::BF16 => Operands::Bf16,
        // activations do not fit into the range of f16
        _ => Operands::Dequantized,
    }
}

type GemmEx = unsafe extern "C" fn(
    Handle,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    *const c_void,
    *const c_void,
    c_int,
    c_int,
    *const c_void,
    c_int,
    c_int,
    *const c_void,
    *mut c_void,
    c_int,
    c_int,
    c_int,
    c_int,
) -> c_int;

/// cuBLAS, at work in one context on one stream.
pub struct Blas {
    library: Shared,
    handle: Handle,
    gemm: GemmEx,
    destroy: unsafe extern "C" fn(Handle) -> c_int,
}

// SAFETY: the handle is used by one thread at a time: whoever holds the lock around it.
unsafe impl Send for Blas {}

impl Blas {
    /// With the context that is current in this thread.
    ///
    /// # Safety
    /// `stream` has to be one of that context, and to outlive what is made here.
    pub unsafe fn new(library: Shared, stream: Handle) -> Result<Self, CudaError> {
        let mut handle = null_mut();
        // SAFETY: the types are those of cublas_api.h; `create` writes a handle; the stream lives by the caller's word.
        unsafe {
            let create: unsafe extern "C" fn(*mut Handle) -> c_int = find(&library, "cublasCreate_v2")?;
            let set_stream: unsafe extern "C" fn(Handle, Handle) -> c_int = find(&library, "cublasSetStream_v2")?;
            let set_math: unsafe extern "C" fn(Handle, c_int) -> c_int = find(&library, "cublasSetMathMode")?;
            let (gemm, destroy) = (find(&library, "cublasGemmEx")?, find(&library, "cublasDestroy_v2")?);
            check(&library, "starting cuBLAS", create(&mut handle))?;
            let blas = Self { library, handle, gemm, destroy };
            check(&blas.library, "giving cuBLAS its stream", set_stream(handle, stream))?;
            check(&blas.library, "setting how cuBLAS sums", set_math(handle, MATH))?;
            Ok(blas)
        }
    }

    /// Puts a product on the stream.
    pub fn product(&self, gemm: &Gemm) -> Result<(), CudaError> {
        let what = || format!("a product of [{}, {}] and [{}, {1}]", gemm.rows, gemm.inputs, gemm.outs);
        let int = |x: usize| c_int::try_from(x);
        let (Ok(rows), Ok(inputs), Ok(outs), Ok(width)) =
            (int(gemm.rows), int(gemm.inputs), int(gemm.outs), int(gemm.width))
        else {
            return Err(CudaError::Call { what: what(), error: "cuBLAS counts to 2147483647".into() });
        };
        let (one, before, kind) = (1f32, if gemm.add { 1f32 } else { 0.0 }, number_type(gemm.kind));
        let at = |address: u64| address as *mut c_void;
        // Column by column, as cuBLAS reads, x is [in, rows] and w [in, outs]; what it writes, wᵀ · x [outs, rows], is
        // out row by row.
        // SAFETY: the matrices are on the card by the caller's word; the two factors are read before the call returns.
        let code = unsafe {
            (self.gemm)(
                self.handle,
                TRANSPOSED,
                AS_IT_IS,
                outs,
                rows,
                inputs,
                (&raw const one).cast(),
                at(gemm.weights),
                kind,
                inputs,
                at(gemm.x),
                kind,
                inputs,
                (&raw const before).cast(),
                at(gemm.out),
                number_type(KvType::F32),
                width,
                SUMS_F32,
                ANY_ALGORITHM,
            )
        };
        check(&self.library, &what(), code)
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: ours, and used no more. On a lost card nothing can be done about an error.
        unsafe { (self.destroy)(self.handle) };
    }
}

unsafe fn find<F: Copy>(library: &Shared, function: &'static str) -> Result<F, CudaError> {
    let what = format!("opening cuBLAS ({})", library.found.file.display());
    let error = || format!("it has no {function}; install it again: pip install nvidia-cublas");
    // SAFETY: the caller's word.
    unsafe { library.function(function) }.ok_or_else(|| CudaError::Call { what, error: error() })
}

fn check(library: &Shared, what: &str, code: c_int) -> Result<(), CudaError> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: as cublas_api.h declares it; it gives a text that stays, or null.
    let name = unsafe {
        let ask = library.function::<unsafe extern "C" fn(c_int) -> *const c_char>("cublasGetStatusName");
        let text = ask.map_or(std::ptr::null(), |ask| ask(code));
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    };
    let error = name.unwrap_or_else(|| format!("cuBLAS status {code}"));
    Err(CudaError::Call { what: what.into(), error })
}
