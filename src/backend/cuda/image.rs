//! Code of a kernel family for one card: compiled for it where NVRTC is here, else the PTX of this program.

use miette::Diagnostic;
use thiserror::Error;

use super::embedded::{self, Outdated};
use super::nvrtc::{Nvrtc, NvrtcError, Target};
use super::source::Family;
use super::store::{Key, Store};
use super::version::Version;

#[derive(Debug, Error, Diagnostic)]
pub enum ImageError {
    #[error("a card of compute capability {}.{} is too old: kernels need {}.{} or newer", card / 10, card % 10,
        embedded::CARD / 10, embedded::CARD % 10)]
    #[diagnostic(help("run on the CPU (--device cpu), or choose another card (--device cuda:N)"))]
    Card { card: u32 },
    #[error("the driver is too old: it knows CUDA {driver}, {needed} is needed")]
    #[diagnostic(help("install a newer NVIDIA driver (530 or newer), or run on the CPU (--device cpu)"))]
    Driver { driver: Version, needed: Version },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Outdated(#[from] Outdated),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Nvrtc(#[from] NvrtcError),
}

/// Where code comes from, decided once for a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// NVRTC makes it, or has made it before.
    Compile(Target),
    /// It lies in this program; `why` not from NVRTC.
    Embedded { why: String },
}

/// What a driver of CUDA version `driver` can be given for a card of compute capability `card` (90 for 9.0), with an
/// NVRTC of (version, cards that it compiles for).
///
/// A driver takes PTX of its own CUDA or an older one, and machine code of any CUDA with its major version.
///
/// # Errors
/// Where nothing runs: the card or the driver is too old.
pub fn plan(nvrtc: Option<(Version, &[u32])>, driver: Version, card: u32) -> Result<Plan, ImageError> {
    if card < embedded::CARD {
        return Err(ImageError::Card { card });
    }
    let instead = |why: String| match driver >= embedded::CUDA {
        true => Ok(Plan::Embedded { why }),
        false => Err(ImageError::Driver { driver, needed: embedded::CUDA }),
    };
    let Some((version, cards)) = nvrtc else {
        return instead("no NVRTC was found".into());
    };
    let known = cards.iter().copied().filter(|&known| (embedded::CARD..=card).contains(&known)).max();
    match known {
        Some(known) if version <= driver => Ok(Plan::Compile(Target::Ptx(known))),
        Some(known) if version.major == driver.major && known / 10 == card / 10 => {
            Ok(Plan::Compile(Target::Cubin(known)))
        }
        Some(_) => instead(format!("NVRTC {version} is newer than the driver, which knows CUDA {driver}")),
        None => instead(format!("NVRTC {version} compiles for no such card")),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// NVRTC has just made it.
    Compiled,
    /// NVRTC made it before.
    Kept,
    Embedded,
}

/// Code of a family, ready for the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// PTX as text without a NUL, or machine code.
    pub code: Vec<u8>,
    pub target: Target,
    pub origin: Origin,
    /// Something to tell once: the code could not be kept.
    pub note: Option<String>,
}

impl Image {
    /// The bytes for `cuModuleLoadData`, which takes PTX up to its NUL.
    pub fn for_driver(mut self) -> Vec<u8> {
        if matches!(self.target, Target::Ptx(_)) {
            self.code.push(0);
        }
        self.code
    }
}

/// Makes images for one card.
pub struct Maker {
    plan: Plan,
    nvrtc: Option<Nvrtc>,
    /// `None`: nothing is kept.
    store: Option<Store>,
}

impl Maker {
    /// As [`plan`].
    pub fn new(nvrtc: Option<Nvrtc>, store: Option<Store>, driver: Version, card: u32) -> Result<Maker, ImageError> {
        let known = nvrtc.as_ref().map(|nvrtc| (nvrtc.version, nvrtc.cards.as_slice()));
        Ok(Maker { plan: plan(known, driver, card)?, nvrtc, store })
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn make(&self, family: &Family) -> Result<Image, ImageError> {
        let (Plan::Compile(target), Some(nvrtc)) = (&self.plan, &self.nvrtc) else {
            let code = embedded::ptx(family)?.as_bytes().to_vec();
            return Ok(Image { code, target: embedded::TARGET, origin: Origin::Embedded, note: None });
        };
        let target = *target;
        let key = Key { source: family.sha256(), target, nvrtc: nvrtc.version };
        if let Some(code) = self.store.as_ref().and_then(|store| store.get(&key)) {
            return Ok(Image { code, target, origin: Origin::Kept, note: None });
        }
        let code = nvrtc.compile(family.source(), target)?;
        let kept = self.store.as_ref().map_or(Ok(()), |store| store.put(&key, &code));
        let told = |error| {
            let folder = self.store.as_ref().map(|store| store.folder().display().to_string()).unwrap_or_default();
            format!("compiled kernels cannot be kept in {folder}: {error}; they are compiled at every start")
        };
        Ok(Image { code, target, origin: Origin::Compiled, note: kept.err().map(told) })
    }
}
