//! NVIDIA: the driver, its cards, the libraries that are opened at run time, and where kernels would come from.

use std::time::Duration;

use indicatif::HumanBytes;
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use super::{Section, card};
use crate::backend::cuda::embedded;
use crate::backend::cuda::image::{Plan, plan};
use crate::backend::cuda::libraries::{Library, find};
use crate::backend::cuda::nvrtc::Nvrtc;
use crate::backend::cuda::places::{NAMED, places};
use crate::backend::cuda::shared::{Shared, open};
use crate::backend::cuda::store::Store;
use crate::backend::cuda::system::ThisMachine;
use crate::backend::cuda::version::Version;
use crate::meter::nvml::Which;
use crate::meter::watch::CardMeter;

pub fn look() -> Section {
    let mut section = Section::new("NVIDIA");
    section
        .fact("CUDA backend", "in this program: --device auto takes a card that works, --device cuda insists on one");
    let driver = library(&mut section, Library::Cuda, None).and_then(|cuda| cuda.driver());
    let nvml = library(&mut section, Library::Nvml, driver);
    let nvrtc = library(&mut section, Library::Nvrtc, driver).and_then(|nvrtc| match Nvrtc::new(nvrtc) {
        Ok(nvrtc) => Some(nvrtc),
        Err(error) => {
            section.warn("NVRTC", error.to_string());
            None
        }
    });
    library(&mut section, Library::Cublas, driver);
    library(&mut section, Library::CublasLt, driver);
    library(&mut section, Library::Nvtx, driver);
    looked(&mut section);
    kernels(&mut section, nvrtc.as_ref(), driver);
    match nvml {
        None => section.fact("driver", "no NVML library found: no NVIDIA driver here"),
        Some(nvml) => {
            if let Err(error) = cards(&mut section, &nvml, nvrtc.as_ref(), driver) {
                section.warn("driver", format!("NVML: {error}"));
            }
        }
    }
    section
}

/// Looks for a library and opens it: what was found where, or what to do.
fn library(section: &mut Section, library: Library, driver: Option<Version>) -> Option<Shared> {
    let search = find(&ThisMachine, library, driver);
    let passed_over = search
        .too_new
        .first()
        .map_or(String::new(), |found| format!(" ({} is newer than the driver can take)", found.file.display()));
    let Some(found) = &search.found else {
        section.fact(library.name(), format!("not found: {}{passed_over}", library.remedy(driver)));
        return None;
    };
    match open(found) {
        Ok(shared) => {
            let version = match shared.version() {
                Some(version) => format!(", {version}"),
                None => String::new(),
            };
            let words = format!("{}, {}{version}{passed_over}", found.file.display(), found.way);
            match library == Library::Cuda && shared.driver().is_none() {
                true => section.warn(library.name(), format!("{words}: it tells no version, as a mere stub would")),
                false => section.fact(library.name(), words),
            }
            Some(shared)
        }
        Err(error) => {
            section.warn(library.name(), error.to_string());
            None
        }
    }
}

/// All places that were looked in, in order.
fn looked(section: &mut Section) {
    let mut names: Vec<String> = Vec::new();
    for place in places(&ThisMachine, false).iter().chain(&places(&ThisMachine, true)) {
        let name = place.folder.as_ref().map_or("the loader's path".into(), |folder| folder.display().to_string());
        if !names.contains(&name) {
            names.push(name);
        }
    }
    section.fact("looked in", format!("{}; {NAMED} names others", names.join(", ")));
}

/// Where the code of kernels comes from on this machine.
fn kernels(section: &mut Section, nvrtc: Option<&Nvrtc>, driver: Option<Version>) {
    let embedded = format!(
        "PTX in this program, for cards from {} on and drivers from CUDA {} on",
        cc(embedded::CARD),
        embedded::CUDA
    );
    match nvrtc {
        Some(nvrtc) => {
            let range = match (nvrtc.cards.first(), nvrtc.cards.last()) {
                (Some(first), Some(last)) => format!(" (compute capability {} to {})", cc(*first), cc(*last)),
                _ => String::new(),
            };
            section.fact("kernels", format!("compiled at first use by NVRTC {}{range}", nvrtc.version));
        }
        None => {
            let better = format!("{} has them compiled for the very card", Library::Nvrtc.remedy(driver));
            section.fact("kernels", format!("{embedded}; {better}"));
        }
    }
    match Store::of_user() {
        Some(store) => {
            let size = store.size();
            let words = format!("{}: {} files, {}", store.folder().display(), size.entries, HumanBytes(size.bytes));
            section.fact("compiled kernels", words);
        }
        None => section.warn("compiled kernels", "not kept, this system names no data folder: set ATTNSCOPE_HOME"),
    }
}

fn cards(
    section: &mut Section,
    library: &Shared,
    nvrtc: Option<&Nvrtc>,
    cuda: Option<Version>,
) -> Result<(), NvmlError> {
    let nvml = Nvml::builder().lib_path(library.found.opened_by.as_os_str()).init()?;
    let version = nvml.sys_driver_version()?;
    let driver = Version::of_number(nvml.sys_cuda_driver_version()?);
    section.fact("driver", format!("{version}, CUDA {driver}"));
    for index in 0..nvml.device_count()? {
        let card = nvml.device_by_index(index)?;
        let memory = card.memory_info()?;
        let capability = card.cuda_compute_capability()?;
        let number = u32::try_from(capability.major * 10 + capability.minor).unwrap_or(0);
        let (free, total) = (HumanBytes(memory.free), HumanBytes(memory.total));
        let words = format!("{}, compute capability {}, {free} of {total} free", card.name()?, cc(number));
        let compiler = nvrtc.map(|nvrtc| (nvrtc.version, nvrtc.cards.as_slice()));
        match plan(compiler, cuda.unwrap_or(driver), number) {
            Ok(Plan::Compile(target)) => {
                section.fact(format!("card {index}"), format!("{words}; kernels for {target}"))
            }
            Ok(Plan::Embedded { why }) => {
                section.fact(format!("card {index}"), format!("{words}; kernels from the PTX in this program: {why}"));
            }
            Err(error) => section.warn(format!("card {index}"), format!("{words}; not usable: {error}")),
        }
        now(section, index);
    }
    Ok(())
}

/// How long a card is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a card is doing.
fn now(section: &mut Section, index: u32) {
    let name = format!("card {index} now");
    match CardMeter::start(Which::Index(index)) {
        Err(error) => section.warn(name, error.to_string()),
        Ok(meter) => match meter.first(PATIENCE) {
            Some(sample) => section.fact(name, card::words(&sample)),
            None => {
                let silent = || format!("NVML does not answer within {} s", PATIENCE.as_secs());
                section.warn(name, meter.problem().unwrap_or_else(silent));
            }
        },
    }
}

/// 90 is 9.0.
fn cc(capability: u32) -> String {
    format!("{}.{}", capability / 10, capability % 10)
}
