//! Published figures, from published shapes.

use super::*;
use crate::model::kv_shape::{KvShape, LayerKv};
use serde_json::json;

const K128: u64 = 131_072;

fn bf16(context: u64) -> Terms {
    Terms { context, batch: 1, dtype: "bf16".parse().unwrap() }
}

fn of(name: &str) -> KvShape {
    published::find(name).unwrap_or_else(|| panic!("{name}")).shape()
}

/// The same shape with every layer keeping its own.
fn unshared(name: &str) -> KvShape {
    let mut shape = of(name);
    let layers = shape.layers.clone();
    for layer in &mut shape.layers {
        if let LayerKv::Shared { with } = *layer {
            *layer = layers[with];
        }
    }
    shape
}

fn gigabytes(bytes: u64) -> f64 {
    (bytes as f64 / 1e7).round() / 100.0
}

#[test]
fn every_published_shape_can_be_read() {
    for model in published::PUBLISHED.iter() {
        assert!(model.shape().bytes(&bf16(1024)) > 0 && !model.about.is_empty(), "{}", model.name);
    }
}

/// "35 layers, 15 own + 20 shared; 42 = 24 + 18; about 2.7 GB / 6 GB saved at 128K bf16". The two figures are of caches
/// that keep everything: 6 GB with global heads of 512, 2.7 GB as if all heads had 256.
#[test]
fn gemma_4_saves_what_its_layers_share() {
    let own = |shape: &KvShape| shape.layers.iter().filter(|l| !matches!(l, LayerKv::Shared { .. })).count();
    let saved = |name: &str, as_held: fn(&KvShape) -> KvShape| {
        let terms = bf16(K128);
        gigabytes(as_held(&unshared(name)).bytes(&terms) - as_held(&of(name)).bytes(&terms))
    };
    assert_eq!((own(&of("gemma4-e2b")), of("gemma4-e2b").layers.len()), (15, 35));
    assert_eq!((own(&of("gemma4-e4b")), of("gemma4-e4b").layers.len()), (24, 42));
    let narrow = |shape: &KvShape| {
        let of_256 = |layer: &LayerKv| match *layer {
            LayerKv::Heads { kv_heads, .. } => LayerKv::Heads { kv_heads, head_dim: 256, window: None },
            other => other,
        };
        KvShape { layers: shape.layers.iter().map(of_256).collect() }
    };
    assert_eq!(saved("gemma4-e2b", narrow), 2.68);
    assert_eq!(saved("gemma4-e2b", KvShape::kept_whole), 3.22);
    assert_eq!(saved("gemma4-e4b", KvShape::kept_whole), 5.64);
    // and where windows drop what they hide
    assert_eq!((saved("gemma4-e2b", KvShape::clone), saved("gemma4-e4b", KvShape::clone)), (1.08, 1.63));
}

#[test]
fn sharers_read_the_last_layer_of_their_kind() {
    let layers = of("gemma4-e2b").layers;
    let global = |l: usize| (l + 1).is_multiple_of(5);
    for (l, layer) in layers.iter().enumerate().skip(15) {
        assert_eq!(*layer, LayerKv::Shared { with: if global(l) { 14 } else { 13 } }, "layer {l}");
    }
    assert_eq!(layers[4], LayerKv::Heads { kv_heads: 1, head_dim: 512, window: None });
    assert_eq!(layers[13], LayerKv::Heads { kv_heads: 1, head_dim: 256, window: Some(512) });
}

#[test]
fn a_latent_is_576_numbers_per_layer_whatever_the_heads() {
    let v3 = of("deepseek-v3");
    assert!(v3.layers.iter().all(|layer| layer.held(1) == Held { rows: 1, numbers: 576 }));
    assert_eq!(v3.bytes(&bf16(1)), 61 * 576 * 2);
}

#[test]
fn x_ecomla_is_6_4_times_smaller() {
    let ratio = |context| {
        of("llama3.2-1b").bytes(&bf16(context)) as f64 / of("llama3.2-1b-x-ecomla").bytes(&bf16(context)) as f64
    };
    assert_eq!((ratio(1), ratio(K128)), (6.4, 6.4));
}

#[test]
fn v4_flash_keeps_these_rows_per_layer() {
    let v4 = of("deepseek-v4-flash").layers;
    for context in [0, 1, 3, 4, 127, 128, 129, 1000, K128, 1_000_000] {
        let near = context.min(128);
        assert_eq!(v4[1].held(context), Held { rows: near, numbers: 512 * near });
        let csa = Held { rows: context / 4 + near, numbers: 512 * (context / 4 + near) + 128 * (context / 4) };
        let hca = Held { rows: context / 128 + near, numbers: 512 * (context / 128 + near) };
        assert_eq!((v4[2].held(context), v4[3].held(context)), (csa, hca), "{context}");
    }
    assert_eq!(v4.iter().filter(|l| matches!(l, LayerKv::Compressed { every: 4, .. })).count(), 21);
    assert_eq!(v4.iter().filter(|l| matches!(l, LayerKv::Compressed { every: 128, .. })).count(), 20);
    // usable at the 0-based position t: ⌊(t+1)/m⌋
    for (t, m, usable) in [(0, 4, 0), (2, 4, 0), (3, 4, 1), (6, 4, 1), (7, 4, 2), (126, 128, 0), (127, 128, 1)] {
        assert_eq!(compressed_rows(t + 1, m), usable, "position {t}, one for {m}");
    }
}

#[test]
fn number_types_and_batches_multiply_and_nothing_overflows() {
    let shape = KvShape::of_heads(3, 64, [None; 30]);
    let terms = |dtype: &str, batch| Terms { context: 100, batch, dtype: dtype.parse().unwrap() };
    assert_eq!(shape.bytes(&terms("f32", 1)), 30 * 100 * 2 * 3 * 64 * 4);
    for (dtype, part) in [("bf16", 2), ("f16", 2), ("fp8", 4), ("int8", 4), ("int4", 8), ("int2", 16)] {
        assert_eq!(shape.bytes(&terms(dtype, 8)), 8 * shape.bytes(&terms("f32", 1)) / part, "{dtype}");
    }
    let most = Terms { context: u64::MAX, batch: u64::MAX, dtype: DTYPES[2] };
    assert_eq!(shape.bytes(&most), u64::MAX);
    assert!(what_if::rows(&of("deepseek-v4-flash")).iter().all(|row| row.bytes(&most).is_some()));
    let nothing = Change::Compress { every: vec![0], window: 128 }.to(&shape).unwrap();
    assert_eq!(nothing.layers[0].held(1000).rows, 128);
}

#[test]
fn what_ifs_keep_what_they_do_not_speak_of() {
    let gemma = KvShape::of_heads(1, 256, (0..18).map(|l| ((l + 1) % 6 != 0).then_some(512)));
    let terms = bf16(K128);
    let rows = what_if::rows(&gemma);
    let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    let wanted =
        ["as it is", "window 512 everywhere", "last 9 layers share", "latent of 576", "1 row for 4/128, window 128"];
    assert_eq!(names, wanted);
    let full = 2 * 256 * K128 * 2;
    let local = 2 * 256 * 512 * 2;
    let bytes: Vec<u64> = rows.iter().map(|row| row.bytes(&terms).unwrap()).collect();
    assert_eq!(bytes[0], 15 * local + 3 * full);
    assert_eq!(bytes[1], 18 * local);
    assert_eq!(bytes[2], 8 * local + full, "layers 5 and 0 to 8 without it keep their own");
    assert_eq!(bytes[3], 576 * 2 * (15 * 512 + 3 * K128));
    let made = |every: u64| 2 * 256 * (K128 / every + 128) * 2;
    assert_eq!(bytes[4], 15 * local + 2 * made(4) + made(128), "windows stay as they are");
    let alone = Change::ShareLast(17).to(&gemma).unwrap_err();
    assert_eq!(alone, ChangeError::Alone { layer: 5, count: 17 });
    assert!(Change::ShareLast(18).to(&gemma).is_err());
    let both = what_if::changed(&gemma, &[Change::ShareLast(9), Change::Latent(576)]);
    assert_eq!(both.bytes(&terms), Some(576 * 2 * (8 * 512 + K128)));
}

#[test]
fn what_a_configuration_cannot_mean_is_refused() {
    let base = json!({ "num_hidden_layers": 4, "num_attention_heads": 4, "hidden_size": 64, "num_key_value_heads": 2 });
    let with = |more: serde_json::Value| {
        let mut config = base.clone();
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        KvShape::from_config(&config)
    };
    assert_eq!(with(json!({})).unwrap(), KvShape::of_heads(2, 16, [None; 4]));
    for (more, word) in [
        (json!({ "num_hidden_layers": 0 }), "num_hidden_layers"),
        (json!({ "num_hidden_layers": 1u64 << 60 }), "num_hidden_layers"),
        (json!({ "head_dim": u64::MAX }), "head_dim"),
        (json!({ "num_attention_heads": 0 }), "num_attention_heads"),
        (json!({ "num_kv_shared_layers": 4 }), "num_kv_shared_layers"),
        (json!({ "num_kv_shared_layers": "x" }), "num_kv_shared_layers"),
        (json!({ "sliding_window_pattern": 2 }), "sliding_window"),
        (json!({ "sliding_window_pattern": 0, "sliding_window": 8 }), "sliding_window_pattern"),
        (json!({ "layer_types": ["full_attention"] }), "layer_types"),
        (
            json!({ "layer_types": ["linear_attention", "full_attention", "full_attention", "full_attention"] }),
            "linear_attention",
        ),
        (json!({ "compress_ratios": [4], "head_dim": 8, "sliding_window": 4 }), "compress_ratios"),
        (json!({ "compress_ratios": [4, 4, 4, -1] }), "compress_ratios"),
        (json!({ "kv_lora_rank": 512 }), "qk_rope_head_dim"),
    ] {
        let told = with(more.clone()).unwrap_err().to_string();
        assert!(told.contains(word), "{more}: {told}");
    }
    assert!(KvShape::from_config(&json!([])).is_err());
}
