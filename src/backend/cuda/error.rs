//! What can go wrong between this program and a card.

use indicatif::HumanBytes;
use miette::Diagnostic;
use thiserror::Error;

use super::image::ImageError;
use super::nvrtc::NvrtcError;
use super::shared::OpenError;
use crate::backend::BackendError;

#[derive(Debug, Error, Diagnostic)]
pub enum CudaError {
    #[error("no NVIDIA driver was found (libcuda.so.1)")]
    #[diagnostic(help("run on the CPU (--device cpu); `attnscope doctor` tells where was looked"))]
    NoDriver,
    #[error("there is no card {index}: the driver shows {count}")]
    #[diagnostic(help("`nvidia-smi -L` lists cards; CUDA_VISIBLE_DEVICES may hide some"))]
    NoCard { index: u32, count: i32 },
    #[error("the driver is too old: it has no {function}")]
    #[diagnostic(help("install a newer NVIDIA driver (530 or newer), or run on the CPU (--device cpu)"))]
    Missing { function: &'static str },
    #[error("the card's memory is full: {} asked for, {} of {} free", HumanBytes(*asked), HumanBytes(*free), HumanBytes(*total))]
    #[diagnostic(help(
        "end other programs on the card, keep fewer lanes or queries (--queries-budget), or take a smaller model"
    ))]
    Full { asked: u64, free: u64, total: u64 },
    #[error("the card no longer answers: {what} ended with {error}")]
    #[diagnostic(help(
        "what was recorded so far is kept; `dmesg` may say more (look for Xid); start the program again"
    ))]
    Lost { what: String, error: String },
    #[error("{what}: {error}")]
    Call { what: String, error: String },
    #[error("no kernel {name:?} in this program")]
    NoKernel { name: String },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Nvrtc(#[from] NvrtcError),
}

impl From<CudaError> for BackendError {
    fn from(error: CudaError) -> Self {
        let help = error.help().map(|help| format!(" ({help})")).unwrap_or_default();
        Self::Failed { what: "CUDA".into(), why: format!("{error}{help}") }
    }
}
