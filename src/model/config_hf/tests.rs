//! Both generations of keys give one configuration; what cannot be run is refused by name.

use serde_json::{Value, json};

use super::read;
use crate::model::config::{Activation, Config, Family, RopeScaling};

fn base(model_type: &str, more: Value) -> Value {
    let mut config = json!({
        "model_type": model_type, "hidden_size": 96, "intermediate_size": 160, "num_attention_heads": 6,
        "num_key_value_heads": 2, "num_hidden_layers": 4, "vocab_size": 320, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6, "bos_token_id": 1, "eos_token_id": [2, 3],
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

fn config(model_type: &str, more: Value) -> Config {
    read(&base(model_type, more)).unwrap()
}

fn refusal(model_type: &str, more: Value) -> String {
    read(&base(model_type, more)).unwrap_err().to_string()
}

fn windows(config: &Config) -> Vec<Option<usize>> {
    config.layers.iter().map(|layer| layer.window).collect()
}

#[test]
fn llama3_rope_in_both_generations() {
    let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64});
    let mut parameters = scaling.clone();
    parameters["rope_theta"] = json!(500000.0);
    let older = config("llama", json!({"rope_theta": 500000.0, "rope_scaling": scaling}));
    let newer = config("llama", json!({"rope_parameters": parameters}));
    assert_eq!(older, newer);
    assert_eq!(newer.ropes[0].theta, 500000.0);
    let wanted =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 64.0 };
    assert_eq!(newer.ropes[0].scaling, wanted);
    assert_eq!((newer.head_dim, newer.attn_scale, newer.bos, &newer.eos[..]), (16, 0.25, Some(1), &[2, 3][..]));
}

#[test]
fn linear_rope_in_both_generations() {
    let older = config("llama", json!({"rope_scaling": {"type": "linear", "factor": 2.0}}));
    let newer = config("llama", json!({"rope_parameters": {"rope_type": "linear", "factor": 2, "rope_theta": 1e4}}));
    assert_eq!(older, newer);
    assert_eq!(newer.ropes[0].scaling, RopeScaling::Linear { factor: 2.0 });
    assert_eq!(config("llama", json!({"rope_scaling": null})).ropes[0].scaling, RopeScaling::None);
}

#[test]
fn gemma3_in_both_generations_and_inside_a_vision_model() {
    let types: Vec<&str> = (0..7).map(|i| if i == 5 { "full_attention" } else { "sliding_attention" }).collect();
    let newer = json!({"head_dim": 24, "num_hidden_layers": 7, "sliding_window": 24, "query_pre_attn_scalar": 24,
        "hidden_activation": "gelu_pytorch_tanh", "layer_types": types, "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}});
    let older = json!({"head_dim": 24, "num_hidden_layers": 7, "sliding_window": 24, "query_pre_attn_scalar": 24,
        "sliding_window_pattern": 6, "rope_theta": 1e6, "rope_local_base_freq": 1e4,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0}});
    let config = config("gemma3_text", newer);
    assert_eq!(config, read(&base("gemma3_text", older.clone())).unwrap());
    assert_eq!(windows(&config), [Some(24), Some(24), Some(24), Some(24), Some(24), None, Some(24)]);
    assert_eq!((config.layers[0].rope, config.layers[5].rope), (1, 0));
    assert_eq!(config.ropes[0].scaling, RopeScaling::Linear { factor: 8.0 });
    assert_eq!((config.ropes[1].theta, config.ropes[1].scaling), (1e4, RopeScaling::None));
    assert!(config.norm_plus_one && config.sandwich_norms && config.qk_norm && config.tied_head);
    assert_eq!((config.embed_scale, config.attn_scale), (96f32.sqrt(), 1.0 / 24f32.sqrt()));
    assert_eq!((config.activation, config.attn_softcap, config.final_softcap), (Activation::GeluTanh, None, None));

    let vision = json!({"model_type": "gemma3", "text_config": base("gemma3_text", older), "vision_config": {}});
    assert_eq!(read(&vision).unwrap(), config);
    // As google/gemma-3-4b-it is published: transformers' defaults are left out.
    let published = json!({"model_type": "gemma3", "eos_token_id": [1, 106], "text_config": {"model_type": "gemma3_text",
        "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}});
    let four_b = read(&published).unwrap();
    assert_eq!((four_b.heads, four_b.kv_heads, four_b.head_dim, four_b.vocab), (8, 4, 256, 262_208));
    assert_eq!((four_b.attn_scale, four_b.context, &four_b.eos[..]), (0.0625, 131_072, &[1, 106][..]));
}

#[test]
fn gemma2_alternates_and_caps() {
    let gemma2 = config(
        "gemma2",
        json!({"head_dim": 16, "sliding_window": 24, "query_pre_attn_scalar": 20,
        "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}),
    );
    assert_eq!(windows(&gemma2), [Some(24), None, Some(24), None]);
    assert!(gemma2.layers.iter().all(|layer| layer.rope == 0) && gemma2.ropes.len() == 1 && !gemma2.qk_norm);
    assert_eq!((gemma2.attn_softcap, gemma2.final_softcap), (Some(5.0), Some(3.0)));
    assert_eq!(gemma2.attn_scale, 1.0 / 20f32.sqrt());
    let plain = config("gemma2", json!({"head_dim": 16, "attn_logit_softcapping": null}));
    assert_eq!((plain.attn_softcap, plain.final_softcap, plain.layers[0].window), (None, Some(30.0), Some(4096)));
}

#[test]
fn windows_and_biases_of_the_other_families() {
    let mistral = config("mistral", json!({"sliding_window": 24, "head_dim": 24}));
    assert_eq!((windows(&mistral), mistral.head_dim), (vec![Some(24); 4], 24));
    assert_eq!(windows(&config("mistral", json!({"sliding_window": null}))), [None; 4]);
    assert_eq!(windows(&config("llama", json!({"sliding_window": 24}))), [None; 4]);

    let qwen2 = config("qwen2", json!({"sliding_window": 24, "use_sliding_window": false, "max_window_layers": 2}));
    assert_eq!((qwen2.family, windows(&qwen2)), (Family::Qwen2, vec![None; 4]));
    assert!(qwen2.qkv_bias && !qwen2.o_bias && !qwen2.qk_norm);
    let windowed = config("qwen2", json!({"sliding_window": 24, "use_sliding_window": true, "max_window_layers": 2}));
    assert_eq!(windows(&windowed), [None, None, Some(24), Some(24)]);
    let qwen3 = config("qwen3", json!({"head_dim": 32, "attention_bias": true}));
    assert!(qwen3.qk_norm && qwen3.qkv_bias && qwen3.o_bias);
    assert_eq!(config("qwen3", json!({})).head_dim, 128);
}

#[test]
fn what_cannot_be_run_is_refused_by_name() {
    for (model_type, more, wanted) in [
        ("mamba", json!({}), "\"mamba\""),
        ("llama", json!({"hidden_size": null}), "`hidden_size`"),
        ("llama", json!({"hidden_size": "96"}), "`hidden_size` is"),
        ("llama", json!({"hidden_size": -1}), "non-negative"),
        ("llama", json!({"num_attention_heads": 0}), "head"),
        ("llama", json!({"num_key_value_heads": 4}), "multiple of the key-value heads"),
        ("llama", json!({"num_hidden_layers": 4_000_000_000u64}), "num_hidden_layers"),
        ("llama", json!({"hidden_act": "relu\u{1b}"}), "\"relu\\u{1b}\""),
        ("llama", json!({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}), "\"yarn\""),
        ("llama", json!({"rope_scaling": {"rope_type": "linear"}}), "`factor`"),
        ("llama", json!({"rope_scaling": {"rope_type": "linear", "factor": 0.0}}), "above 0"),
        ("llama", json!({"rope_scaling": [1]}), "an object"),
        ("llama", json!({"rope_parameters": {"partial_rotary_factor": 0.5}}), "partial_rotary_factor"),
        ("llama", json!({"eos_token_id": [-1]}), "eos_token_id"),
        ("llama", json!({"layer_types": ["full_attention"]}), "layer_types"),
        ("llama", json!({"layer_types": ["a", "b", "c", "d"]}), "\"a\""),
        ("gemma3_text", json!({"sliding_window_pattern": 0}), "sliding_window_pattern"),
        ("gemma3_text", json!({"sliding_window": null}), "sliding_window"),
        ("gemma3_text", json!({"use_bidirectional_attention": true}), "bidirectional"),
        ("gemma3_text", json!({"query_pre_attn_scalar": 0}), "attention scale"),
    ] {
        let told = refusal(model_type, more.clone());
        assert!(told.contains(wanted), "{more}: {told}");
    }
    assert!(read(&json!([])).is_err());
    assert!(read(&json!({})).unwrap_err().to_string().contains("model_type"));
}
