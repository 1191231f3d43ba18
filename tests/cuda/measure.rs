//! `bench --kernels` and `tests/gpu.sh`, through a libcuda without a card.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use attnscope::backend::cuda::measure::{Sizes, measure};
use serde_json::Value;

use crate::driver::{attnscope, folder, said};
use crate::emulator;
use crate::frames;

const KERNELS: [&str; 5] = ["gated", "product", "sampling", "viewport", "decode_attention"];

/// All numbers within, with their names.
fn numbers<'a>(name: &'a str, value: &'a Value, found: &mut Vec<(&'a str, f64)>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| numbers(name, value, found)),
        Value::Array(all) => all.iter().for_each(|value| numbers(name, value, found)),
        value => found.extend(value.as_f64().map(|x| (name, x))),
    }
}

#[test]
fn every_kernel_gets_its_figures() {
    let kernels: OsString = std::env::join_paths(KERNELS.map(emulator::built)).expect("no colon in a path");
    let output = attnscope(&["bench", "--kernels", "--tiny", "--json", "--device", "cuda"], &kernels, &[]);
    assert!(output.status.success(), "{}", said(&output));
    let all: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let count = |name: &str| all[name].as_array().map_or(0, Vec::len);
    // 7 formats, 2 widths, 1 row and 8; 2 heads, 3 batches; 2 maps, 2 folds; 2 lengths, 1 lane and 8
    let counts = ["products", "sampling", "maps", "attention"].map(count);
    assert_eq!(counts, [7 * 2 * 2, 2 * 3, 2 * 2, 2 * 2], "{all}");
    let mut found = Vec::new();
    numbers("", &all, &mut found);
    for (name, x) in found {
        assert!(x > 0.0, "{name} is {x}");
    }
    for map in all["maps"].as_array().expect("maps") {
        let [whole, half] = ["bytes", "bytes_of_half"].map(|name| map[name].as_f64().expect("bytes"));
        assert!(half < whole && whole <= 2.0 * half, "{map}");
    }
    let text = attnscope(&["bench", "--kernels", "--tiny"], &kernels, &[]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("product_8 of Q6_K in 512"), "{}", said(&text));
}

#[test]
fn a_cpu_has_no_such_kernels() {
    let output = attnscope(&["bench", "--kernels", "--device", "cpu"], "".as_ref(), &[]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("--device cuda:N"), "{}", said(&output));
}

#[test]
fn what_stops_it_is_handed_on() {
    let device = emulator::device(&["gated"]);
    let mut heard = Vec::new();
    let error = measure(&device, &Sizes::tiny(), &mut |what| {
        heard.push(what.to_owned());
        Ok(())
    });
    // there is no kernel of products among these
    assert!(error.expect_err("no figures").to_string().contains("product_1"));
    assert_eq!(heard, ["copying", "products with F16 weights of width 256"]);
}

#[test]
fn the_script_for_cards_finds_frames_equal() {
    let families = frames::KERNELS.into_iter().chain(["gated", "sampling"]);
    let kernels: OsString = std::env::join_paths(families.map(emulator::built)).expect("no colon in a path");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gpu.sh");
    let run = |variables: &[(&str, &str)]| {
        let mut command = Command::new("bash");
        command.arg(&script).args([env!("CARGO_BIN_EXE_attnscope"), "--only", "doctor,parity", "--model"]);
        command.arg(script.with_file_name("golden/tiny/llama3_rope"));
        command.env("GPU_TINY", "1").env("ATTNSCOPE_CUDA_LIBRARIES", folder()).env("FAKE_CUDA_KERNELS", &kernels);
        let output = command.envs(variables.iter().copied()).output().expect("bash");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), said(&output))
    };
    let (code, out, errors) = run(&[]);
    assert_eq!(code, Some(0), "{out}{errors}");
    for line in ["ok      self-test, driver alone", "ok      llama3_rope, f32: logits", " 0 missed, 2 absent"] {
        assert!(out.contains(line), "no {line:?} in {out}{errors}");
    }
    // a card that is lost while it reads the prompt
    let (code, out, errors) = run(&[("FAKE_CUDA_FAIL", "cuLaunchKernel:30:719")]);
    assert_eq!(code, Some(1), "{out}{errors}");
    assert!(out.contains("missed  llama3_rope: parity") && out.contains("no longer answers"), "{out}{errors}");
}
