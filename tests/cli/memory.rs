//! `memory`: sizes by arithmetic, against what the program really holds, and of models that it does not run.

use serde_json::{Value, json as object};

use super::{KV_HEADS, LAYERS, code, ids, json, on_tiny, run, said, stdout, tiny};

const DIM: u64 = 16;

fn row<'a>(report: &'a Value, name: &str) -> &'a Value {
    let rows = report["rows"].as_array().expect("a list");
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name}: {rows:?}"))
}

fn bytes(value: &Value) -> u64 {
    value["bytes"].as_u64().expect("bytes")
}

#[test]
fn the_formula_is_what_the_program_holds() {
    let prompt = ids(50);
    let held =
        json(&on_tiny("compare", &["--ids", &prompt, "--lane", "knorm@50%", "--steps", "0", "--kv", "f16", "--json"]));
    let model = tiny();
    let model = model.to_str().expect("UTF-8");
    let report = json(&run(&["memory", "--model", model, "--context", "50", "--dtype", "f16", "--json"]));
    let whole = row(&report, "as it is");
    assert_eq!(whole["bytes"], held["lanes"][0]["kv_bytes"]);
    assert_eq!(bytes(whole), 2 * LAYERS as u64 * KV_HEADS as u64 * DIM * 50 * 2);
    let layers = whole["layers"].as_array().expect("a list");
    assert!(layers.len() == LAYERS && layers.iter().all(|layer| layer["kind"] == "heads" && layer["rows"] == 50));
    assert_eq!(
        (report["model"]["runs"].as_bool(), report["kept_whole_bytes"].as_u64()),
        (Some(true), Some(bytes(whole)))
    );
}

#[test]
fn what_is_asked_for_comes_together() {
    let model = tiny();
    let model = model.to_str().expect("UTF-8");
    let base = ["memory", "--model", model, "--context", "1k", "--batch", "8", "--dtype", "int4", "--json"];
    let one = |more: &[&str]| {
        let report = json(&run(&[&base, more].concat()));
        let rows = report["rows"].as_array().expect("a list").clone();
        assert_eq!(rows.len(), 2);
        bytes(&rows[1])
    };
    let position = 2 * KV_HEADS as u64 * DIM * 8 / 2;
    assert_eq!(one(&["--window", "100"]), 4 * 100 * position);
    assert_eq!(one(&["--shared-last", "3"]), 1024 * position);
    assert_eq!(one(&["--latent", "20", "--window", "100"]), 4 * 100 * 20 * 8 / 2);
    assert_eq!(one(&["--compress", "4,128"]), 2 * (256 + 128 + 8 + 128) * position);
    assert_eq!(one(&["--compress", "4", "--compress-window", "16", "--shared-last", "2"]), 2 * (256 + 16) * position);
    let told = stdout(&run(&["memory", "--model", model]));
    for words in
        ["131 072 tokens × 1, bf16", "as it is", "latent of 576", "derived", "keys and values of 2 × 16, everything"]
    {
        assert!(told.contains(words), "{words}: {told}");
    }
}

#[test]
fn a_model_that_is_not_run_needs_its_configuration_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let types: Vec<&str> = (0..30).map(|l| if l % 5 == 4 { "full_attention" } else { "sliding_attention" }).collect();
    let config = object!({ "model_type": "gemma3n", "text_config": {
        "model_type": "gemma3n_text", "num_hidden_layers": 30, "num_attention_heads": 8, "num_key_value_heads": 2,
        "head_dim": 256, "hidden_size": 2048, "sliding_window": 512, "layer_types": types, "num_kv_shared_layers": 10 } });
    std::fs::write(folder.path().join("config.json"), config.to_string()).expect("a file");
    let model = folder.path().to_str().expect("UTF-8");
    let report = json(&run(&["memory", "--model", model, "--context", "32k", "--json"]));
    assert_eq!(report["model"]["runs"], false);
    let whole = row(&report, "as it is");
    assert_eq!(bytes(whole), 2 * 2 * 256 * 2 * (16 * 512 + 4 * 32_768));
    assert_eq!((&whole["layers"][29]["kind"], &whole["layers"][29]["with"]), (&"shared".into(), &19.into()));
    assert_eq!(whole["layers"][28]["with"], 18);
    let told = stdout(&run(&["memory", "--model", model]));
    assert!(told.contains("attnscope does not run this model") && told.contains("10 × 0 B"), "{told}");
}

#[test]
fn published_shapes_have_names() {
    let report = json(&run(&["memory", "--shape", "deepseek-v3", "--context", "1", "--json"]));
    assert_eq!((bytes(row(&report, "as it is")), &report["model"]["runs"]), (61 * 576 * 2, &Value::Null));
    let refused = |args: &[&str], words: &[&str]| {
        let output = run(args);
        assert_eq!(code(&output), 2, "{args:?}");
        words.iter().for_each(|word| assert!(said(&output).contains(word), "{args:?}: {word}: {}", said(&output)));
    };
    refused(&["memory", "--shape", "gpt"], &["no shape \"gpt\"", "gemma4-e2b"]);
    refused(&["memory", "--shape", "deepseek-v3", "--shared-last", "61"], &["61 of 61", "--shared-last"]);
    refused(&["memory", "--shape", "deepseek-v3", "--model", "x"], &["cannot be used with"]);
    refused(&["memory", "--context", "many"], &["128k"]);
    refused(&["memory", "--dtype", "f7"], &["bf16, f16, f32"]);
}
