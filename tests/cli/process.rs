//! The program as a process: output that repeats, pipes that close, Ctrl-C.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::{attnscope, code, ids, json, on_tiny, run, stderr, stdout, tiny};

#[test]
fn the_summary_says_the_same_twice() {
    let prompt = ids(40);
    let args = ["--ids", &prompt, "--steps", "4", "--lane", "streaming@50%"];
    let first = stdout(&on_tiny("run", &args));
    assert_eq!(first, stdout(&on_tiny("run", &args)));
    for word in ["llama, 4 layers", "40 tokens", "lane 0  full", "lane 1  streaming@50%", "50.0 % of full", "KL"] {
        assert!(first.contains(word), "{word}: {first}");
    }
    assert!(!first.contains('\x1b'));
}

#[test]
fn a_macro_drives_the_screen_without_a_terminal() {
    let text = stdout(&on_tiny("run", &["--ids", &ids(12), "--lane", "full", "--keys", "<wait:ready><wait:idle>q"]));
    assert!(text.contains("llama3_rope"), "{text}");
}

#[test]
fn tables_print_json() {
    assert_eq!(json(&run(&["policies", "--json"]))["schema"], 1);
    assert!(json(&run(&["models", "--json"])).is_array());
    let doctor = json(&run(&["doctor", "--json"]));
    for section in ["program", "processor", "memory", "terminal", "models", "network", "NVIDIA"] {
        assert!(doctor["sections"][section].is_object(), "{section}");
    }
    assert!(stdout(&run(&["doctor"])).contains("CUDA backend"));
}

#[test]
fn the_doctor_tells_of_cuda_whatever_is_there() {
    let home = tempfile::tempdir().expect("a folder");
    let nvidia = |libraries: &Path| {
        let mut command = attnscope(&["doctor", "--json"]);
        command.env("ATTNSCOPE_HOME", home.path()).env("ATTNSCOPE_CUDA_LIBRARIES", libraries);
        json(&command.output().expect("the program starts"))["sections"]["NVIDIA"].clone()
    };
    let found = nvidia(home.path());
    for fact in ["libcuda", "NVML", "NVRTC", "cuBLAS", "cuBLASLt", "looked in", "kernels", "compiled kernels", "driver"]
    {
        assert!(found[fact]["found"].is_string(), "{fact}: {found}");
    }
    let kept = found["compiled kernels"]["found"].as_str().expect("text");
    assert!(kept.ends_with("/kernels: 0 files, 0 B"), "{kept}");
    // Not a library, and a library that is another one.
    let broken = home.path().join("libnvrtc.so.12");
    fs::write(&broken, "\x1b[2J not a library").expect("a file");
    let found = nvidia(home.path());
    assert_eq!(found["NVRTC"]["warn"], true, "{found}");
    assert!(found["NVRTC"]["found"].as_str().expect("text").contains("cannot be opened"), "{found}");
    fs::remove_file(&broken).expect("the file");
    let maps = fs::read_to_string("/proc/self/maps").expect("what this test has loaded");
    let libc = maps.lines().find_map(|line| Some(&line[line.find('/')?..]).filter(|path| path.contains("/libc")));
    symlink(libc.expect("a C library"), &broken).expect("a link");
    let found = nvidia(home.path());
    assert_eq!(found["NVRTC"]["warn"], true, "{found}");
    assert!(found["NVRTC"]["found"].as_str().expect("text").contains("is no NVRTC"), "{found}");
}

#[test]
fn shells_and_manuals_are_served() {
    assert!(stdout(&run(&["completions", "bash"])).contains("--lane"));
    assert!(stdout(&run(&["man", "compare"])).contains("teacher"));
}

#[test]
fn the_bench_reports_and_serves() {
    let small = ["--prompt-tokens", "32", "--steps", "4", "--repeats", "1", "--json"];
    let report = json(&on_tiny("bench", &small));
    for key in ["ready_ms", "probes_on", "probes_off", "lanes", "memory", "machine"] {
        assert!(!report[key].is_null(), "{key}");
    }
    assert!(report["probes_on"]["decode_tok_s"].as_f64().expect("a number") > 0.0);
    let model = tiny();
    let mut peer = attnscope(&["bench", "--serve", "--model", model.to_str().expect("UTF-8")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut answers = BufReader::new(peer.stdout.take().expect("a pipe")).lines();
    let mut next = || answers.next().expect("a line").expect("UTF-8");
    assert_eq!(next(), "ready");
    let mut orders = peer.stdin.take().expect("a pipe");
    orders.write_all(b"pp 16\ntg 3\n").expect("the peer listens");
    assert!(next().parse::<f64>().expect("seconds") > 0.0);
    assert!(next().parse::<f64>().expect("seconds") > 0.0);
    drop(orders);
    assert!(peer.wait().expect("the end").success());
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    for args in
        [&["policies"][..], &["policies", "--json"], &["models"], &["man"], &["completions", "zsh"], &["--help"]]
    {
        let mut child =
            attnscope(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("UTF-8");
        assert_eq!(child.wait().expect("the end").code(), Some(0), "{args:?}: {said}");
        assert!(said.is_empty(), "{args:?}: {said}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_run_with_130() {
    let model = tiny();
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("x.safetensors");
    let prompt = ids(3900);
    let child = attnscope(&["trace", "--model", model.to_str().expect("UTF-8"), "--ids", &prompt, "--lens-k", "50"])
        .args(["--threads", "1", "--out", out.to_str().expect("UTF-8")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // As soon as the unfinished file is there, the run has begun.
    let started = Instant::now();
    while std::fs::read_dir(folder.path()).expect("the folder").count() == 0 {
        assert!(started.elapsed() < Duration::from_secs(60), "no file appeared");
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.expect("kill").success());
    let output = child.wait_with_output().expect("the end");
    assert_eq!(code(&output), 130, "{}", stderr(&output));
    assert!(output.stdout.is_empty());
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0, "nothing unfinished is left");
}
