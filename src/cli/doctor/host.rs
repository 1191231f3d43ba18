//! The program, the processor and the memory.

use std::fs;

use indicatif::HumanBytes;

use super::Section;
use crate::backend::cpu::matmul::Isa;
use crate::backend::cpu::peaks;
use crate::cli::args::physical_cores;

pub fn program() -> Section {
    let mut section = Section::new("program");
    section.fact("version", env!("CARGO_PKG_VERSION"));
    section.fact("built for", format!("{} {}", std::env::consts::ARCH, std::env::consts::OS));
    section.fact("backends", "cpu, cuda (opened at run time)");
    section
}

pub fn cpu() -> Section {
    let mut section = Section::new("processor");
    section.fact("model", cpu_model().unwrap_or_else(|| "unknown".into()));
    let logical = std::thread::available_parallelism().map_or(1, |n| n.get());
    section.fact("threads used", format!("{} (physical cores allowed; {logical} logical)", physical_cores()));
    section.fact("features", features());
    match Isa::detect() {
        Isa::Portable => section
            .warn("kernels", "portable: this processor has none of the instruction sets with kernels of their own"),
        isa => section.fact("kernels", isa.name()),
    }
    match peaks::of_machine(physical_cores()) {
        Ok(found) => {
            let [read, f32, products] =
                [found.read_bytes_per_s, found.flops_per_s, found.product_flops_per_s].map(|rate| rate / 1e9);
            let words = format!("reads {read:.1} GB/s, f32 {f32:.0} GFLOP/s, Q8_0 products {products:.0} GFLOP/s");
            section.fact("does at best", format!("{words}; {}", found.how));
        }
        Err(error) => section.warn("does at best", error.to_string()),
    }
    section
}

pub fn memory() -> Section {
    let mut section = Section::new("memory");
    match (meminfo("MemTotal:"), meminfo("MemAvailable:")) {
        (Some(total), Some(free)) => {
            section.fact("total", HumanBytes(total).to_string());
            section.fact("available", HumanBytes(free).to_string());
        }
        _ => section.fact("total", "unknown on this system"),
    }
    section
}

/// What the system calls the processor.
pub fn cpu_model() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let named = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        line.split_once(':').map(|(_, name)| name.trim().to_owned())
    };
    named("model name").or_else(|| named("Model"))
}

/// A field of /proc/meminfo, bytes.
fn meminfo(field: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

#[cfg(target_arch = "x86_64")]
fn features() -> String {
    let all = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
    ];
    let found: Vec<String> = all.iter().map(|(name, has)| format!("{}{name}", if *has { "" } else { "no " })).collect();
    found.join(", ")
}

#[cfg(not(target_arch = "x86_64"))]
fn features() -> String {
    "none that the kernels ask for".into()
}
