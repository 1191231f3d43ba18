//! Hugging Face folders: sound ones, sharded ones, and ones that lie.

use std::fs;
use std::path::Path;

use attnscope::model::source::Model;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Value, json};
use tempfile::TempDir;

const HIDDEN: usize = 8;

struct Stored {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
}

/// A qwen2 of one layer, two heads and 10 tokens, in bf16.
fn tensors() -> Vec<Stored> {
    let layer = |name: &str, shape: &[usize]| (format!("model.layers.0.{name}"), shape.to_vec());
    let all = [
        ("model.embed_tokens.weight".into(), vec![10, HIDDEN]),
        ("model.norm.weight".into(), vec![HIDDEN]),
        ("lm_head.weight".into(), vec![10, HIDDEN]),
        layer("input_layernorm.weight", &[HIDDEN]),
        layer("post_attention_layernorm.weight", &[HIDDEN]),
        layer("self_attn.q_proj.weight", &[HIDDEN, HIDDEN]),
        layer("self_attn.k_proj.weight", &[4, HIDDEN]),
        layer("self_attn.v_proj.weight", &[4, HIDDEN]),
        layer("self_attn.o_proj.weight", &[HIDDEN, HIDDEN]),
        layer("self_attn.q_proj.bias", &[HIDDEN]),
        layer("self_attn.k_proj.bias", &[4]),
        layer("self_attn.v_proj.bias", &[4]),
        layer("mlp.gate_proj.weight", &[12, HIDDEN]),
        layer("mlp.up_proj.weight", &[12, HIDDEN]),
        layer("mlp.down_proj.weight", &[HIDDEN, 12]),
    ];
    all.into_iter().map(|(name, shape)| Stored { name, shape, dtype: Dtype::BF16 }).collect()
}

fn bytes(tensors: &[Stored]) -> Vec<u8> {
    let data: Vec<Vec<u8>> =
        tensors.iter().map(|t| vec![0; t.shape.iter().product::<usize>() * t.dtype.bitsize() / 8]).collect();
    let views = tensors
        .iter()
        .zip(&data)
        .map(|(t, data)| (t.name.clone(), TensorView::new(t.dtype, t.shape.clone(), data).unwrap()));
    serialize(views, None).unwrap()
}

fn config() -> Value {
    json!({"model_type": "qwen2", "hidden_size": HIDDEN, "intermediate_size": 12, "num_attention_heads": 2,
        "num_key_value_heads": 1, "num_hidden_layers": 1, "vocab_size": 10, "max_position_embeddings": 64,
        "eos_token_id": 2})
}

fn folder(weights: &[u8]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config().to_string()).unwrap();
    fs::write(folder.path().join("model.safetensors"), weights).unwrap();
    folder
}

fn error(folder: &Path) -> String {
    match Model::open(folder) {
        Ok(_) => panic!("it opened"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn one_file_and_shards_are_the_same_model() {
    let all = tensors();
    let single = folder(&bytes(&all));
    let model = Model::open(single.path()).unwrap();
    assert_eq!((model.weight_types.as_str(), model.config.tied_head, model.tokenizer.is_none()), ("BF16", false, true));
    let layer = &model.weights.layers[0];
    assert_eq!((layer.k.rows, layer.k.cols, layer.k_bias.as_ref().unwrap().cols), (4, 8, 4));
    assert!(layer.o_bias.is_none() && layer.q_norm.is_none() && layer.post_attn_norm.is_none());

    let sharded = tempfile::tempdir().unwrap();
    fs::write(sharded.path().join("config.json"), config().to_string()).unwrap();
    fs::write(sharded.path().join("generation_config.json"), r#"{"eos_token_id": [3, 2]}"#).unwrap();
    let mut map = serde_json::Map::new();
    for (i, half) in [&all[..7], &all[7..]].into_iter().enumerate() {
        let name = format!("model-0000{}-of-00002.safetensors", i + 1);
        half.iter().for_each(|t| drop(map.insert(t.name.clone(), json!(name))));
        fs::write(sharded.path().join(name), bytes(half)).unwrap();
    }
    let index = sharded.path().join("model.safetensors.index.json");
    fs::write(&index, json!({"weight_map": map}).to_string()).unwrap();
    let other = Model::open(sharded.path()).unwrap();
    assert_eq!((other.parameters, other.config.eos), (model.parameters, vec![2, 3]));
    assert_ne!(Model::open(sharded.path()).unwrap().sha256().unwrap(), model.sha256().unwrap());

    for (map, wanted) in [
        (json!({"x": "../model.safetensors"}), "outside the folder"),
        (json!({"x": "/etc/passwd"}), "outside the folder"),
        (json!({"x": ".."}), "outside the folder"),
        (json!({"x": 1}), "must hold file names"),
        (json!({}), "is empty"),
        (json!({"x": "model-00009.safetensors"}), "cannot read"),
    ] {
        fs::write(&index, json!({"weight_map": map}).to_string()).unwrap();
        let told = error(sharded.path());
        assert!(told.contains(wanted), "{told}");
    }
}

#[test]
fn lying_headers() {
    let sound = bytes(&tensors());
    for end in [0, 4, 8, 9, 100, sound.len() / 2, sound.len() - 1] {
        let told = error(folder(&sound[..end]).path());
        assert!(told.contains("model.safetensors"), "{told}");
    }
    for length in [u64::MAX, 1 << 62, 1 << 30, 99_999_999, 7, 0] {
        let mut lying = sound.clone();
        lying[..8].copy_from_slice(&length.to_le_bytes());
        error(folder(&lying).path());
    }
    for info in [
        r#"{"dtype":"F32","shape":[18446744073709551615,2],"data_offsets":[0,4]}"#,
        r#"{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}"#,
        r#"{"dtype":"F32","shape":[1],"data_offsets":[4,0]}"#,
        r#"{"dtype":"F32","shape":[1],"data_offsets":[0,400]}"#,
        r#"{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}"#,
        r#"{"dtype":"F99","shape":[1],"data_offsets":[0,4]}"#,
        r#"[[[[[["#,
    ] {
        let header = format!(r#"{{"model.embed_tokens.weight":{info}}}"#);
        let lying = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat();
        error(folder(&lying).path());
    }
    let deep = "[".repeat(100_000);
    error(folder(&[&(deep.len() as u64).to_le_bytes()[..], deep.as_bytes()].concat()).path());
}

#[test]
fn tensors_that_do_not_fit() {
    let changed = |change: &dyn Fn(&mut Vec<Stored>)| {
        let mut all = tensors();
        change(&mut all);
        error(folder(&bytes(&all)).path())
    };
    assert!(changed(&|all| drop(all.remove(0))).contains("\"model.embed_tokens.weight\" is missing"));
    assert!(changed(&|all| all.retain(|t| t.name != "lm_head.weight")).contains("\"lm_head.weight\" is missing"));
    assert!(changed(&|all| all[6].shape = vec![5, HIDDEN]).contains("is [5, 8], the configuration asks for [4, 8]"));
    assert!(changed(&|all| all[6].dtype = Dtype::I64).contains("I64; F32, F16 and BF16 can be read"));
    assert!(changed(&|all| all[6].shape = vec![]).contains("impossible shape"));
    assert!(changed(&|all| all[6].shape = vec![0, HIDDEN]).contains("impossible shape"));
}

#[test]
fn folders_without_a_model() {
    let empty = tempfile::tempdir().unwrap();
    assert!(error(empty.path()).contains("is no model"));
    assert!(error(&empty.path().join("absent")).contains("cannot read"));
    let weights = folder(&bytes(&tensors()));
    assert!(error(&weights.path().join("model.safetensors")).contains("is no model"));
    fs::write(weights.path().join("config.json"), "{").unwrap();
    assert!(error(weights.path()).contains("config.json"));
    fs::write(weights.path().join("config.json"), "[".repeat(100_000)).unwrap();
    assert!(error(weights.path()).contains("config.json"));
    fs::remove_file(weights.path().join("model.safetensors")).unwrap();
    fs::write(weights.path().join("config.json"), config().to_string()).unwrap();
    assert!(error(weights.path()).contains("model.safetensors"));
}

/// Byte-level BPE as tokenizers writes it, with a template that puts `<s>` first.
fn tokenizer_json() -> Value {
    json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": null,
        "added_tokens": [{"id": 5, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [5], "tokens": ["<s>"]}}},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": {"h": 0, "i": 1, "Ġ": 2, "hi": 3, "<": 4, "<s>": 5, "s": 6, ">": 7, "é": 8, "~": 11}, "merges": [["h", "i"]]},
    })
}

#[test]
fn a_tokenizer_json_is_used() {
    let folder = folder(&bytes(&tensors()));
    let path = folder.path().join("tokenizer.json");
    fs::write(&path, tokenizer_json().to_string()).unwrap();
    let tokenizer = Model::open(folder.path()).unwrap().tokenizer.unwrap();
    assert_eq!(tokenizer.prompt_ids("hi hi").unwrap(), [5, 3, 2, 3]);
    assert_eq!(tokenizer.encode("hi<s>", true).unwrap(), [3, 5]);
    assert_eq!(tokenizer.encode("hi<s>", false).unwrap(), [3, 4, 6, 7]);
    assert_eq!(
        (tokenizer.decode(&[3, 2, 3, 5]), tokenizer.text(2), tokenizer.piece(2)),
        ("hi hi<s>".into(), " ".into(), "Ġ")
    );
    // `é` is the letter of byte 0xE9, which is no character by itself.
    assert_eq!((tokenizer.text(8), &*tokenizer.bytes(8)), ("\u{fffd}".into(), &[0xE9][..]));
    assert_eq!((tokenizer.piece(999), tokenizer.text(999), tokenizer.vocab_size()), ("", String::new(), 12));
    assert!(tokenizer.encode("~", true).unwrap_err().to_string().contains("no embedding"));

    fs::write(&path, "{").unwrap();
    assert!(error(folder.path()).contains("tokenizer.json"));
    let mut broken = tokenizer_json();
    broken["model"]["merges"] = json!([["h", "q"]]);
    fs::write(&path, broken.to_string()).unwrap();
    assert!(error(folder.path()).contains("tokenizer.json"));
}
