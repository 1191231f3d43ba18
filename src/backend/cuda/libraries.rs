//! Which libraries of CUDA's this program can use, and the search for them.

use std::path::{Path, PathBuf};

use super::places::{Place, Way, places};
use super::system::System;
use super::version::Version;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// Comes with NVIDIA's driver; nothing runs without it.
    Cuda,
    /// Power, clocks, temperature; comes with the driver.
    Nvml,
    /// Compiles kernels; without it the PTX inside this program is used.
    Nvrtc,
    Cublas,
    CublasLt,
    /// Names ranges of time for Nsight's tools.
    Nvtx,
}

impl Library {
    pub const ALL: [Library; 6] =
        [Library::Cuda, Library::Nvml, Library::Nvrtc, Library::Cublas, Library::CublasLt, Library::Nvtx];

    pub fn name(self) -> &'static str {
        match self {
            Library::Cuda => "libcuda",
            Library::Nvml => "NVML",
            Library::Nvrtc => "NVRTC",
            Library::Cublas => "cuBLAS",
            Library::CublasLt => "cuBLASLt",
            Library::Nvtx => "NVTX",
        }
    }

    /// Its file without a version.
    fn stem(self) -> &'static str {
        match self {
            Library::Cuda => "libcuda.so",
            Library::Nvml => "libnvidia-ml.so",
            Library::Nvrtc => "libnvrtc.so",
            Library::Cublas => "libcublas.so",
            Library::CublasLt => "libcublasLt.so",
            Library::Nvtx => "libnvToolsExt.so",
        }
    }

    /// Versions of its file that will do, the newest first.
    fn versions(self) -> &'static [u32] {
        if self.of_driver() || self == Library::Nvtx { &[1] } else { &[13, 12] }
    }

    /// Whether it comes with the driver.
    pub fn of_driver(self) -> bool {
        matches!(self, Library::Cuda | Library::Nvml)
    }

    /// What to do where it was not found. `driver`: the driver's version of CUDA.
    pub fn remedy(self, driver: Option<Version>) -> String {
        let package = match self {
            Library::Cuda | Library::Nvml => return "it comes with NVIDIA's driver".into(),
            Library::Nvrtc => "nvidia-cuda-nvrtc",
            Library::Cublas | Library::CublasLt => "nvidia-cublas",
            Library::Nvtx => return "it comes with a CUDA toolkit up to 12".into(),
        };
        match driver {
            Some(driver) if driver.major < 13 => format!("pip install {package}-cu12"),
            _ => format!("pip install {package}"),
        }
    }
}

/// A library's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub library: Library,
    /// The number behind `.so.` in the name by which it was found: of CUDA, but for the driver's libraries.
    pub version: u32,
    /// To be opened by: absolute, or the mere name where the loader finds it.
    pub opened_by: PathBuf,
    /// The file as far as that is known.
    pub file: PathBuf,
    pub way: Way,
    /// Files of the same folder that it loads by name later on, to be opened before.
    pub before: Vec<PathBuf>,
}

/// What came of looking for a library.
#[derive(Debug, Clone)]
pub struct Search {
    pub library: Library,
    pub found: Option<Found>,
    /// Found as well, but newer than the driver can take.
    pub too_new: Vec<Found>,
    /// All places, in order.
    pub looked: Vec<Place>,
}

/// Look for `library`. What belongs to a later CUDA than the `driver`'s is passed over: such a driver takes neither
/// the PTX nor the machine code that it makes.
pub fn find(system: &dyn System, library: Library, driver: Option<Version>) -> Search {
    let looked = places(system, library.of_driver());
    let mut too_new = Vec::new();
    for place in &looked {
        let names = place.folder.as_deref().map(|folder| system.list(folder));
        for &version in library.versions() {
            let name = format!("{}.{version}", library.stem());
            let found = match (&place.folder, &names) {
                (Some(folder), Some(names)) if names.contains(&name) => {
                    let path = folder.join(name);
                    Found {
                        library,
                        version,
                        opened_by: path.clone(),
                        file: path,
                        way: place.way,
                        before: before(library, version, folder, names),
                    }
                }
                (None, _) => match system.load(&name) {
                    Some(file) => {
                        Found { library, version, opened_by: name.into(), file, way: place.way, before: Vec::new() }
                    }
                    None => continue,
                },
                _ => continue,
            };
            if !library.of_driver() && driver.is_some_and(|driver| version > driver.major) {
                too_new.push(found);
                continue;
            }
            return Search { library, found: Some(found), too_new, looked };
        }
    }
    Search { library, found: None, too_new, looked }
}

/// NVRTC opens its builtins by name when it compiles, cuBLAS needs cuBLASLt; by absolute path nobody would find them.
fn before(library: Library, version: u32, folder: &Path, names: &[String]) -> Vec<PathBuf> {
    let start = match library {
        Library::Nvrtc => format!("libnvrtc-builtins.so.{version}."),
        Library::Cublas => format!("{}.{version}", Library::CublasLt.stem()),
        _ => return Vec::new(),
    };
    let plain = |rest: &str| rest.bytes().all(|b| b.is_ascii_digit());
    let is = |name: &&String| name.strip_prefix(&start).is_some_and(plain);
    let mut all: Vec<PathBuf> = names.iter().filter(is).map(|name| folder.join(name)).collect();
    all.sort();
    all
}
