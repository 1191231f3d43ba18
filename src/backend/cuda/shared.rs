//! Libraries opened: by the very file that was found, and before cudarc asks the loader for them by name, which then
//! gives it the same ones.

use std::ffi::{c_int, c_uint};
use std::mem::ManuallyDrop;
use std::path::PathBuf;

use miette::Diagnostic;
use thiserror::Error;

use super::libraries::{Found, Library};
use super::version::Version;

#[derive(Debug, Error, Diagnostic)]
#[error("{path:?} cannot be opened: {problem}")]
#[diagnostic(help(
    "if the file is damaged or for another processor, install the library again; \
     ATTNSCOPE_CUDA_LIBRARIES names folders to look in first"
))]
pub struct OpenError {
    path: PathBuf,
    problem: String,
}

/// An open library. It stays open until the program ends: CUDA's libraries do not take being unloaded well.
pub struct Shared {
    pub found: Found,
    handle: ManuallyDrop<libloading::Library>,
}

/// Open what was found, and what it needs before it.
pub fn open(found: &Found) -> Result<Shared, OpenError> {
    for path in &found.before {
        open_path(path)?;
    }
    Ok(Shared { handle: open_path(&found.opened_by)?, found: found.clone() })
}

/// Its symbols stay its own: two versions of a library in one process must not call each other.
fn open_path(path: &PathBuf) -> Result<ManuallyDrop<libloading::Library>, OpenError> {
    // SAFETY: a library of NVIDIA's, by its own name; what it runs when opened is its own affair.
    match unsafe { libloading::Library::new(path) } {
        Ok(library) => Ok(ManuallyDrop::new(library)),
        Err(error) => Err(OpenError { path: path.clone(), problem: error.to_string() }),
    }
}

impl Shared {
    /// A function of the library by name, `None` where it has none of that name.
    ///
    /// # Safety
    /// `F` has to be the type of a pointer to that function.
    pub unsafe fn function<F: Copy>(&self, name: &str) -> Option<F> {
        // SAFETY: the caller's promise; the library is never unloaded.
        unsafe { self.handle.get::<F>(name) }.ok().map(|symbol| *symbol)
    }

    /// What the library says of itself without a card: the CUDA of a driver or of NVRTC, cuBLAS's own version.
    pub fn version(&self) -> Option<String> {
        match self.found.library {
            Library::Cuda => self.driver().map(|version| format!("CUDA {version}")),
            Library::Nvrtc => self.nvrtc().map(|version| version.to_string()),
            Library::Cublas => self.cublas(),
            Library::CublasLt => self.cublas_lt(),
            Library::Nvml | Library::Nvtx => None,
        }
    }

    /// Of libcuda: the newest CUDA that the driver knows. `None` for a toolkit's stub of it.
    pub fn driver(&self) -> Option<Version> {
        let mut number = 0;
        // SAFETY: as cuda.h declares it; it may be called before cuInit and writes one int.
        let failed = unsafe {
            let ask: unsafe extern "C" fn(*mut c_int) -> c_uint = self.function("cuDriverGetVersion")?;
            ask(&mut number)
        };
        (failed == 0 && number > 0).then(|| Version::of_number(number))
    }

    /// Of NVRTC.
    pub fn nvrtc(&self) -> Option<Version> {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: as nvrtc.h declares it; it writes two ints.
        let failed = unsafe {
            let ask: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_uint = self.function("nvrtcVersion")?;
            ask(&mut major, &mut minor)
        };
        let version = Version::new(u32::try_from(major).ok()?, u32::try_from(minor).ok()?);
        (failed == 0).then_some(version)
    }

    fn cublas(&self) -> Option<String> {
        let mut parts = [0; 3];
        for (which, part) in parts.iter_mut().enumerate() {
            // SAFETY: as cublas_v2.h declares it (properties 0, 1, 2: major, minor, patch); it needs no handle.
            let failed = unsafe {
                let ask: unsafe extern "C" fn(c_int, *mut c_int) -> c_uint = self.function("cublasGetProperty")?;
                ask(which as c_int, part)
            };
            if failed != 0 {
                return None;
            }
        }
        Some(parts.map(|part| part.to_string()).join("."))
    }

    fn cublas_lt(&self) -> Option<String> {
        // SAFETY: as cublasLt.h declares it.
        let number = unsafe {
            let ask: unsafe extern "C" fn() -> usize = self.function("cublasLtGetVersion")?;
            ask()
        };
        Some(format!("{}.{}.{}", number / 10_000, number % 10_000 / 100, number % 100))
    }
}
