//! Token ids of both real models against the golden ones, and round trips.

use std::path::Path;
use std::time::Instant;

use attnscope::model::source::Model;
use proptest::prelude::*;
use serde_json::Value;

const GOLDEN: &str = include_str!("golden/tokens.json");

/// The catalog model, if it has been pulled on this machine.
fn pulled(name: &str) -> Option<Model> {
    let path = format!("/tmp/w/m/{name}.gguf");
    let t = Instant::now();
    let m = Model::open(Path::new(&path)).ok();
    println!("{name} {:?}", t.elapsed());
    m
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn equals_golden(catalog_name: &str, golden_name: &str) {
    let Some(model) = pulled(catalog_name) else { return };
    let tokenizer = model.tokenizer.as_ref().expect("the file holds a tokenizer");
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let prompts = golden[golden_name].as_object().unwrap();
    assert_eq!(prompts.len(), 4);
    for (name, prompt) in prompts {
        let text = prompt["text"].as_str().unwrap();
        let wanted = ids(&prompt["token_ids"]);
        assert_eq!(tokenizer.prompt_ids(text).unwrap(), wanted, "{name}");
        assert_eq!(tokenizer.bos().is_some(), prompt["add_bos"].as_bool().unwrap(), "{name}");
        let pieces: Vec<&str> = wanted.iter().map(|id| tokenizer.piece(*id)).collect();
        let golden_pieces: Vec<&str> = prompt["tokens"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
        assert_eq!(pieces, golden_pieces, "{name}");
        let text_ids = if tokenizer.bos().is_some() { &wanted[1..] } else { &wanted };
        assert_eq!(tokenizer.decode(text_ids), text, "{name}");
    }
}

#[test]
fn smollm2_ids_equal_golden() {
    equals_golden("smol", "smollm2");
}

#[test]
fn gemma3_ids_equal_golden() {
    equals_golden("gemma", "gemma3");
}

#[test]
fn any_text_comes_back() {
    for name in ["smol", "gemma"] {
        let Some(model) = pulled(name) else { continue };
        let tokenizer = model.tokenizer.as_ref().unwrap();
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        runner
            .run(&(any::<String>(), any::<bool>()), |(text, specials)| {
                let ids = tokenizer.encode(&text, specials).unwrap();
                prop_assert_eq!(tokenizer.decode(&ids), text);
                Ok(())
            })
            .unwrap();
    }
}
