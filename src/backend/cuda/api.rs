//! The driver's functions, looked up by name in the library that was found: one that is missing is an error, no panic.
//! Types as cuda.h has them; results stay numbers, since a driver may give one that nobody here has heard of.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use super::error::CudaError;
use super::shared::Shared;

/// Of a context, stream, event, graph, module or function.
pub type Handle = *mut c_void;

macro_rules! api {
    ($($field:ident = $name:literal ($($arg:ty),*);)*) => {
        /// What the driver can be asked for; each gives 0 or an error's number.
        pub struct Api {
            $(pub $field: unsafe extern "C" fn($($arg),*) -> c_uint,)*
            error_name: Describe,
            error_text: Describe,
        }

        impl Api {
            pub fn new(library: &Shared) -> Result<Self, CudaError> {
                // SAFETY: the types are those of cuda.h.
                unsafe {
                    Ok(Self {
                        $($field: library.function($name).ok_or(CudaError::Missing { function: $name })?,)*
                        error_name: find(library, "cuGetErrorName")?,
                        error_text: find(library, "cuGetErrorString")?,
                    })
                }
            }
        }
    };
}

type Describe = unsafe extern "C" fn(c_uint, *mut *const c_char) -> c_uint;

unsafe fn find(library: &Shared, function: &'static str) -> Result<Describe, CudaError> {
    // SAFETY: the caller's word.
    unsafe { library.function(function) }.ok_or(CudaError::Missing { function })
}

api! {
    init = "cuInit" (c_uint);
    count = "cuDeviceGetCount" (*mut c_int);
    device = "cuDeviceGet" (*mut c_int, c_int);
    name = "cuDeviceGetName" (*mut c_char, c_int, c_int);
    uuid = "cuDeviceGetUuid_v2" (*mut u8, c_int);
    attribute = "cuDeviceGetAttribute" (*mut c_int, c_int, c_int);
    retain_context = "cuDevicePrimaryCtxRetain" (*mut Handle, c_int);
    release_context = "cuDevicePrimaryCtxRelease_v2" (c_int);
    set_context = "cuCtxSetCurrent" (Handle);
    memory = "cuMemGetInfo_v2" (*mut usize, *mut usize);
    allocate = "cuMemAlloc_v2" (*mut u64, usize);
    free = "cuMemFree_v2" (u64);
    upload = "cuMemcpyHtoDAsync_v2" (u64, *const c_void, usize, Handle);
    download = "cuMemcpyDtoHAsync_v2" (*mut c_void, u64, usize, Handle);
    copy = "cuMemcpyDtoDAsync_v2" (u64, u64, usize, Handle);
    set = "cuMemsetD8Async" (u64, u8, usize, Handle);
    stream = "cuStreamCreate" (*mut Handle, c_uint);
    end_stream = "cuStreamDestroy_v2" (Handle);
    wait = "cuStreamSynchronize" (Handle);
    begin_capture = "cuStreamBeginCapture_v2" (Handle, c_uint);
    end_capture = "cuStreamEndCapture" (Handle, *mut Handle);
    instantiate = "cuGraphInstantiateWithFlags" (*mut Handle, Handle, u64);
    run_graph = "cuGraphLaunch" (Handle, Handle);
    end_graph = "cuGraphDestroy" (Handle);
    end_runnable = "cuGraphExecDestroy" (Handle);
    event = "cuEventCreate" (*mut Handle, c_uint);
    record = "cuEventRecord" (Handle, Handle);
    record_with = "cuEventRecordWithFlags" (Handle, Handle, c_uint);
    wait_event = "cuEventSynchronize" (Handle);
    elapsed = "cuEventElapsedTime" (*mut f32, Handle, Handle);
    end_event = "cuEventDestroy_v2" (Handle);
    module = "cuModuleLoadData" (*mut Handle, *const c_void);
    end_module = "cuModuleUnload" (Handle);
    function = "cuModuleGetFunction" (*mut Handle, Handle, *const c_char);
    function_attribute = "cuFuncSetAttribute" (Handle, c_int, c_int);
    launch = "cuLaunchKernel" (Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void, *mut *mut c_void);
}

impl Api {
    /// An error's name and what the driver says about it.
    pub fn describe(&self, code: c_uint) -> String {
        let ask = |function: Describe| {
            let mut text = std::ptr::null();
            // SAFETY: writes a pointer to a text that stays, or null.
            unsafe {
                (function(code, &mut text) == 0 && !text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy())
            }
        };
        match (ask(self.error_name), ask(self.error_text)) {
            (Some(name), Some(text)) => format!("{name}: {text}"),
            (Some(name), None) => name.into_owned(),
            _ => format!("CUDA error {code}"),
        }
    }
}
