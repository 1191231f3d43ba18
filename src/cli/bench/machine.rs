//! Which machine the figures are from.

use std::fmt;

use serde::Serialize;

use crate::backend::cpu::matmul::Isa;
use crate::cli::doctor::host::cpu_model;

#[derive(Debug, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub logical_cpus: usize,
    pub threads: usize,
    pub kernels: &'static str,
}

impl Machine {
    pub fn this(threads: usize) -> Self {
        Self {
            cpu: cpu_model().unwrap_or_else(|| "unknown".into()),
            logical_cpus: std::thread::available_parallelism().map_or(1, |n| n.get()),
            threads,
            kernels: Isa::detect().name(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, logical_cpus, threads, kernels } = self;
        write!(f, "{cpu}, {logical_cpus} logical CPUs, {threads} threads, {kernels}")
    }
}

/// Most memory that was resident so far, bytes.
pub fn peak_rss() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}
