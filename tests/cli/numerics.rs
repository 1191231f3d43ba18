//! `numerics` on the tiny model.

use serde_json::Value;

use super::{LAYERS, code, ids, json, on_tiny, stdout};

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

#[test]
fn fewer_bits_lose_more_in_every_layer() {
    let prompt = ids(150);
    let report = json(&on_tiny("numerics", &["--ids", &prompt, "--rows", "5", "--precision", "f32", "--json"]));
    assert_eq!(report["positions"], serde_json::json!([29, 59, 89, 119, 149]));
    let layers = report["layers"].as_array().expect("a list");
    assert_eq!(layers.len(), LAYERS);
    for layer in layers {
        let of = |arithmetic: &str, error: &str| number(&layer[arithmetic][error]);
        for error in ["output", "probs"] {
            let (f16, bf16, flash) = (of("f16", error), of("bf16", error), of("flash", error));
            assert!(bf16 > 2.0 * f16 && f16 > 20.0 * flash && flash < 1e-5 && bf16 < 0.1, "{layer}");
        }
        assert!(number(&layer["own_probs"]) < 1e-5);
    }
}

#[test]
fn the_table_says_what_is_rounded() {
    let text = stdout(&on_tiny("numerics", &["--ids", &ids(20)]));
    for word in ["f16 output", "flash", "tiles of 64", "scores, probabilities", "20 prompt tokens, 20 queries"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(code(&on_tiny("numerics", &["--ids", "1", "--rows", "0"])), 2);
}
