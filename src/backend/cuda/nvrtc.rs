//! NVRTC: from a kernel's source to code for a card, without a toolkit and without a card.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::ptr;

use miette::Diagnostic;
use thiserror::Error;

use super::shared::Shared;
use super::version::Version;

/// How all kernels are compiled, beside the target: rounding as IEEE 754 has it, no fast mathematics.
pub const OPTIONS: [&str; 2] = ["--std=c++17", "--fmad=true"];

/// Lines of the compiler's log that an error shows.
const LOG_LINES: usize = 40;
const LOG_COLUMNS: usize = 200;

/// What code is made for: the compute capability, 90 for 9.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// For every card from this one on; the driver finishes it, and must not be older than NVRTC.
    Ptx(u32),
    /// Machine code for cards of this generation; a driver of the same major version takes it.
    Cubin(u32),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Ptx(card) => write!(f, "compute_{card}"),
            Target::Cubin(card) => write!(f, "sm_{card}"),
        }
    }
}

/// A source in memory, and what it includes by name.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    pub name: &'a str,
    pub text: &'a str,
    /// (name, text)
    pub headers: &'a [(&'a str, &'a str)],
}

#[derive(Debug, Error, Diagnostic)]
pub enum NvrtcError {
    #[error("{path:?} is no NVRTC that can be used: it has no {function}")]
    #[diagnostic(help("install one of CUDA 12 or newer: pip install nvidia-cuda-nvrtc"))]
    Foreign { path: std::path::PathBuf, function: &'static str },
    #[error("{name} cannot be handed to NVRTC: it holds a NUL")]
    Nul { name: String },
    #[error("NVRTC {version} cannot compile {name} for {target}: {what}\n{log}")]
    Compile { version: Version, name: String, target: Target, what: String, log: String },
    #[error("NVRTC {version} failed with {what}")]
    #[diagnostic(help("its libnvrtc-builtins must lie beside it; install it again: pip install nvidia-cuda-nvrtc"))]
    Failed { version: Version, what: String },
}

type Program = *mut c_void;
type Strings = *const *const c_char;

/// NVRTC, ready to compile; several threads may use it at once.
pub struct Nvrtc {
    pub version: Version,
    /// Compute capabilities that it compiles for, ascending: 75, 80, …
    pub cards: Vec<u32>,
    calls: Calls,
    pub library: Shared,
}

/// As nvrtc.h declares them. cudarc's own would panic where one is missing, and take whichever NVRTC the loader
/// names first.
struct Calls {
    create: unsafe extern "C" fn(*mut Program, *const c_char, *const c_char, c_int, Strings, Strings) -> c_uint,
    compile: unsafe extern "C" fn(Program, c_int, Strings) -> c_uint,
    destroy: unsafe extern "C" fn(*mut Program) -> c_uint,
    ptx_size: unsafe extern "C" fn(Program, *mut usize) -> c_uint,
    ptx: unsafe extern "C" fn(Program, *mut c_char) -> c_uint,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> c_uint,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> c_uint,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> c_uint,
    log: unsafe extern "C" fn(Program, *mut c_char) -> c_uint,
    describe: unsafe extern "C" fn(c_uint) -> *const c_char,
}

impl Nvrtc {
    pub fn new(library: Shared) -> Result<Nvrtc, NvrtcError> {
        let foreign = |function| NvrtcError::Foreign { path: library.found.file.clone(), function };
        // SAFETY: each field has the type that nvrtc.h gives the function of that name.
        let calls = unsafe {
            macro_rules! call {
                ($name:literal) => {
                    library.function($name).ok_or_else(|| foreign($name))?
                };
            }
            Calls {
                create: call!("nvrtcCreateProgram"),
                compile: call!("nvrtcCompileProgram"),
                destroy: call!("nvrtcDestroyProgram"),
                ptx_size: call!("nvrtcGetPTXSize"),
                ptx: call!("nvrtcGetPTX"),
                cubin_size: call!("nvrtcGetCUBINSize"),
                cubin: call!("nvrtcGetCUBIN"),
                log_size: call!("nvrtcGetProgramLogSize"),
                log: call!("nvrtcGetProgramLog"),
                describe: call!("nvrtcGetErrorString"),
            }
        };
        let version = library.nvrtc().ok_or_else(|| foreign("nvrtcVersion"))?;
        let cards = cards(&library).ok_or_else(|| foreign("nvrtcGetSupportedArchs"))?;
        Ok(Nvrtc { version, cards, calls, library })
    }

    /// PTX as text without its NUL, or machine code.
    pub fn compile(&self, source: Source<'_>, target: Target) -> Result<Vec<u8>, NvrtcError> {
        let c = |text: &str| CString::new(text).map_err(|_| NvrtcError::Nul { name: source.name.to_owned() });
        let all = |texts: Vec<&str>| texts.into_iter().map(c).collect::<Result<Vec<CString>, NvrtcError>>();
        let (text, name) = (c(source.text)?, c(source.name)?);
        let header_names = all(source.headers.iter().map(|(name, _)| *name).collect())?;
        let header_texts = all(source.headers.iter().map(|(_, text)| *text).collect())?;
        let architecture = format!("--gpu-architecture={target}");
        let options = all(OPTIONS.into_iter().chain([architecture.as_str()]).collect())?;
        let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect::<Vec<_>>();
        let (names, texts, options_) = (pointers(&header_names), pointers(&header_texts), pointers(&options));

        let mut program = Owned { program: ptr::null_mut(), calls: &self.calls };
        // SAFETY: all strings end in NUL and outlive the program; the counts are theirs.
        let created = unsafe {
            (self.calls.create)(
                &mut program.program,
                text.as_ptr(),
                name.as_ptr(),
                names.len() as c_int,
                texts.as_ptr(),
                names.as_ptr(),
            )
        };
        self.check(created)?;
        // SAFETY: as above.
        let compiled = unsafe { (self.calls.compile)(program.program, options_.len() as c_int, options_.as_ptr()) };
        if compiled != 0 {
            let log = program.bytes(self.calls.log_size, self.calls.log).unwrap_or_default();
            return Err(NvrtcError::Compile {
                version: self.version,
                name: source.name.to_owned(),
                target,
                what: self.describe(compiled),
                log: readable(&String::from_utf8_lossy(&log)),
            });
        }
        let made = match target {
            Target::Ptx(_) => program.bytes(self.calls.ptx_size, self.calls.ptx).map(|mut ptx| {
                ptx.truncate(ptx.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1));
                ptx
            }),
            Target::Cubin(_) => program.bytes(self.calls.cubin_size, self.calls.cubin),
        };
        made.map_err(|code| NvrtcError::Failed { version: self.version, what: self.describe(code) })
    }

    fn check(&self, code: c_uint) -> Result<(), NvrtcError> {
        match code {
            0 => Ok(()),
            code => Err(NvrtcError::Failed { version: self.version, what: self.describe(code) }),
        }
    }

    fn describe(&self, code: c_uint) -> String {
        // SAFETY: it answers any number with a string of its own that stays.
        let name = unsafe { (self.calls.describe)(code) };
        if name.is_null() {
            return format!("error {code}");
        }
        // SAFETY: as above.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    }
}

fn cards(library: &Shared) -> Option<Vec<u32>> {
    let mut count = 0;
    // SAFETY: as nvrtc.h declares them; the second writes as many ints as the first says.
    unsafe {
        let ask: unsafe extern "C" fn(*mut c_int) -> c_uint = library.function("nvrtcGetNumSupportedArchs")?;
        let list: unsafe extern "C" fn(*mut c_int) -> c_uint = library.function("nvrtcGetSupportedArchs")?;
        if ask(&mut count) != 0 || !(1..=1000).contains(&count) {
            return None;
        }
        let mut all = vec![0; count as usize];
        if list(all.as_mut_ptr()) != 0 {
            return None;
        }
        let mut cards: Vec<u32> = all.into_iter().filter_map(|card| u32::try_from(card).ok()).collect();
        cards.sort_unstable();
        Some(cards)
    }
}

/// A program of NVRTC's, destroyed when dropped.
struct Owned<'a> {
    program: Program,
    calls: &'a Calls,
}

impl Owned<'_> {
    /// What a pair of calls gives: how many bytes, and these.
    fn bytes(
        &self,
        size: unsafe extern "C" fn(Program, *mut usize) -> c_uint,
        get: unsafe extern "C" fn(Program, *mut c_char) -> c_uint,
    ) -> Result<Vec<u8>, c_uint> {
        let mut count = 0;
        // SAFETY: the program is alive; `get` writes as many bytes as `size` says.
        unsafe {
            match size(self.program, &mut count) {
                0 => {}
                code => return Err(code),
            }
            let mut bytes = vec![0_u8; count];
            match get(self.program, bytes.as_mut_ptr().cast()) {
                0 => Ok(bytes),
                code => Err(code),
            }
        }
    }
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        if !self.program.is_null() {
            // SAFETY: it was created and is not used again. What could go wrong can no longer be told anyone.
            unsafe { (self.calls.destroy)(&mut self.program) };
        }
    }
}

/// The compiler's log, of bearable length, with nothing in it that could steer a terminal.
fn readable(log: &str) -> String {
    let log = log.trim_matches(['\0', '\n', '\r', ' ']);
    let mut lines: Vec<String> = log.lines().take(LOG_LINES).map(line).collect();
    let left = log.lines().count().saturating_sub(LOG_LINES);
    if left > 0 {
        lines.push(format!("… {left} more lines"));
    }
    lines.join("\n")
}

fn line(line: &str) -> String {
    let plain = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    line.chars().take(LOG_COLUMNS).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_shown_short_and_plain() {
        assert_eq!(readable("a.cu(1): error\x1b[2J\n\0"), "a.cu(1): error\\u{1b}[2J");
        let long = readable(&"x\n".repeat(100));
        assert!(long.ends_with("\n… 60 more lines") && long.lines().count() == LOG_LINES + 1, "{long}");
        assert_eq!(readable(&"y".repeat(1000)).len(), LOG_COLUMNS);
    }
}
