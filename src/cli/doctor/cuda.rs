//! NVIDIA: the driver, its cards, and the libraries that a CUDA backend opens at run time.

use indicatif::HumanBytes;
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use super::Section;

pub fn look() -> Section {
    let mut section = Section::new("NVIDIA");
    section.fact("CUDA backend", "not in this build: models run on the CPU");
    match cards(&mut section) {
        Ok(()) => {}
        Err(NvmlError::LibloadingError(_)) => section.fact("driver", "no NVML library found: no NVIDIA driver here"),
        Err(error) => section.warn("driver", format!("NVML: {error}")),
    }
    // SAFETY: these only try to open the libraries; asking comes before any other call, which would panic without.
    let found = unsafe {
        [
            ("libcuda", cudarc::driver::sys::is_culib_present()),
            ("NVRTC", cudarc::nvrtc::sys::is_culib_present()),
            ("cuBLAS", cudarc::cublas::sys::is_culib_present()),
        ]
    };
    for (name, present) in found {
        section.fact(name, if present { "found" } else { "not found" });
    }
    section
}

fn cards(section: &mut Section) -> Result<(), NvmlError> {
    let nvml = Nvml::init()?;
    let driver = nvml.sys_driver_version()?;
    let cuda = nvml.sys_cuda_driver_version()?;
    section.fact("driver", format!("{driver}, CUDA {}.{}", cuda / 1000, cuda % 1000 / 10));
    for index in 0..nvml.device_count()? {
        let card = nvml.device_by_index(index)?;
        let memory = card.memory_info()?;
        let name = card.name()?;
        let free = format!("{name}, {} of {} free", HumanBytes(memory.free), HumanBytes(memory.total));
        section.fact(format!("card {index}"), free);
    }
    Ok(())
}
