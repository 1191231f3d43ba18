//! What is read from the two real files.

mod common;

use attnscope::model::chat::Message;
use attnscope::model::config::Family;
use attnscope::model::tensor::DType;
use common::real_model;

#[test]
fn smollm2_as_its_header_says() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let config = &model.config;
    assert_eq!((config.family, config.vocab, config.layers.len()), (Family::Llama, 49_152, 30));
    assert_eq!((config.heads, config.kv_heads, config.head_dim, config.ff), (9, 3, 64, 1536));
    assert_eq!((config.ropes[0].theta, config.context, config.eos.contains(&2)), (100_000.0, 8192, true));
    assert!(config.tied_head && model.weights.head.is_none() && !config.norm_plus_one);
    assert_eq!((model.parameters, model.weight_types.as_str()), (134_515_008, "Q4_1+Q8_0+F32"));
    assert_eq!((model.weights.layers[29].down.dtype, model.weights.embed.dtype), (DType::Q4_1, DType::Q8_0));
    assert_eq!(model.sha256().unwrap(), "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53");
}

#[test]
fn smollm2_writes_a_chat() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let turn = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
    let prompt = model.chat_template.unwrap().render(&[turn("user", "Hi!")], true).unwrap();
    assert_eq!(
        prompt,
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
         <|im_start|>user\nHi!<|im_end|>\n<|im_start|>assistant\n"
    );
    let ids = model.tokenizer.unwrap().encode(&prompt, true).unwrap();
    assert_eq!(ids.iter().filter(|id| **id == 1).count(), 3);
}

#[test]
fn gemma3_as_its_header_says_and_leaves_out() {
    let Some(model) = real_model("gemma3-270m") else { return };
    let config = &model.config;
    assert_eq!((config.family, config.vocab, config.layers.len()), (Family::Gemma3, 262_144, 18));
    assert_eq!((config.heads, config.kv_heads, config.head_dim), (4, 1, 256));
    let global: Vec<usize> = (0..18).filter(|layer| config.layers[*layer].window.is_none()).collect();
    assert_eq!(global, [5, 11, 17]);
    assert_eq!((config.layers[0].window, config.layers[0].rope, config.layers[5].rope), (Some(512), 1, 0));
    assert_eq!((config.ropes[0].theta, config.ropes[1].theta), (1_000_000.0, 10_000.0));
    assert!(config.qk_norm && config.sandwich_norms && !config.norm_plus_one && model.chat_template.is_none());
    assert_eq!((config.attn_scale, config.embed_scale), (0.0625, 640f32.sqrt()));
    assert_eq!(model.parameters, 268_098_176);
}
