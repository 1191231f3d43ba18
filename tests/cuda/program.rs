//! The whole program on a card: through a libcuda without one, whose kernels run on the CPU.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::driver::{attnscope, said};
use crate::emulator;
use crate::frames::KERNELS;

fn tiny() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny/llama3_rope");
    folder.to_str().expect("a UTF-8 path").to_owned()
}

fn ids(count: usize) -> String {
    (0..count).map(|i| (i * 37 % 320).to_string()).collect::<Vec<_>>().join(",")
}

fn on_tiny(subcommand: &str, args: &[&str], variables: &[(&str, &str)]) -> Output {
    let (model, prompt) = (tiny(), ids(40));
    let mut all = vec![subcommand, "--model", &model, "--ids", &prompt, "--threads", "2"];
    all.extend(args);
    let kernels: Vec<PathBuf> = KERNELS.iter().map(|family| emulator::built(family)).collect();
    let kernels: OsString = std::env::join_paths(kernels).expect("no colon in a path");
    attnscope(&all, &kernels, variables)
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn compare_says_on_a_card_what_it_says_on_the_cpu() {
    let lanes = ["--lane", "snapkv@50%", "--lane", "h2o@50%", "--lane", "int8", "--steps", "6", "--json"];
    let compare = |device: &str| {
        json(&on_tiny("compare", &[&["--device", device, "--precision", "f32"], &lanes[..]].concat(), &[]))
    };
    let (card, cpu) = (compare("cuda"), compare("cpu"));
    assert_eq!(card["device"], "Fake card, compute capability 9.0");
    assert_ne!(card["device"], cpu["device"]);
    for (card, cpu) in card["lanes"].as_array().unwrap().iter().zip(cpu["lanes"].as_array().unwrap()) {
        for same in ["spec", "kept", "n_kept", "kv_bytes", "first_token_equal", "ids"] {
            assert_eq!(card[same], cpu[same], "{same} of {}", cpu["spec"]);
        }
    }
    let on_host: Vec<bool> = card["lanes"].as_array().unwrap().iter().map(|lane| lane["on_host"] == true).collect();
    assert_eq!(on_host, [false, false, false, true]);
}

#[test]
fn a_card_that_is_lost_on_the_way_loses_nothing_recorded() {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("a.trace");
    let trace = trace.to_str().expect("a UTF-8 path");
    let args = ["--device", "cuda", "--steps", "12", "--record", trace];
    // from the second step on a step is one graph
    let output = on_tiny("run", &args, &[("FAKE_CUDA_FAIL", "cuGraphLaunch:5:719")]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("no longer answers") && text.contains("recorded so far is kept"), "{text}");
    let out = folder.path().join("a.json");
    let out = out.to_str().expect("a UTF-8 path");
    let kept = attnscope(&["export", trace, "--format", "json", "--out", out], "".as_ref(), &[]);
    assert!(kept.status.success(), "{}", said(&kept));
    let all: Value = serde_json::from_slice(&std::fs::read(out).expect("what was exported")).expect("JSON");
    let frames = all["frames"].as_array().expect("frames").len();
    assert_eq!(frames, 6, "of the prompt, the first step and four graphs");
}

#[test]
fn a_full_card_says_how_much_was_asked_for_and_what_to_do() {
    let output = on_tiny("run", &["--device", "cuda", "--steps", "3"], &[("FAKE_CUDA_FAIL", "cuMemAlloc_v2:60:2")]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("memory is full") && text.contains("queries-budget"), "{text}");
}

#[test]
fn auto_takes_the_card_or_says_why_not() {
    let run = |variables: &[(&str, &str)]| {
        let output = on_tiny("run", &["--device", "auto", "--steps", "2"], variables);
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert!(run(&[]).contains("runs on Fake card"));
    let text = run(&[("FAKE_CUDA_VERSION", "11040")]);
    assert!(text.contains("runs on cpu") && text.contains("not on a card: the driver is too old"), "{text}");
    let refused = on_tiny("run", &["--device", "cuda", "--steps", "2"], &[("FAKE_CUDA_VERSION", "11040")]);
    assert_eq!(refused.status.code(), Some(3), "{}", said(&refused));
    let refused = on_tiny("run", &["--device", "cuda:1", "--steps", "2"], &[]);
    assert!(refused.status.code() == Some(3) && said(&refused).contains("there is no card 1"), "{}", said(&refused));
}
