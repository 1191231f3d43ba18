//! The driver side against a libcuda without a card: the whole way of a kernel, and each kind of failure.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use super::emulator;

/// A folder with the fake `libcuda.so.1`.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fake-driver");
        std::fs::create_dir_all(&folder).expect("a folder for the fake driver");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda/fake_driver.cpp");
        let options = ["-Wl,-soname,libcuda.so.1", "-ldl"];
        emulator::compile(&source, &folder.join("libcuda.so.1"), &options);
        folder
    })
}

/// The program there, with `variables`, and with nothing else of CUDA.
pub fn attnscope(args: &[&str], kernels: &std::ffi::OsStr, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attnscope"));
    command.args(args);
    for name in ["CUDA_HOME", "CUDA_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH", "HOME"] {
        command.env_remove(name);
    }
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fake-home");
    command.env("ATTNSCOPE_HOME", home).env("PATH", "/nowhere");
    command.env("ATTNSCOPE_CUDA_LIBRARIES", folder()).env("FAKE_CUDA_KERNELS", kernels);
    command.envs(variables.iter().copied()).output().expect("the program runs")
}

/// `attnscope doctor --self-test`.
fn self_test(variables: &[(&str, &str)]) -> Output {
    attnscope(&["doctor", "--self-test", "--json"], emulator::built("gated").as_os_str(), variables)
}

/// What was said on standard error, as one line: the report is wrapped to the terminal.
pub fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).replace(['│', '\n'], " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn fails(variables: &[(&str, &str)], code: i32, words: &[&str]) {
    let output = self_test(variables);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("the rest of the report");
    assert!(report["sections"]["NVIDIA"]["libcuda"].is_object(), "{report}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
}

#[test]
fn a_kernel_goes_all_the_way_through_the_driver() {
    let output = self_test(&[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let found = |name: &str| all["sections"]["self-test"][name]["found"].as_str().unwrap_or_default().to_owned();
    assert_eq!(found("card 0"), "Fake card, compute capability 9.0");
    assert!(found("kernels").starts_with("right"), "{all}");
    assert!(found("copying").contains("GB/s"), "{all}");
}

#[test]
fn each_failure_says_what_and_what_to_do() {
    fails(&[("FAKE_CUDA_CARDS", "0")], 3, &["there is no card 0", "CUDA_VISIBLE_DEVICES"]);
    fails(&[("FAKE_CUDA_FAIL", "cuInit:1:100")], 1, &["starting CUDA", "CUDA_ERROR_NO_DEVICE"]);
    fails(&[("FAKE_CUDA_VERSION", "11040")], 3, &["the driver is too old", "CUDA 11.4", "newer NVIDIA driver"]);
    fails(&[("FAKE_CUDA_CARD", "70")], 3, &["compute capability 7.0 is too old", "--device cpu"]);
    fails(&[("FAKE_CUDA_FAIL", "cuMemAlloc_v2:3:2")], 1, &["memory is full", "256.00 MiB", "queries-budget"]);
    fails(
        &[("FAKE_CUDA_FAIL", "cuLaunchKernel:1:719")],
        1,
        &["no longer answers", "the kernel gated", "LAUNCH_FAILED"],
    );
    fails(&[("FAKE_CUDA_KERNELS", "/nowhere")], 1, &["finding the kernel gated", "CUDA error 500"]);
}
