//! Model files that are cut short, flipped, or lie: always an error that says what is wrong, never a panic, and never
//! an allocation on a header's word.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use attnscope::model::source::Model;
use common::gguf::{HIDDEN, Tensor, Writer, string, tiny_llama};
use proptest::prelude::*;

/// Remembers the largest single allocation of each thread.
struct Watching;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that is ending has no cell any more.
        let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(layout.size())));
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// More than any vector over the tiny model's 260 pieces and 60 KB needs.
const MOST: usize = 4 << 20;

/// Open `bytes` as a GGUF file, minding allocations.
fn open(bytes: &[u8]) -> Result<Model, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    open_at(&path)
}

fn open_at(path: &Path) -> Result<Model, String> {
    LARGEST.set(0);
    let opened = Model::open(path).map_err(|error| error.to_string());
    assert!(LARGEST.get() < MOST, "{} bytes at once", LARGEST.get());
    opened
}

fn error(writer: &Writer) -> String {
    match open(&writer.bytes()) {
        Ok(_) => panic!("it opened"),
        Err(error) => error,
    }
}

fn with(change: impl FnOnce(&mut Writer)) -> Writer {
    let mut writer = tiny_llama();
    change(&mut writer);
    writer
}

#[test]
fn the_sound_file_opens() {
    let model = open(&tiny_llama().bytes()).unwrap();
    assert_eq!((model.config.vocab, model.config.head_dim, model.weight_types.as_str()), (260, 8, "F32"));
    assert_eq!(model.parameters, 260 * 32 + 32 + 2 * (2 * 32 + 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48));
    // Rows 0, 2, 4, 6, 1, 3, 5, 7 of a head, 32 numbers each.
    let firsts = |head: usize| -> Vec<f32> {
        let q = &model.weights.layers[0].q;
        (0..8).map(|row| f32::from_le_bytes(q.row(8 * head + row)[..4].try_into().unwrap())).collect()
    };
    assert_eq!(firsts(0), [0.0, 64.0, 128.0, 192.0, 32.0, 96.0, 160.0, 224.0]);
    assert_eq!(firsts(3)[1], (3 * 8 + 2) as f32 * HIDDEN as f32);
    let tokenizer = model.tokenizer.unwrap();
    assert_eq!(tokenizer.encode("hello<|end|>", true).unwrap(), [258, b'o'.into(), 259]);
    assert_eq!(tokenizer.encode("<|end|>", false).unwrap().len(), 7);
}

#[test]
fn cut_short_anywhere() {
    let bytes = tiny_llama().bytes();
    let header = tiny_llama().header().len();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for end in
        (0..600).chain((600..header).step_by(7)).chain((header..bytes.len()).step_by(509)).chain([bytes.len() - 1])
    {
        std::fs::write(&path, &bytes[..end]).unwrap();
        assert!(open_at(&path).is_err(), "{end} of {} bytes opened", bytes.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn flipped_bits_in_the_header(flips in prop::collection::vec((any::<prop::sample::Index>(), 0..8u8), 1..6)) {
        let mut bytes = tiny_llama().bytes();
        let header = tiny_llama().header().len();
        for (index, bit) in flips {
            bytes[index.index(header)] ^= 1 << bit;
        }
        let opened = open(&bytes).ok().and_then(|model| Some((model.config.vocab, model.tokenizer?)));
        if let Some((vocab, tokenizer)) = opened {
            let ids = tokenizer.encode("hello \u{1F600}\n  12 <|end|>", true).unwrap_or_default();
            tokenizer.decode(&ids);
            prop_assert!(ids.iter().all(|id| (*id as usize) < vocab));
        }
    }

    #[test]
    fn any_text_comes_back_from_byte_level_bpe(text in any::<String>(), specials in any::<bool>()) {
        thread_local!(static MODEL: Model = open(&tiny_llama().bytes()).unwrap());
        MODEL.with(|model| {
            let tokenizer = model.tokenizer.as_ref().unwrap();
            let ids = tokenizer.encode(&text, specials).unwrap();
            prop_assert_eq!(tokenizer.decode(&ids), text);
            Ok(())
        })?;
    }
}

#[test]
fn lying_counts_and_lengths() {
    let patched = |at: usize, value: u64| {
        let mut bytes = tiny_llama().bytes();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        open(&bytes).err().expect("it opened")
    };
    for lie in [u64::MAX, u64::MAX / 2, 1 << 40, 1 << 20] {
        assert!(patched(8, lie).contains("tensors, more than"), "{}", patched(8, lie));
        assert!(patched(16, lie).contains("metadata entries, more than"));
        assert!(patched(24, lie).contains("ends too early"));
    }
    for count in [u64::MAX, 1 << 60, 1 << 33] {
        for element in [0u32, 5, 8, 10] {
            let array = [&element.to_le_bytes()[..], &count.to_le_bytes()].concat();
            let told = error(&with(|w| w.raw("some.array", 9, &array)));
            assert!(told.contains("array elements, more than"), "{told}");
        }
    }
    let nested = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat();
    assert!(error(&with(|w| w.raw("some.array", 9, &nested))).contains("array of arrays"));
    assert!(error(&with(|w| w.raw("some.key", 99, &[]))).contains("unknown value type 99"));
    assert!(error(&with(|w| w.raw("some.key", 8, &[&2u64.to_le_bytes()[..], b"\xff\xfe"].concat()))).contains("UTF-8"));
    let twice = with(|w| w.values.push(w.values[0].clone()));
    assert!(error(&twice).contains("occurs twice"));
    for alignment in [0, 1, 3, 4, 48] {
        assert!(error(&with(|w| w.u32("general.alignment", alignment))).contains("general.alignment"));
    }
}

#[test]
fn lying_tensors() {
    let changed = |change: fn(&mut Tensor)| error(&with(|w| change(&mut w.tensors[0])));
    assert!(changed(|t| t.dims = vec![u64::MAX, u64::MAX]).contains("impossible shape"));
    assert!(changed(|t| t.dims = vec![1 << 32, 1 << 32]).contains("impossible shape"));
    assert!(changed(|t| t.dims = vec![0, 260]).contains("impossible shape"));
    assert!(changed(|t| t.dims = vec![1 << 40]).contains("past the end"));
    assert!(changed(|t| t.dims = vec![]).contains("0 dimensions"));
    assert!(changed(|t| t.dims = vec![1; 5]).contains("5 dimensions"));
    assert!(changed(|t| t.kind = 20).contains("IQ"));
    assert!(changed(|t| t.kind = 4_000_000_000).contains("ggml type 4000000000"));
    // 32 columns are no whole block of 256.
    assert!(changed(|t| t.kind = 12).contains("impossible shape"));
    assert!(changed(|t| t.name = "output_norm.weight".into()).contains("occurs twice"));
    assert!(changed(|t| t.name = "other".into()).contains("token_embd.weight"));
    let shown = error(&with(|w| {
        w.tensors[0].name = "\u{1b}[2J\u{202e}".into();
        w.tensors[0].dims = vec![0];
    }));
    assert!(shown.contains("\\u{1b}[2J\\u{202e}") && !shown.contains('\u{1b}'), "{shown}");

    let mut bytes = tiny_llama().bytes();
    let name = string("token_embd.weight");
    let at = bytes.windows(name.len()).position(|w| w == name).unwrap() + name.len() + 4 + 16 + 4;
    for (offset, wanted) in [(u64::MAX - 31, "past the end"), (1 << 40, "past the end"), (8, "no multiple")] {
        bytes[at..at + 8].copy_from_slice(&offset.to_le_bytes());
        let told = open(&bytes).err().expect("it opened");
        assert!(told.contains(wanted), "{told}");
    }
}

#[test]
fn a_header_that_is_no_model() {
    assert!(open(b"").is_err());
    assert!(open(b"GGML").err().unwrap().contains("does not begin with"));
    assert!(open(b"GGUF\x01\0\0\0").err().unwrap().contains("version 1"));
    assert!(open(b"GGUF\0\0\0\x03").err().unwrap().contains("big-endian"));
    assert!(error(&with(|w| w.text("general.architecture", "mamba\u{7}"))).contains("\"mamba\\u{7}\""));
    assert!(
        error(&with(|w| w.values.retain(|(key, _)| key != "general.architecture"))).contains("general.architecture")
    );
    assert!(error(&with(|w| w.values.retain(|(key, _)| key != "llama.block_count"))).contains("llama.block_count"));
    assert!(error(&with(|w| w.text("llama.block_count", "2"))).contains("non-negative integer"));
    assert!(error(&with(|w| w.u32("llama.block_count", u32::MAX))).contains("at most the number of tensors"));
    assert!(error(&with(|w| w.u32("llama.block_count", 3))).contains("blk.2.attn_norm.weight\" is missing"));
    assert!(error(&with(|w| w.u32("llama.attention.head_count", 0))).contains("between 1 and"));
    assert!(error(&with(|w| w.u32("llama.attention.head_count_kv", 3))).contains("multiple of the key-value heads"));
    assert!(error(&with(|w| w.u32("llama.attention.key_length", 7))).contains("even"));
    assert!(error(&with(|w| w.u32("llama.attention.key_length", 16))).contains("attn_q.weight"));
    assert!(error(&with(|w| w.u32("llama.rope.dimension_count", 4))).contains("rope.dimension_count"));
    assert!(error(&with(|w| w.text("llama.rope.scaling.type", "yarn"))).contains("\"yarn\""));
    assert!(error(&with(|w| w.f32("llama.attention.layer_norm_rms_epsilon", f32::NAN))).contains("norm epsilon"));
    assert!(error(&with(|w| w.f32("llama.rope.freq_base", -1.0))).contains("rope base"));
    assert!(error(&with(|w| w.tensor("rope_freqs.weight", &[3]))).contains("rope factors"));
    assert!(error(&with(|w| w.tensor("rope_freqs.weight", &[4]))).contains("above 0"));
}

#[test]
fn tensors_that_do_not_fit() {
    let without = |name: &str| error(&with(|w| w.tensors.retain(|tensor| tensor.name != name)));
    assert!(without("blk.1.ffn_down.weight").contains("\"blk.1.ffn_down.weight\" is missing"));
    assert!(without("output_norm.weight").contains("\"output_norm.weight\" is missing"));
    let shaped = with(|w| {
        w.tensors.retain(|tensor| tensor.name != "blk.0.attn_v.weight");
        w.tensor("blk.0.attn_v.weight", &[HIDDEN, 17]);
    });
    assert!(error(&shaped).contains("\"blk.0.attn_v.weight\" is [17, 32], the configuration asks for [16, 32]"));
    let quantized = with(|w| {
        w.tensors.retain(|tensor| tensor.name != "output_norm.weight");
        let (name, dims) = ("output_norm.weight".into(), vec![HIDDEN]);
        w.tensors.push(Tensor { name, dims, kind: 8, data: vec![0; 34] });
    });
    assert!(error(&quantized).contains("must not be quantised"));
}

#[test]
fn tokenizers_that_do_not_fit() {
    let without = |key: &str| error(&with(|w| w.values.retain(|(known, _)| known != key)));
    assert!(without("tokenizer.ggml.tokens").contains("tokenizer.ggml.tokens"));
    assert!(without("tokenizer.ggml.merges").contains("tokenizer.ggml.merges"));
    assert!(error(&with(|w| w.text("tokenizer.ggml.model", "t5"))).contains("\"t5\""));
    assert!(error(&with(|w| w.text("tokenizer.ggml.pre", "nobody"))).contains("\"nobody\""));
    assert!(error(&with(|w| w.i32s("tokenizer.ggml.token_type", &[1, 2]))).contains("2 entries for 260 pieces"));
    assert!(error(&with(|w| w.i32s("tokenizer.ggml.token_type", &[-1; 260]))).contains("non-negative"));
    for merge in ["h x", "hello", "h", "", " ", "he he"] {
        assert!(error(&with(|w| w.texts("tokenizer.ggml.merges", &["h e", merge]))).contains("merge 1"), "{merge}");
    }
    assert!(error(&with(|w| w.text("tokenizer.ggml.model", "llama"))).contains("tokenizer.ggml.scores"));
    let none = with(|w| w.values.retain(|(key, _)| !key.starts_with("tokenizer.")));
    assert!(open(&none.bytes()).unwrap().tokenizer.is_none());
}

#[test]
fn a_token_without_an_embedding_is_refused() {
    let mut writer = tiny_llama();
    writer.tensors[0].dims = vec![HIDDEN, 259];
    let model = open(&writer.bytes()).unwrap();
    let refused = model.tokenizer.unwrap().encode("x<|end|>", true).unwrap_err().to_string();
    assert!(refused.contains("\"<|end|>\" (token 259)"), "{refused}");
}
