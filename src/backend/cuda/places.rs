//! Where CUDA's libraries may lie: folders that the user names, the loader's path, a toolkit, Python's wheels.

use std::env::split_paths;
use std::fmt;
use std::path::{Path, PathBuf};

use super::system::System;

/// Folders to look in before anywhere else, parted as in PATH.
pub const NAMED: &str = "ATTNSCOPE_CUDA_LIBRARIES";

/// `none`: as on a machine that has the driver alone.
pub const WITHOUT: &str = "ATTNSCOPE_CUDA_TOOLKIT";

/// Of a toolkit's folder.
const TOOLKIT: [&str; 3] = ["lib64", "lib", "targets/x86_64-linux/lib"];
/// Of Python's site-packages: wheels of CUDA 13 share one folder, those of 12 have one each.
const WHEELS: [&str; 3] = ["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib", "nvidia/cublas/lib"];
/// The driver's libraries where they are not on the loader's path: containers, WSL, NixOS.
const DRIVER: [&str; 5] = [
    "/usr/local/nvidia/lib64",
    "/usr/lib/wsl/lib",
    "/run/opengl-driver/lib",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
];

/// How a library was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Named,
    Loader,
    Variable(&'static str),
    Toolkit,
    Python,
    Driver,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Named => write!(f, "named by {NAMED}"),
            Way::Loader => f.write_str("on the loader's path"),
            Way::Variable(name) => write!(f, "by {name}"),
            Way::Toolkit => f.write_str("a CUDA toolkit's"),
            Way::Python => f.write_str("of Python's wheels"),
            Way::Driver => f.write_str("beside the driver"),
        }
    }
}

/// One place to look in; the loader's path has no folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub way: Way,
    pub folder: Option<PathBuf>,
}

/// All places that exist, in the order in which they are looked in. `of_driver`: for a library that the driver brings,
/// which is looked for in no toolkit (whose folders hold mere stubs of it) and in no wheel. The others are looked for
/// nowhere where [`WITHOUT`] says so.
pub fn places(system: &dyn System, of_driver: bool) -> Vec<Place> {
    if !of_driver && system.var(WITHOUT).is_some_and(|value| value == "none") {
        return Vec::new();
    }
    let named = system.var(NAMED).map(|named| split_paths(&named).collect::<Vec<_>>()).unwrap_or_default();
    let mut all: Vec<Place> = Vec::new();
    add(system, &mut all, named.into_iter().map(|folder| (Way::Named, folder)));
    all.push(Place { way: Way::Loader, folder: None });
    if of_driver {
        add(system, &mut all, DRIVER.into_iter().map(|folder| (Way::Driver, folder.into())));
        return all;
    }
    for name in ["CUDA_HOME", "CUDA_PATH"] {
        let home = system.var(name).map(PathBuf::from);
        let parts = home.iter().flat_map(|home| TOOLKIT.map(|part| (Way::Variable(name), home.join(part))));
        add(system, &mut all, parts);
    }
    add(system, &mut all, TOOLKIT.into_iter().map(|part| (Way::Toolkit, Path::new("/usr/local/cuda").join(part))));
    for packages in site_packages(system) {
        add(system, &mut all, WHEELS.into_iter().map(|part| (Way::Python, packages.join(part))));
    }
    let conda = system.var("CONDA_PREFIX").map(|prefix| PathBuf::from(prefix).join("lib"));
    add(system, &mut all, conda.into_iter().map(|folder| (Way::Variable("CONDA_PREFIX"), folder)));
    all
}

/// Those folders that exist and are not among `all` yet.
fn add(system: &dyn System, all: &mut Vec<Place>, folders: impl IntoIterator<Item = (Way, PathBuf)>) {
    for (way, folder) in folders {
        let folder = system.real(&folder);
        if folder.is_some() && !all.iter().any(|place| place.folder == folder) {
            all.push(Place { way, folder });
        }
    }
}

/// Folders of Python packages: of the environment in use, of each python3 on PATH (which is not run), of the user.
fn site_packages(system: &dyn System) -> Vec<PathBuf> {
    let mut prefixes: Vec<PathBuf> =
        ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().filter_map(|name| system.var(name)).map(PathBuf::from).collect();
    for folder in system.var("PATH").iter().flat_map(split_paths).filter(|folder| folder.is_absolute()) {
        let python = folder.join("python3");
        let Some(real) = system.real(&python) else { continue };
        // A virtual environment's python3 is a link to another one, which has packages of its own.
        let above = |path: &Path| path.parent().and_then(Path::parent).map(Path::to_owned);
        prefixes.extend(above(&python));
        prefixes.extend(above(&real));
        if folder.ends_with("shims") {
            let versions = folder.with_file_name("versions");
            prefixes.extend(newest_first(system.list(&versions)).iter().map(|name| versions.join(name)));
        }
    }
    prefixes.extend(system.var("HOME").map(|home| PathBuf::from(home).join(".local")));
    // What a distribution's own pip installs for everyone.
    prefixes.push("/usr/local".into());
    prefixes.iter().flat_map(|prefix| packages_of(system, prefix)).collect()
}

fn packages_of(system: &dyn System, prefix: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for lib in ["lib", "lib64"].map(|lib| prefix.join(lib)) {
        let pythons = system.list(&lib).into_iter().filter(|name| name.starts_with("python3")).collect();
        for python in newest_first(pythons) {
            all.extend(["site-packages", "dist-packages"].map(|packages| lib.join(&python).join(packages)));
        }
    }
    all
}

/// python3.13 before python3.9.
fn newest_first(mut names: Vec<String>) -> Vec<String> {
    let numbers = |name: &String| -> Vec<u32> {
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
    };
    names.sort_by(|a, b| numbers(b).cmp(&numbers(a)).then_with(|| a.cmp(b)));
    names
}
