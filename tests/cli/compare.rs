//! The JSON of `compare`, on a model small enough to check its numbers by their own relations.

use serde_json::Value;

use super::{HEADS, KV_HEADS, LAYERS, code, ids, json, on_tiny, said, stdout};

const PROMPT: usize = 60;
const STEPS: usize = 6;

fn compare(more: &[&str]) -> Value {
    let (prompt, steps) = (ids(PROMPT), STEPS.to_string());
    let mut args = vec!["--ids", &prompt, "--steps", &steps, "--json"];
    args.extend(more);
    json(&on_tiny("compare", &args))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|v| v.as_f64().expect("a number")).collect()
}

fn len(value: &Value) -> usize {
    value.as_array().expect("a list").len()
}

#[test]
fn the_json_is_as_the_contract_says() {
    let report = compare(&["--lane", "snapkv@50%", "--lane", "streaming@25%", "--scores", "--answer", "⟨1⟩"]);
    for key in ["schema", "model", "device", "precision", "prompt_ids", "lanes"] {
        assert!(!report[key].is_null(), "{key}");
    }
    assert_eq!(len(&report["prompt_ids"]), PROMPT);
    assert_eq!(len(&report["lanes"]), 3);
    for (lane, budget) in report["lanes"].as_array().expect("lanes").iter().zip([PROMPT, PROMPT / 2, PROMPT / 4]) {
        assert_eq!(lane["first_token_equal"], true);
        assert_eq!((len(&lane["kept"]), len(&lane["n_kept"])), (LAYERS, LAYERS));
        for layer in 0..LAYERS {
            assert_eq!(len(&lane["kept"][layer]), KV_HEADS);
            for head in 0..KV_HEADS {
                let kept = numbers(&lane["kept"][layer][head]);
                assert_eq!(kept.len(), budget);
                assert_eq!(lane["n_kept"][layer][head], budget);
                assert!(kept.windows(2).all(|pair| pair[0] < pair[1]), "ascending, no position twice");
            }
            assert_eq!(len(&lane["damage"]["lost_mass"][layer]), HEADS);
        }
        assert_eq!(len(&lane["damage"]["out_rel_err"]), LAYERS);
        for list in ["ids", "kl", "kl_teacher_forced", "nll_steps", "logits_top", "same_prefix"] {
            assert_eq!(len(&lane[list]), STEPS, "{list}");
        }
        assert!(lane["text"].is_string() && lane["family"].is_string() && lane["regret"].is_array());
        assert!(lane["answer_found"].is_boolean() && lane["timings"]["prompt_ns"].is_number());
        assert_eq!(lane["jaccard_to"].as_object().expect("a map").len(), 2);
    }
    let (full, snapkv) = (&report["lanes"][0], &report["lanes"][1]);
    assert_eq!(full["spec"], "full");
    assert!(numbers(&full["kl"]).iter().all(|kl| *kl == 0.0) && full["top1_agree"] == 1.0);
    assert_eq!(full["kv_bytes"], full["kv_bytes_full"]);
    assert_eq!(snapkv["kv_bytes"].as_u64().expect("bytes") * 2, full["kv_bytes"].as_u64().expect("bytes"));
    assert!(numbers(&snapkv["kl_teacher_forced"]).iter().any(|kl| *kl > 0.0));
    // Scores of all positions; forced ones are the window's.
    assert_eq!(len(&snapkv["scores"]["values"][0][0]), PROMPT);
    assert_eq!(numbers(&snapkv["scores"]["forced"][0][0]).last(), Some(&(PROMPT as f64 - 1.0)));
}

/// Nothing is evicted, less is held, and the output error is that of rounding.
#[test]
fn packed_lanes_say_their_true_bytes() {
    let report = compare(&["--lane", "int8:group=64", "--lane", "int4:group=64", "--lane", "think:recent=0"]);
    let lanes = report["lanes"].as_array().expect("lanes");
    let bytes = |lane: usize| lanes[lane]["kv_bytes"].as_f64().expect("bytes");
    let bits = |lane: usize| lanes[lane]["bits_per_element"].as_f64().expect("bits");
    let dim = bytes(0) / (4 * LAYERS * KV_HEADS * PROMPT) as f64;
    assert!(bits(0) == 16.0 && dim.fract() == 0.0 && dim <= 64.0);
    // the code and, for every token's channels, two halves; think leaves D − ⌊0.4 · D⌋ of the key channels
    let thin = dim - (0.4 * dim).floor();
    for (lane, expected) in [(1, 8.0 + 32.0 / dim), (2, 4.0 + 32.0 / dim), (3, 8.0 + 8.0 * thin / dim)] {
        assert!((bits(lane) - expected).abs() < 1e-4, "{}", bits(lane));
        assert!((bytes(lane) / bytes(0) - expected / 16.0).abs() < 1e-4);
        assert_eq!(lanes[lane]["kept"], lanes[0]["kept"]);
        assert_eq!(lanes[lane]["first_token_equal"], true);
        assert!(numbers(&lanes[lane]["damage"]["lost_mass"][0]).iter().all(|mass| *mass == 0.0));
    }
    let error = |lane: usize| numbers(&lanes[lane]["damage"]["out_rel_err"]).iter().sum::<f64>();
    assert!(0.0 < error(1) && error(1) < error(2) / 4.0, "{} {}", error(1), error(2));
}

#[test]
fn a_lane_that_keeps_everything_is_lane_zero() {
    let report = compare(&["--lane", "knorm@100%"]);
    let (full, all) = (&report["lanes"][0], &report["lanes"][1]);
    for key in ["kept", "ids", "text", "kv_bytes", "nll", "kl", "logits_top"] {
        assert_eq!(full[key], all[key], "{key}");
    }
    assert!(numbers(&all["damage"]["out_rel_err"]).iter().all(|e| *e == 0.0));
    assert_eq!(len(&all["regret"]), 0);
}

#[test]
fn teacher_forcing_feeds_lane_zeros_tokens() {
    let (free, forced) = (compare(&["--lane", "random@10%"]), compare(&["--lane", "random@10%", "--teacher-forced"]));
    let (free, forced) = (&free["lanes"][1], &forced["lanes"][1]);
    assert!(forced["same_prefix"].as_array().expect("a list").iter().all(|same| *same == true));
    assert_eq!(forced["kl"], forced["kl_teacher_forced"]);
    assert_eq!(free["kl_teacher_forced"], forced["kl_teacher_forced"]);
    assert_eq!(free["nll_steps"], forced["nll_steps"]);
}

#[test]
fn regret_and_lost_mass_name_what_is_gone() {
    let report = compare(&["--lane", "window@8", "--regret-above", "0.01"]);
    let lane = &report["lanes"][1];
    let regrets = lane["regret"].as_array().expect("a list");
    assert!(!regrets.is_empty());
    for regret in regrets {
        assert!(regret["position"].as_u64().expect("a position") < (PROMPT + STEPS) as u64 - 8);
        assert!(regret["mass"].as_f64().expect("a number") > 0.01);
        assert!((1..=STEPS as u64).contains(&regret["step"].as_u64().expect("a step")));
    }
    let lost: Vec<f64> = lane["damage"]["lost_mass"].as_array().expect("a list").iter().flat_map(numbers).collect();
    assert!(lost.iter().all(|m| *m > 0.0 && *m < 1.0));
    let mean = lost.iter().sum::<f64>() / lost.len() as f64;
    assert!(mean > 0.5, "8 of 60 positions are left, yet {mean} is lost on average");
}

/// The oracle that looks as far as the steps go keeps what hindsight says, and so has all of it.
#[test]
fn hindsight_knows_the_oracle_as_the_best() {
    let oracle = format!("oracle@25%:tokens={STEPS}");
    let report = compare(&["--lane", &oracle, "--lane", "knorm@25%", "--lane", "int8", "--kv", "f32"]);
    let lane = |i: usize| &report["lanes"][i];
    let of = |i: usize, key: &str| lane(i)["hindsight"][key].as_f64().expect("a number");
    assert!(of(1, "recall") > 0.99 && of(1, "of_best") > 0.9999, "{}", lane(1)["hindsight"]);
    assert!(of(2, "recall") < 0.9 && of(2, "of_best") < 0.95, "{}", lane(2)["hindsight"]);
    assert!(of(2, "least") <= of(2, "recall") && of(2, "covered") < of(2, "covered_by_best"));
    assert!(lane(0)["hindsight"].is_null() && lane(3)["hindsight"].is_null(), "nothing is evicted");
    for i in [1, 2] {
        let steps = numbers(&lane(i)["covered_mass"]);
        assert_eq!(steps.len(), STEPS);
        // neither evicts later: what the set covers is what was held
        let mean = steps.iter().sum::<f64>() / STEPS as f64;
        assert!((mean - of(i, "covered")).abs() < 1e-4, "{mean} {}", of(i, "covered"));
    }
    assert_eq!(len(&lane(0)["covered_mass"]), 0);
    assert_eq!(lane(1)["recall_of"][&oracle], 1.0);
    let recall = lane(2)["recall_of"][&oracle].as_f64().expect("a number");
    assert!((recall - of(2, "recall")).abs() < 0.02, "{recall}");
    assert_eq!(lane(3)["recall_of"].as_object().map(|all| all.len()), Some(0));
    let none = json(&on_tiny("compare", &["--ids", &ids(40), "--steps", "0", "--lane", "random@25%", "--json"]));
    assert!(none["lanes"][1]["hindsight"].is_null());
}

#[test]
fn spans_are_what_is_left_of_the_positions_named() {
    let report = compare(&["--lane", "streaming@50%:sinks=4", "--span", "old=0..20", "--span", "new=50.."]);
    assert_eq!(
        report["spans"],
        serde_json::json!([{"name": "old", "from": 0, "to": 20}, {"name": "new", "from": 50, "to": 60}])
    );
    let (full, lane) = (&report["lanes"][0]["spans"], &report["lanes"][1]["spans"]);
    assert!(full.as_array().expect("a list").iter().all(|span| span["share"] == 1.0));
    for (span, expected) in [(&lane[0], 0.2), (&lane[1], 1.0)] {
        assert!((span["share"].as_f64().expect("a number") - expected).abs() < 1e-6, "{span}");
        assert!(span["least"].is_number() && span["layer"] == 0 && span["kv_head"] == 0);
    }
    // words cannot be found without a tokenizer; all is told before anything is read
    for (span, what) in [("a=word", "no tokenizer"), ("a=50..61", "positions 0..60"), ("a=3..3", "smaller")] {
        let prompt = ids(PROMPT);
        let output = on_tiny("compare", &["--ids", &prompt, "--lane", "knorm@50%", "--span", span]);
        assert!(code(&output) == 2 && said(&output).contains(what), "{}", said(&output));
        let output = on_tiny("run", &["--ids", &prompt, "--steps", "1", "--span", span]);
        assert!(code(&output) == 2 && said(&output).contains(what), "{}", said(&output));
    }
    let text =
        stdout(&on_tiny("compare", &["--ids", &ids(40), "--lane", "h2o@50%", "--span", "start=..10", "--steps", "2"]));
    for word in ["start (tokens 0 to 9)", "recall", "later mass", "of best"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn the_table_names_every_lane() {
    let text =
        stdout(&on_tiny("compare", &["--ids", &ids(40), "--steps", "2", "--lane", "h2o@50%", "--lane", "tova@8"]));
    for word in ["full", "h2o@50%", "tova@8", "KL", "lost mass"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let none = stdout(&on_tiny("compare", &["--ids", &ids(40), "--steps", "0", "--lane", "knorm@50%"]));
    assert!(none.contains("knorm@50%"));
}
