//! `exits` on the tiny model.

use serde_json::Value;

use super::{LAYERS, code, ids, json, on_tiny, said, stdout};

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

fn exits(args: &[&str]) -> Value {
    let prompt = ids(40);
    let mut all = vec!["--ids", &prompt, "--steps", "12", "--precision", "f32", "--json"];
    all.extend(args);
    json(&on_tiny("exits", &all))
}

#[test]
fn the_last_layer_is_the_model() {
    let report = exits(&["--confidence", "0", "--confidence", "1", "--from", "1"]);
    let (tokens, layers) = (list(&report["tokens"]), list(&report["layers"]));
    assert_eq!((tokens.len(), layers.len()), (12, LAYERS + 1));
    for token in tokens {
        assert!(token["exit_depth"].as_u64().expect("a depth") <= LAYERS as u64);
        assert_eq!((number(&token["kl"][LAYERS]), token["rank"][LAYERS].as_u64()), (0.0, Some(1)));
        assert!(number(&token["kl"][0]) > 0.0);
    }
    let last = &layers[LAYERS];
    assert!((number(&last["acceptance"]) - 1.0).abs() < 1e-5 && number(&last["agreement"]) == 1.0);
    assert!((number(&last["cost"]) - 1.0).abs() < 1e-6);
    let here: f64 = layers.iter().map(|layer| number(&layer["exits"])).sum();
    assert!((here - 1.0).abs() < 1e-5);
    // Who is sure from the start leaves as soon as may be, who never is with the last layer.
    let [always, never] = &list(&report["confidence"])[..] else { panic!("two thresholds") };
    assert_eq!((number(&always["layers_saved"]), number(&never["layers_saved"])), (LAYERS as f64 - 1.0, 0.0));
    assert_eq!(number(&never["agreement"]), 1.0);
    assert_eq!(list(&report["influence"]).len(), 2 * LAYERS);
    assert_eq!(list(&report["alike_spans"]).len(), LAYERS - 1);
}

#[test]
fn drafts_are_what_they_say_and_change_no_token() {
    let report = exits(&["--draft", "exit=4", "--draft", "exit=2", "--draft", "skip=3", "--draft", "sublayers=1/6"]);
    let drafts = list(&report["drafts"]);
    // Nothing left out: always right.
    let whole = &drafts[0];
    assert!((number(&whole["acceptance"]) - 1.0).abs() < 1e-5 && list(&whole["skipped"]).is_empty());
    assert_eq!(number(&whole["run"]["tokens_per_look"]), 5.0);
    // The first layers and the head are the lens after them.
    let (exit, lens) = (&drafts[1], &report["layers"][2]);
    for figure in ["acceptance", "agreement", "kl", "cost", "speedup"] {
        assert!((number(&exit[figure]) - number(&lens[figure])).abs() < 1e-5, "{figure}");
    }
    assert_eq!(exit["skipped"], serde_json::json!([4, 5, 6, 7]));
    assert_eq!(drafts[3]["skipped"], serde_json::json!([1, 6]));
    let skipped = list(&drafts[2]["skipped"]);
    assert!(skipped.len() == 3 && skipped.iter().all(|i| i.as_u64().expect("a sublayer") % 2 == 0));
    for draft in drafts {
        let (a, gamma, cost) = (number(&draft["acceptance"]), 4, number(&draft["cost"]));
        let tokens: f64 = (0..=gamma).map(|i| a.powi(i)).sum();
        assert!((number(&draft["speedup"]) - tokens / (gamma as f64 * cost + 1.0)).abs() < 1e-4);
        assert_eq!(draft["run"]["same_tokens"], true, "{draft}");
    }
}

#[test]
fn the_table_names_its_terms_and_bad_drafts_are_wrong_usage() {
    let prompt = ids(20);
    let text = stdout(&on_tiny("exits", &["--ids", &prompt, "--steps", "3"]));
    for word in
        ["Exit depth", "mean", "accepted", "tokens/look", "real: speculative", "skip=2", "exit=3", "temperature 1"]
    {
        assert!(text.contains(word), "{word}: {text}");
    }
    for (draft, word) in [("exit=5", "layers 1 to 4"), ("depth=2", "exit=L"), ("sublayers=8", "0 to 7")] {
        let output = on_tiny("exits", &["--ids", &prompt, "--steps", "3", "--draft", draft]);
        assert!(code(&output) == 2 && said(&output).contains(word), "{draft}: {}", said(&output));
    }
}
