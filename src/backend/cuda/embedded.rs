//! PTX inside this program, for machines with a driver and no NVRTC: `kernels/ptx/<family>.ptx`, made by
//!
//! ```sh
//! ATTNSCOPE_WRITE_PTX=1 cargo test --release --test cuda ptx
//! ```
//!
//! which fetches NVRTC 12.1 from PyPI (24 MB) and writes those files anew; commit them with the change of the kernel.
//! Run without the variable, the same tests fail for PTX that does not belong to its source or is not, byte for byte,
//! what this NVRTC makes of it. A new family begins with an empty file.
//!
//! Why so old an NVRTC: a driver takes no PTX of a later CUDA than its own, and an NVRTC makes PTX of its own version
//! only. 12.1 makes PTX 8.1, for drivers from 530 on, that of the long-term branch 535 included; 13.0 would ask for
//! 580. Cards newer than CUDA 12.1 take it, too: their drivers finish it for them.

use miette::Diagnostic;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::nvrtc::Target;
use super::source::Family;
use super::version::Version;
use crate::model::source::hex;

/// Makes the files anew.
pub const COMMAND: &str = "ATTNSCOPE_WRITE_PTX=1 cargo test --release --test cuda ptx";
/// The NVRTC that makes them, nvidia-cuda-nvrtc-cu12 on PyPI, and the CUDA that a driver has to know at least.
pub const PACKAGE: &str = "12.1.105";
pub const CUDA: Version = Version::new(12, 1);
/// Of the PTX that it makes.
pub const PTX: Version = Version::new(8, 1);
/// The oldest card.
pub const CARD: u32 = 80;
pub const TARGET: Target = Target::Ptx(CARD);

#[derive(Debug, Error, Diagnostic)]
#[error("the PTX of {family} in this program does not belong to its source: {problem}")]
#[diagnostic(help("in the repository, make it anew: {COMMAND}"))]
pub struct Outdated {
    family: &'static str,
    problem: &'static str,
}

/// The first line of a file: what the PTX behind it was made of and by.
fn head(family: &Family, ptx: &str) -> String {
    let code = hex(&Sha256::digest(ptx));
    format!("// {}: NVRTC {PACKAGE}, {TARGET}, source sha256:{}, code sha256:{code}", family.name, family.sha256())
}

/// A file's contents.
pub fn file(family: &Family, ptx: &str) -> String {
    format!("{}\n{ptx}", head(family, ptx))
}

/// The PTX of a family.
///
/// # Errors
/// Where it was made of another source, or changed since.
pub fn ptx(family: &Family) -> Result<&'static str, Outdated> {
    let outdated = |problem| Outdated { family: family.name, problem };
    let (first, ptx) = family.ptx.split_once('\n').ok_or(outdated("there is none yet"))?;
    let mark = |name: &str| first.split(", ").find_map(|part| part.strip_prefix(name)).map(str::to_owned);
    if mark("source sha256:").is_none_or(|sha256| sha256 != family.sha256()) {
        return Err(outdated("it was made of another text, other headers or with other options"));
    }
    if first != head(family, ptx) {
        return Err(outdated("it was made by another NVRTC, or changed by hand"));
    }
    Ok(ptx)
}

/// The `.version` that PTX says it has.
pub fn version(ptx: &str) -> Option<Version> {
    let line = ptx.lines().find_map(|line| line.trim().strip_prefix(".version"))?;
    let (major, minor) = line.trim().split_once('.')?;
    Some(Version::new(major.parse().ok()?, minor.parse().ok()?))
}
