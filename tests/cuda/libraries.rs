//! Where CUDA's libraries are looked for, on machines of this test's making.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use attnscope::backend::cuda::libraries::{Library, Search, find};
use attnscope::backend::cuda::places::Way;
use attnscope::backend::cuda::system::System;
use attnscope::backend::cuda::version::Version;

#[derive(Default)]
struct Machine {
    vars: BTreeMap<&'static str, String>,
    files: BTreeSet<PathBuf>,
    /// From a file to the one that it is a link to.
    links: BTreeMap<PathBuf, PathBuf>,
    /// What the loader finds by name.
    loader: BTreeMap<&'static str, &'static str>,
}

impl Machine {
    fn var(mut self, name: &'static str, value: &str) -> Machine {
        self.vars.insert(name, value.into());
        self
    }
    fn file(mut self, path: &str) -> Machine {
        self.files.insert(path.into());
        self
    }
    fn link(mut self, from: &str, to: &str) -> Machine {
        self.links.insert(from.into(), to.into());
        self.file(from).file(to)
    }
    fn loads(mut self, name: &'static str, path: &'static str) -> Machine {
        self.loader.insert(name, path);
        self
    }
    fn nvrtc(&self) -> Search {
        find(self, Library::Nvrtc, None)
    }
    /// The file and the way of NVRTC.
    fn found(&self) -> Option<(String, Way)> {
        self.nvrtc().found.map(|found| (found.file.display().to_string(), found.way))
    }
}

impl System for Machine {
    fn var(&self, name: &str) -> Option<OsString> {
        self.vars.get(name).map(OsString::from)
    }
    fn list(&self, folder: &Path) -> Vec<String> {
        let below = self.files.iter().filter_map(|file| file.strip_prefix(folder).ok());
        let names = below.filter_map(|rest| rest.components().next());
        let names: BTreeSet<String> = names.map(|name| name.as_os_str().to_string_lossy().into_owned()).collect();
        names.into_iter().collect()
    }
    fn real(&self, path: &Path) -> Option<PathBuf> {
        let mut plain = PathBuf::new();
        for part in path.components() {
            match part {
                Component::ParentDir => drop(plain.pop()),
                part => plain.push(part),
            }
        }
        let exists = self.files.iter().any(|file| file.starts_with(&plain));
        exists.then(|| self.links.get(&plain).cloned().unwrap_or(plain))
    }
    fn load(&self, name: &str) -> Option<PathBuf> {
        self.loader.get(name).map(PathBuf::from)
    }
}

const CU13: &str = "site-packages/nvidia/cu13/lib/libnvrtc.so.13";

#[test]
fn a_machine_can_be_taken_for_one_that_has_the_driver_alone() {
    let machine = || {
        let machine = Machine::default().loads("libnvrtc.so.13", "/lib/libnvrtc.so.13");
        machine.file("/usr/local/cuda/lib64/libnvrtc.so.13").loads("libcuda.so.1", "/lib/libcuda.so.1")
    };
    assert!(machine().found().is_some());
    let alone = machine().var("ATTNSCOPE_CUDA_TOOLKIT", "none");
    assert_eq!(alone.found(), None);
    assert!(alone.nvrtc().looked.is_empty());
    assert!(find(&alone, Library::Cuda, None).found.is_some());
}

#[test]
fn each_place_stands_in_for_the_one_before() {
    let venv = format!("/venv/lib/python3.12/{CU13}");
    let local = format!("/home/me/.local/lib/python3.11/{CU13}");
    let mut machine = Machine::default()
        .var("ATTNSCOPE_CUDA_LIBRARIES", "/nowhere:/named")
        .var("CUDA_HOME", "/opt/cuda")
        .var("CUDA_PATH", "/opt/other")
        .var("VIRTUAL_ENV", "/venv")
        .var("HOME", "/home/me")
        .var("CONDA_PREFIX", "/conda")
        .file("/named/libnvrtc.so.12")
        .loads("libnvrtc.so.13", "/usr/lib/libnvrtc.so.13.0.88")
        .file("/opt/cuda/lib64/libnvrtc.so.12")
        .file("/opt/other/lib64/libnvrtc.so.12")
        .file("/usr/local/cuda/lib64/libnvrtc.so.13")
        .file(&venv)
        .file(&local)
        .file("/conda/lib/libnvrtc.so.12");
    let expected = [
        ("/named/libnvrtc.so.12", Way::Named),
        ("/usr/lib/libnvrtc.so.13.0.88", Way::Loader),
        ("/opt/cuda/lib64/libnvrtc.so.12", Way::Variable("CUDA_HOME")),
        ("/opt/other/lib64/libnvrtc.so.12", Way::Variable("CUDA_PATH")),
        ("/usr/local/cuda/lib64/libnvrtc.so.13", Way::Toolkit),
        (&venv, Way::Python),
        (&local, Way::Python),
        ("/conda/lib/libnvrtc.so.12", Way::Variable("CONDA_PREFIX")),
    ];
    for (file, way) in expected {
        assert_eq!(machine.found(), Some((file.to_owned(), way)));
        machine.files.remove(Path::new(file));
        if way == Way::Loader {
            machine.loader.clear();
        }
    }
    assert_eq!(machine.found(), None);
}

#[test]
fn the_loader_is_asked_by_name_and_other_files_are_opened_by_path() {
    let machine = Machine::default().loads("libnvrtc.so.12", "/usr/lib/libnvrtc.so.12.8.93");
    let found = machine.nvrtc().found.expect("the loader's");
    assert_eq!((found.opened_by.to_str(), found.version), (Some("libnvrtc.so.12"), 12));
    let folder = "/usr/local/cuda/lib64";
    let machine = Machine::default()
        .file(&format!("{folder}/libnvrtc.so.13"))
        .file(&format!("{folder}/libnvrtc.so"))
        .file(&format!("{folder}/libnvrtc-builtins.so.13.0"))
        .file(&format!("{folder}/libnvrtc-builtins.so.12.8"))
        .file(&format!("{folder}/libnvrtc-builtins.so.13.0.88"))
        .file(&format!("{folder}/libnvrtc-builtins.alt.so.13.0"))
        .file(&format!("{folder}/libcublas.so.13"))
        .file(&format!("{folder}/libcublasLt.so.13"));
    let found = machine.nvrtc().found.expect("the toolkit's");
    assert_eq!(found.opened_by, Path::new(folder).join("libnvrtc.so.13"));
    assert_eq!(found.before, [Path::new(folder).join("libnvrtc-builtins.so.13.0")]);
    let cublas = find(&machine, Library::Cublas, None).found.expect("the toolkit's");
    assert_eq!(cublas.before, [Path::new(folder).join("libcublasLt.so.13")]);
}

#[test]
fn python_is_found_through_path_without_running_it() {
    // A virtual environment that is not activated, and the Python that its link leads to.
    let own = format!("/home/ann/.venv/lib/python3.12/{CU13}");
    let base = format!("/opt/python/lib/python3.12/{CU13}");
    let mut machine = Machine::default()
        .var("PATH", "relative:/usr/bin:/home/ann/.venv/bin")
        .link("/home/ann/.venv/bin/python3", "/opt/python/bin/python3.12")
        .file("relative/python3")
        .file(&format!("lib/python3.12/{CU13}"))
        .file(&own)
        .file(&base);
    assert_eq!(machine.found(), Some((own.clone(), Way::Python)));
    machine.files.remove(Path::new(&own));
    assert_eq!(machine.found(), Some((base, Way::Python)));

    // pyenv: a script stands in for python3; the newest version's packages come first.
    let machine = Machine::default()
        .var("PATH", "/home/me/.pyenv/shims")
        .file("/home/me/.pyenv/shims/python3")
        .file(&format!("/home/me/.pyenv/versions/3.9.18/lib/python3.9/{CU13}"))
        .file(&format!("/home/me/.pyenv/versions/3.13.0/lib/python3.13/{CU13}"));
    let (file, _) = machine.found().expect("a version's");
    assert!(file.contains("/3.13.0/"), "{file}");

    // A distribution's, and the folders of CUDA 12's wheels.
    let machine = Machine::default()
        .var("PATH", "/usr/bin")
        .file("/usr/bin/python3")
        .file("/usr/lib/python3/dist-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12")
        .file("/usr/local/lib/python3.11/dist-packages/nvidia/cublas/lib/libcublas.so.12");
    assert_eq!(machine.found().map(|(_, way)| way), Some(Way::Python));
    assert_eq!(find(&machine, Library::Cublas, None).found.map(|found| found.version), Some(12));
}

#[test]
fn what_the_driver_cannot_take_is_passed_over() {
    let old = Some(Version::new(12, 4));
    let machine = Machine::default()
        .loads("libnvrtc.so.13", "/usr/lib/libnvrtc.so.13")
        .loads("libnvrtc.so.12", "/usr/lib/libnvrtc.so.12");
    let search = find(&machine, Library::Nvrtc, old);
    assert_eq!(search.found.map(|found| found.version), Some(12));
    assert_eq!(search.too_new.iter().map(|found| found.version).collect::<Vec<_>>(), [13]);
    assert_eq!(machine.nvrtc().found.map(|found| found.version), Some(13));
    let machine = Machine::default().loads("libnvrtc.so.13", "/usr/lib/libnvrtc.so.13");
    assert!(find(&machine, Library::Nvrtc, old).found.is_none());
    assert_eq!(Library::Nvrtc.remedy(old), "pip install nvidia-cuda-nvrtc-cu12");
    assert_eq!(Library::Nvrtc.remedy(None), "pip install nvidia-cuda-nvrtc");
}

/// A toolkit brings a stub of libcuda that only links; the driver's own lies elsewhere.
#[test]
fn the_drivers_libraries_are_looked_for_beside_the_driver() {
    let machine = Machine::default()
        .var("CUDA_HOME", "/usr/local/cuda")
        .file("/usr/local/cuda/lib64/libcuda.so.1")
        .file("/usr/local/cuda/lib64/stubs/libcuda.so.1");
    assert!(find(&machine, Library::Cuda, None).found.is_none());
    let machine = machine.file("/usr/lib/wsl/lib/libcuda.so.1").file("/usr/lib/wsl/lib/libnvidia-ml.so.1");
    for library in [Library::Cuda, Library::Nvml] {
        let found = find(&machine, library, Some(Version::new(12, 0))).found.expect("the driver's");
        assert_eq!((found.way, found.version), (Way::Driver, 1));
    }
    let machine = machine.loads("libcuda.so.1", "/usr/lib/libcuda.so.580.65.06");
    assert_eq!(find(&machine, Library::Cuda, None).found.map(|found| found.way), Some(Way::Loader));
}
