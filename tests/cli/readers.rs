//! What `compare` says of lanes that read a part of their cache.

use serde_json::Value;

use super::{HEADS, KV_HEADS, LAYERS, code, ids, json, on_tiny, run, stderr, stdout};

const STEPS: usize = 5;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
}

#[test]
fn reads_are_counted_apart_from_what_is_held() {
    let (prompt, steps) = (ids(80), STEPS.to_string());
    let lanes = ["--lane", "quest@16:page=4,dense=1", "--lane", "quest@100%", "--lane", "knorm@50%"];
    let args = [&["--ids", &prompt, "--steps", &steps, "--json"], &lanes[..]].concat();
    let report = json(&on_tiny("compare", &args));
    let lanes = report["lanes"].as_array().expect("lanes");
    assert!(lanes[0]["reads"].is_null() && lanes[3]["reads"].is_null());
    let (part, whole) = (&lanes[1]["reads"], &lanes[2]["reads"]);
    for lane in &lanes[1..3] {
        assert_eq!((&lane["family"], &lane["kv_bytes"]), (&"reader".into(), &lane["kv_bytes_full"]));
        assert_eq!(lane["first_token_equal"], true);
        let reads = &lane["reads"];
        for list in
            ["entries", "entries_seen", "bytes", "bytes_seen", "metadata_bytes", "share", "covered_mean", "covered_min"]
        {
            assert_eq!(numbers(&reads[list]).len(), STEPS, "{list}");
        }
        let covered: Vec<Vec<f64>> = reads["covered"].as_array().expect("layers").iter().map(numbers).collect();
        assert!(covered.len() == LAYERS && covered.iter().all(|layer| layer.len() == HEADS));
        // an entry is a key and a value of 16 numbers, two bytes each
        let each = numbers(&reads["bytes"])[0] / numbers(&reads["entries"])[0];
        assert_eq!(each, numbers(&reads["bytes_seen"])[0] / numbers(&reads["entries_seen"])[0]);
    }
    assert!(numbers(&whole["share"]).iter().all(|share| *share == 1.0));
    assert_eq!(numbers(&whole["entries_seen"]), (81..=85).map(|n| (n * LAYERS * KV_HEADS) as f64).collect::<Vec<_>>());
    assert!(numbers(&part["share"]).iter().all(|share| *share < 0.8));
    assert!(numbers(&part["metadata_bytes"]).iter().all(|bytes| *bytes > 0.0));
    // one layer of four reads everything; pages of 20 known, none of them the last
    let mean = numbers(&part["covered_mean"])[0];
    let (covered, least) = (&part["covered"], numbers(&part["covered_min"])[0]);
    assert!(0.0 < least && least < mean && mean < 1.0);
    assert!(numbers(&covered[0]).iter().all(|mass| *mass == 1.0) && numbers(&covered[1])[0] < 1.0);
    let table = stdout(&on_tiny("compare", &["--ids", &prompt, "--steps", "2", "--lane", "quest@16:page=4"]));
    for word in ["reads", "covers", "least", "No memory is saved"] {
        assert!(table.contains(word), "{word}: {table}");
    }
}

/// On a real model reading a third of the cache says almost what reading all of it says.
#[test]
fn a_real_model_needs_a_part_of_its_cache() {
    let lanes = ["quest@96", "tidal@64", "predictor@160:by=oracle,sinks=16,local=32", "magicpig:k=8", "actqkv@96"];
    let mut args = vec!["compare", "--sample", "needle", "--steps", "6", "--threads", "2", "--json"];
    lanes.iter().for_each(|lane| args.extend(["--lane", lane]));
    let output = run(&args);
    if code(&output) == 3 {
        eprintln!("skipped: {}", stderr(&output));
        return;
    }
    let report = json(&output);
    for (lane, spec) in report["lanes"].as_array().expect("lanes").iter().skip(1).zip(lanes) {
        let reads = &lane["reads"];
        let (entries, seen) = (numbers(&reads["entries"])[0], numbers(&reads["entries_seen"])[0]);
        let covered = numbers(&reads["covered_mean"])[0];
        assert!(entries < 0.8 * seen, "{spec} reads {entries} of {seen} entries");
        assert!(covered > 1.1 * entries / seen, "{spec}: {entries} of {seen} entries cover {covered} of the mass");
        assert!(covered > 0.5 && covered < 1.0, "{spec}: {covered}");
        assert_eq!(lane["kv_bytes"], lane["kv_bytes_full"], "{spec}");
    }
    let again = json(&run(&args));
    for (lane, other) in
        report["lanes"].as_array().expect("lanes").iter().zip(again["lanes"].as_array().expect("lanes"))
    {
        assert_eq!((&lane["reads"], &lane["kl"]), (&other["reads"], &other["kl"]), "{}", lane["spec"]);
    }
}
