//! Where a model runs.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::backend::cpu::CpuBackend;
use crate::backend::cuda::backend::CudaBackend;
use crate::backend::cuda::device::Device as Card;
use crate::backend::cuda::driver::Driver;
use crate::backend::cuda::error::CudaError;
use crate::backend::{Backend, Result, Shape};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// A card if there is one that works, else the CPU; which and why not is told.
    Auto,
    Cpu,
    /// The card of this number.
    Cuda(u32),
}

impl Device {
    /// The backend, and, where a card was looked for and not taken, why not.
    pub(super) fn backend(
        self,
        shape: Shape,
        exact: bool,
        threads: usize,
    ) -> Result<(Box<dyn Backend>, Option<String>)> {
        let cpu = |shape| -> Result<Box<dyn Backend>> { Ok(Box::new(CpuBackend::new(shape, exact, threads)?)) };
        let cuda = |card: Driver, shape| -> Result<Box<dyn Backend>> {
            let card: Arc<dyn Card> = Arc::new(card);
            Ok(Box::new(CudaBackend::new(card, shape, exact, threads)?))
        };
        match self {
            Device::Cpu => Ok((cpu(shape)?, None)),
            Device::Cuda(card) => Ok((cuda(Driver::open(card)?, shape)?, None)),
            Device::Auto => match Driver::open(0) {
                Ok(card) => match cuda(card, shape.clone()) {
                    Ok(backend) => Ok((backend, None)),
                    Err(error) => Ok((cpu(shape)?, Some(format!("not on the card: {error}")))),
                },
                Err(CudaError::NoDriver) => Ok((cpu(shape)?, None)),
                Err(error) => Ok((cpu(shape)?, Some(format!("not on a card: {error}")))),
            },
        }
    }

    /// Whether there is such a device, before anything is read or fetched for it.
    ///
    /// # Errors
    /// Why a card that was asked for cannot be used.
    pub fn check(self) -> std::result::Result<(), CudaError> {
        match self {
            Device::Auto | Device::Cpu => Ok(()),
            Device::Cuda(card) => Driver::open(card).map(drop),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.split_once(':') {
            None if text == "auto" => Ok(Device::Auto),
            None if text == "cpu" => Ok(Device::Cpu),
            None if text == "cuda" => Ok(Device::Cuda(0)),
            Some(("cuda", n)) => n.parse().map(Device::Cuda).map_err(|_| "write cuda:N with a whole number N".into()),
            _ => Err("auto, cpu, cuda or cuda:N".into()),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}
