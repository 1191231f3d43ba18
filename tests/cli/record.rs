//! Recording a run and everything that reads the recording, on the tiny model.

use std::path::{Path, PathBuf};

use attnscope::model::{catalog, fetch};
use serde_json::Value;

use super::{HEADS, LAYERS, code, ids, json, on_tiny, run, said, stdout};

const STEPS: usize = 8;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A run of 8 steps on 40 tokens, recorded as `name`.
    fn record(&self, name: &str, lanes: &[&str], more: &[&str]) -> String {
        let path = words(&self.path(name));
        let (prompt, steps) = (ids(40), STEPS.to_string());
        let mut args = vec!["--ids", &prompt, "--steps", &steps, "--record", &path];
        lanes.iter().for_each(|lane| args.extend(["--lane", lane]));
        args.extend(more);
        let output = on_tiny("run", &args);
        assert!(said(&output).contains("9 frames recorded"), "{}", said(&output));
        stdout(&output);
        path
    }
}

fn words(path: &Path) -> String {
    path.to_str().expect("a UTF-8 path").to_owned()
}

fn refuses(args: &[&str], expected: i32, all: &[&str]) {
    let output = run(args);
    let flat = said(&output);
    assert_eq!(code(&output), expected, "{args:?}: {flat}");
    assert!(all.iter().all(|word| flat.contains(word)), "{args:?}: {flat}");
}

/// Without the last line of each screen, which says that it is a replay.
fn panels(screens: &str) -> Vec<&str> {
    screens.lines().filter(|line| !line.contains('‖')).collect()
}

#[test]
fn a_replay_shows_what_the_run_showed() {
    let folder = Folder::new();
    let path = words(&folder.path("a.trace"));
    let looks = "<screen:first>b3<screen:policies>4<screen:growth>5<screen:memory>q";
    let keys = format!("<size:120x40><wait:ready><wait:idle>3nnnn<wait:step:4><wait:idle>{looks}");
    let prompt = ids(40);
    let args = ["--ids", &prompt, "--lane", "snapkv@50%", "--keys", &keys, "--record", &path];
    let live = stdout(&on_tiny("run", &args));
    let replayed = stdout(&run(&["replay", &path, "--keys", &keys]));
    assert!(live.contains("snapkv@50%") && live.contains("step 4") && replayed.contains("paused: replay"));
    assert_eq!(panels(&live), panels(&replayed));
    assert!(panels(&live).len() > 120, "four screens of 39 lines");
    // The screen of a live run asks what the machine can do at best, which a trace cannot tell.
    let timings = stdout(&run(&["replay", &path, "--keys", "<size:120x40><wait:ready><wait:idle>6<screen:timings>q"]));
    assert!(timings.contains("q·k·v") && timings.contains("peak: not measured"), "{timings}");
}

/// The same on a real model, with its tokenizer: texts come from the trace alone.
#[test]
fn a_real_run_comes_back() {
    if fetch::present(catalog::find(catalog::default_name()).expect("the default model")).is_none() {
        eprintln!("skipped: {} is not on this machine", catalog::default_name());
        return;
    }
    let folder = Folder::new();
    let path = words(&folder.path("a.trace"));
    let keys = "<size:120x40><wait:ready><wait:idle>3nnnnnnnn<wait:step:8><wait:idle><screen:end>bbb<screen:back>4q";
    let args = ["run", "--prompt", "The capital of France is", "--lane", "streaming@3", "--keys", keys];
    let live = stdout(&run(&[&args[..], &["--threads", "2", "--record", &path]].concat()));
    let replayed = stdout(&run(&["replay", &path, "--keys", keys]));
    assert!(live.contains("Paris") && live.contains("step 8"), "{live}");
    assert_eq!(panels(&live), panels(&replayed));
    assert!(stdout(&run(&["diff", &path, &path])).starts_with("equal\n"));
    let lanes = json(&run(&["diff", &format!("{path}:0"), &format!("{path}:1"), "--json"]));
    assert_eq!(lanes["lanes"][0]["first"]["kept"], 0);
}

#[test]
fn a_replay_says_what_it_does_not_hold() {
    let folder = Folder::new();
    let path = folder.record("a.trace", &["snapkv@50%"], &[]);
    let keys = "<size:120x40><wait:ready><wait:idle>2<wait:idle><screen:map><do:fork><wait:200ms><screen:fork>q";
    let screens = stdout(&run(&["replay", &path, "--keys", keys]));
    let (map, fork) = screens.split_once("=== fork ===").expect("two screens");
    assert!(map.contains("a trace holds frames, not attention maps"), "{map}");
    assert!(fork.contains("a recorded run cannot be forked"), "{fork}");
    let end = "<wait:ready> <space><wait:step:8><wait:idle>q";
    assert!(stdout(&run(&["replay", &path, "--keys", end])).contains("end of the trace"));
}

#[test]
fn the_summary_of_a_replay_is_that_of_the_run() {
    let folder = Folder::new();
    let path = folder.record("a.trace", &["knorm@50%"], &[]);
    let (prompt, steps) = (ids(40), STEPS.to_string());
    let live = stdout(&on_tiny("run", &["--ids", &prompt, "--steps", &steps, "--lane", "knorm@50%"]));
    assert_eq!(stdout(&run(&["replay", &path])), live);
}

#[test]
fn goings_back_are_recorded_too() {
    let folder = Folder::new();
    let path = words(&folder.path("a.trace"));
    let keys = "<wait:ready><wait:idle>nnn<wait:step:3><wait:idle>bb<do:fork><wait:idle><wait:200ms>n<wait:frame>nn\
        <wait:step:4><wait:idle>q";
    let prompt = ids(12);
    stdout(&on_tiny("run", &["--ids", &prompt, "--lane", "full", "--keys", keys, "--record", &path]));
    // Three steps, back to the first, a fork of lane 0, three more: steps 0 to 4 stand, the last with two lanes.
    let report = json(&run(&["diff", &path, &path, "--json"]));
    assert_eq!((&report["equal"], &report["a"]["steps"]), (&Value::from(true), &Value::from(4)));
    assert_eq!(report["a"]["lanes"], serde_json::json!(["full", "full"]));
    // The fork goes on as the lane that it continues.
    let lanes = json(&run(&["diff", &format!("{path}:0"), &format!("{path}:1"), "--json"]));
    assert_eq!((&lanes["equal"], &lanes["lanes"][0]["steps"][0]["step"]), (&Value::from(true), &Value::from(2)));
}

#[test]
fn a_run_differs_from_others_where_it_should_and_not_from_itself() {
    let folder = Folder::new();
    let a = folder.record("a.trace", &["snapkv@50%"], &[]);
    let again = folder.record("again.trace", &["snapkv@50%"], &[]);
    let b = folder.record("b.trace", &["streaming@25%"], &[]);
    for other in [&a, &again] {
        let text = stdout(&run(&["diff", &a, other]));
        assert!(text.starts_with("equal\n"), "{text}");
        assert_eq!(json(&run(&["diff", &a, other, "--json"]))["equal"], true);
    }
    let report = json(&run(&["diff", &a, &b, "--json"]));
    assert_eq!((&report["equal"], &report["prompts_equal"]), (&Value::from(false), &Value::from(true)));
    let (full, other) = (&report["lanes"][0], &report["lanes"][1]);
    assert_eq!((&full["equal"], &full["first"]["kept"]), (&Value::from(true), &Value::Null));
    assert_eq!((&other["equal"], &other["first"]["kept"]), (&Value::from(false), &Value::from(0)));
    let steps = other["steps"].as_array().expect("steps");
    assert_eq!(steps.len(), STEPS + 1);
    // 20 of 40 positions against 10: at most half of the union is common.
    assert!(steps[0]["jaccard"].as_f64().expect("a number") <= 0.5);
    assert_eq!(steps[0]["residual_l2"]["value"], 0.0, "both read the prompt with everything");
    assert!(steps[1]["residual_l2"]["value"].as_f64().expect("a number") > 0.0);
    let most = &other["largest"]["attention_entropy"]["what"];
    assert!(most["layer"].as_u64().expect("a layer") < LAYERS as u64);
    assert!(most["head"].as_u64().expect("a head") < HEADS as u64);
    // Two lanes of one run.
    let lanes = stdout(&run(&["diff", &format!("{a}:0"), &format!("{a}:1")]));
    assert!(lanes.starts_with("different\n") && lanes.contains("A:0 full | B:1 snapkv@50%"), "{lanes}");
    refuses(&["diff", &a, &format!("{a}:1")], 2, &["a single lane"]);
    refuses(&["diff", &format!("{a}:0"), &format!("{a}:5")], 2, &["no lane 5", "there are 2"]);
}

#[test]
fn exports_hold_the_run() {
    let folder = Folder::new();
    let path = folder.record("a.trace", &["snapkv@50%:window=8,kernel=3"], &[]);
    let export = |format: &str| stdout(&run(&["export", &path, "--format", format, "--out", "-"]));
    let frames: Value = serde_json::from_str(&export("json")).expect("JSON");
    assert_eq!((&frames["schema"], frames["frames"].as_array().map(Vec::len)), (&Value::from(1), Some(STEPS + 1)));
    assert_eq!(frames["prompt_ids"].as_array().map(Vec::len), Some(40));
    let frame = &frames["frames"][3];
    let csv = export("csv");
    let lines: Vec<&str> = csv.split_terminator("\r\n").collect();
    assert_eq!(lines.len(), 1 + 2 * (STEPS + 1));
    let row = lines[1 + 2 * 3 + 1];
    assert!(row.starts_with("3,1,\"snapkv@50%:window=8,kernel=3\",42,1,"), "{row}");
    let wall = frame["wall_ns"].as_u64().expect("nanoseconds");
    assert!(row.contains(&format!(",{wall},")) && lines[0].split(',').count() == 28, "{row}");
    let chrome: Value = serde_json::from_str(&export("chrome")).expect("JSON");
    let events = chrome["traceEvents"].as_array().expect("events");
    let on = |track: u64| events.iter().filter(move |e| e["ph"] == "X" && e["tid"] == track);
    assert_eq!(on(1).count(), STEPS + 1);
    let total = |track: u64| on(track).map(|e| e["dur"].as_f64().expect("µs")).sum::<f64>();
    assert!(total(3) > 0.0 && total(3) + total(4) <= total(1), "operations fit into their steps");
    let of_ops = |frame: &Value| -> f64 {
        let ops = frame["ops"].as_array().expect("operations");
        ops.iter().map(|op| op["total_ns"].as_f64().expect("nanoseconds") / 1e3).sum()
    };
    let steps: f64 = frames["frames"].as_array().expect("frames")[1..].iter().map(of_ops).sum();
    assert!((total(3) / steps - 1.0).abs() < 1e-3, "calls make up the operations of the steps");
    assert!((total(4) / of_ops(&frames["frames"][0]) - 1.0).abs() < 1e-3, "the prompt's stand by themselves");
    assert_eq!(on(2).count(), STEPS * LAYERS);
    let calls: Vec<&str> = on(3).filter_map(|e| e["name"].as_str()).collect();
    assert_eq!(calls.iter().filter(|name| **name == "layer 1 → down").count(), STEPS);
    assert_eq!((calls[0], calls.iter().filter(|name| **name == "head").count()), ("embed", STEPS));
    let times: Vec<f64> = on(3).map(|e| e["ts"].as_f64().expect("µs")).collect();
    assert!(times.is_sorted(), "calls follow each other");
    assert!(events.iter().any(|e| e["ph"] == "C" && e["name"] == "KV bytes"));
    let out = words(&folder.path("x.csv"));
    stdout(&run(&["export", &path, "--format", "csv", "--out", &out]));
    assert_eq!(std::fs::read_to_string(out).expect("the table"), csv);
}

#[test]
fn files_are_not_overwritten_and_what_is_no_trace_is_refused() {
    let folder = Folder::new();
    let path = folder.record("a.trace", &["full"], &[]);
    let before = std::fs::read(&path).expect("the trace");
    let output = on_tiny("run", &["--ids", "1,2", "--record", &path]);
    assert_eq!(code(&output), 2);
    assert!(said(&output).contains("exists already") && said(&output).contains("--force"));
    assert_eq!(std::fs::read(&path).expect("the trace"), before);
    folder.record("a.trace", &["full"], &["--force"]);
    refuses(&["replay", &words(&folder.path("none"))], 2, &["cannot read"]);
    std::fs::write(folder.path("text"), "some text that is long enough").expect("a file");
    let text = words(&folder.path("text"));
    for args in [&["replay", &text][..], &["diff", &text, &text], &["export", &text, "--format", "csv", "--out", "-"]] {
        refuses(args, 2, &["no trace file", "--record"]);
    }
    // Cut off in the last frame, and before the first.
    std::fs::write(folder.path("cut"), &before[..before.len() - 10]).expect("a file");
    let cut = run(&["replay", &words(&folder.path("cut"))]);
    assert!(said(&cut).contains("cut off at byte") && stdout(&cut).contains("lane 0"));
    std::fs::write(folder.path("cut"), &before[..2000]).expect("a file");
    refuses(&["replay", &words(&folder.path("cut"))], 2, &["no complete step"]);
    let mut flipped = before;
    let middle = flipped.len() / 2;
    flipped[middle] ^= 4;
    std::fs::write(folder.path("flipped"), flipped).expect("a file");
    refuses(&["replay", &words(&folder.path("flipped"))], 2, &["damaged at byte"]);
}

#[cfg(unix)]
#[test]
fn a_killed_run_leaves_what_was_recorded() {
    let folder = Folder::new();
    let path = folder.path("a.trace");
    let (model, prompt) = (super::tiny(), ids(40));
    let mut child = super::attnscope(&["run", "--ids", &prompt, "--steps", "4000", "--threads", "1", "--lane", "full"])
        .args(["--model", &words(&model), "--record", &words(&path)])
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("the program starts");
    let started = std::time::Instant::now();
    // The prompt and a few steps.
    while std::fs::metadata(&path).map_or(0, |m| m.len()) < 60_000 {
        assert!(started.elapsed() < std::time::Duration::from_secs(60), "nothing was recorded");
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    child.kill().expect("SIGKILL");
    assert!(!child.wait().expect("the end").success(), "it was still running");
    let report = json(&run(&["diff", &words(&path), &words(&path), "--json"]));
    assert!(report["equal"] == true && report["a"]["steps"].as_u64() > Some(1), "{}", report["a"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_ends_the_recording_and_not_the_run() {
    let output = on_tiny("run", &["--ids", "1,2,3", "--steps", "3", "--record", "/dev/full", "--force"]);
    assert_eq!(code(&output), 1);
    assert!(said(&output).contains("the recording ends after 0 frames"), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("lane 0"), "the summary is there");
    let keys = "<size:140x40><wait:ready><wait:idle>n<wait:step:1><wait:idle>";
    let output = on_tiny("run", &["--ids", "1,2,3", "--keys", keys, "--record", "/dev/full", "--force"]);
    assert_eq!(code(&output), 1);
    assert!(String::from_utf8_lossy(&output.stdout).contains("step 1"), "the run goes on");
}
