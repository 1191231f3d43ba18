//! Ranges "layer → operation" for Nsight's tools, through NVTX where its library is found.

use std::ffi::{CStr, c_char, c_int};

use crate::backend::cuda::libraries::{Library, find};
use crate::backend::cuda::shared::{Shared, open};
use crate::backend::cuda::system::ThisMachine;

/// NVTX's functions; calls return at once where no tool is attached.
#[derive(Clone, Copy)]
pub struct Nvtx {
    push: unsafe extern "C" fn(*const c_char) -> c_int,
    pop: unsafe extern "C" fn() -> c_int,
}

impl Nvtx {
    /// `None` where the library is not found or has no ranges: then there is nothing to call.
    pub fn open() -> Option<Self> {
        let library = open(&find(&ThisMachine, Library::Nvtx, None).found?).ok()?;
        Self::of(&library)
    }

    /// The functions of an open library, which is never closed.
    pub fn of(library: &Shared) -> Option<Self> {
        // SAFETY: as nvToolsExt.h declares them.
        unsafe { Some(Self { push: library.function("nvtxRangePushA")?, pop: library.function("nvtxRangePop")? }) }
    }

    /// Begins a range of this thread, inside the one that it began before. The name is copied.
    pub fn push(&self, name: &CStr) {
        // SAFETY: a string that ends with 0.
        unsafe { (self.push)(name.as_ptr()) };
    }

    /// Ends the range that this thread began last.
    pub fn pop(&self) {
        // SAFETY: it may be called at any time.
        unsafe { (self.pop)() };
    }
}
