//! `sweep`, `massive`, and lanes that intervene in `compare`.

use serde_json::Value;

use super::{HEADS, LAYERS, code, ids, json, on_tiny, run, said, stdout};

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

fn close(a: &Value, b: &Value) -> bool {
    (number(a) - number(b)).abs() < 1e-3 * number(a).abs().max(1e-2)
}

#[test]
fn a_sweep_ranks_every_place_and_a_lane_of_that_name_does_the_same() {
    let prompt = ids(40);
    for (over, count) in [("heads", LAYERS * HEADS), ("layers", LAYERS), ("attention", LAYERS), ("mlp", LAYERS)] {
        let report = json(&on_tiny("sweep", &["--ids", &prompt, "--over", over, "--json"]));
        let ranked = list(&report["ranked"]);
        assert_eq!(
            (ranked.len(), report["complete"].as_bool(), report["over"].as_str()),
            (count, Some(true), Some(over))
        );
        assert!(ranked.windows(2).all(|w| number(&w[0]["delta_nll"]) >= number(&w[1]["delta_nll"])));
        assert!(ranked.iter().any(|knocked| number(&knocked["kl"]) > 1e-3), "{over} changes something");
        let first = &ranked[0];
        let spec = first["spec"].as_str().expect("a spec");
        let lanes = json(&on_tiny("compare", &["--ids", &prompt, "--steps", "2", "--lane", spec, "--json"]));
        let effect = &lanes["lanes"][1]["effect"];
        assert_eq!(effect["tokens"].as_u64(), Some(39));
        for (ours, theirs) in [("nll", "nll"), ("nll_before", "nll_full"), ("kl", "kl")] {
            assert!(close(&first[ours], &effect[theirs]), "{spec} {ours}: {} {}", first[ours], effect[theirs]);
        }
        let lane = &lanes["lanes"][1];
        let delta = number(&lane["nll"]) - number(&lanes["lanes"][0]["nll"]);
        assert!((number(&lane["delta_nll"]) - delta).abs() < 1e-5 && lanes["lanes"][0]["effect"].is_null());
        assert_eq!(lane["family"].as_str(), Some("intervention"));
    }
    let text = stdout(&on_tiny("sweep", &["--ids", &prompt, "--over", "heads", "--top", "3"]));
    assert!(text.contains("21 more") && text.contains("zerohead:layer="), "{text}");
    assert_eq!(code(&on_tiny("sweep", &["--ids", "1"])), 2);
}

#[test]
fn effects_stand_in_the_table_of_a_comparison() {
    let text =
        stdout(&on_tiny("compare", &["--ids", &ids(30), "--steps", "2", "--lane", "masksink", "--lane", "knorm@50%"]));
    for word in ["intervention", "sink rate", "masksink", "on the prompt's last 29 tokens"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn places_that_are_not_there_are_wrong_input() {
    for (spec, word) in [
        ("zerohead:layer=9", "layers are 0 to 3"),
        ("zerohead:head=99", "heads are 0 to 5"),
        ("setchannel:channel=99", "channels are 0 to 95"),
        ("scale:by=x", "-100 to 100"),
        ("massive", "no massive activations"),
        ("copymap:from=2,to=1", "earlier layer"),
    ] {
        let output = on_tiny("compare", &["--ids", &ids(20), "--steps", "1", "--lane", spec]);
        assert!(code(&output) == 2 && said(&output).contains(word), "{spec}: {}", said(&output));
    }
}

#[test]
fn massive_activations_of_a_twin() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/models/twin-plain");
    let args = ["massive", "--model", model, "--texts", "4", "--length", "32"];
    let report = json(&run(&[&args[..], &["--json"]].concat()));
    assert_eq!((report["texts"].as_u64(), report["length"].as_u64()), (Some(4), Some(32)));
    let runs = list(&report["runs"]);
    assert_eq!(runs.iter().map(|run| run["bos"].as_bool()).collect::<Vec<_>>(), [Some(true), Some(false)]);
    for run in runs {
        assert_eq!(list(&run["points"]).len(), 25);
        assert!((number(&run["nll"]).exp() / number(&run["perplexity"]) - 1.0).abs() < 1e-3);
        assert!((0.0..=1.0).contains(&number(&run["sink_rate"])));
        let changed = list(&run["interventions"]);
        let named = |name: &str| changed.iter().find(|of| of["name"] == name);
        assert!(number(&named("stream in bf16").expect("always")["kl"]) < 0.1);
        assert_eq!(named("massive to zero").is_some(), run["onset"].is_object());
        for point in list(&run["points"]) {
            let top = list(&point["top"]);
            assert!(top.len() == 3 && top.windows(2).all(|w| number(&w[0]["ratio"]) >= number(&w[1]["ratio"])));
        }
    }
    let text = stdout(&run(&args));
    assert!(text.contains("sink rate") && text.contains("without BOS") && !text.contains('\x1b'), "{text}");
}

#[test]
fn such_lanes_are_recorded_replayed_and_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a UTF-8 path").to_owned();
    let prompt = ids(30);
    let record = |name: &str, lanes: &[&str]| {
        let file = path(name);
        let mut args = vec!["--ids", &prompt, "--steps", "4", "--record", &file];
        lanes.iter().for_each(|lane| args.extend(["--lane", lane]));
        let output = on_tiny("run", &args);
        assert!(said(&output).contains("5 frames recorded"), "{}", said(&output));
        file
    };
    let lanes = ["dropbos", "masksink", "zerohead:layer=1,head=2"];
    let (one, same) = (record("one.trace", &lanes), record("same.trace", &lanes));
    let other = record("other.trace", &["dropbos", "masksink", "zerohead:layer=1,head=3"]);
    let replay = run(&["replay", &one]);
    assert!(code(&replay) == 0 && stdout(&replay).contains("zerohead:layer=1,head=2"), "{}", said(&replay));
    assert_eq!(code(&run(&["diff", &one, &same])), 0);
    assert!(stdout(&run(&["diff", &one, &other])).contains("zerohead"));
}
