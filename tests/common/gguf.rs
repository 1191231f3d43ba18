//! Writing small GGUF files.

const ALIGNMENT: usize = 32;

/// Metadata and F32 tensors, put together by `bytes`.
#[derive(Clone, Default)]
pub struct Writer {
    pub values: Vec<(String, Vec<u8>)>,
    pub tensors: Vec<Tensor>,
}

#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    /// The fastest first.
    pub dims: Vec<u64>,
    /// ggml's number; 0 is F32.
    pub kind: u32,
    pub data: Vec<u8>,
}

pub fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

impl Writer {
    pub fn raw(&mut self, key: &str, kind: u32, bytes: &[u8]) {
        self.values.retain(|(known, _)| known != key);
        self.values.push((key.into(), [&kind.to_le_bytes()[..], bytes].concat()));
    }

    pub fn u32(&mut self, key: &str, value: u32) {
        self.raw(key, 4, &value.to_le_bytes());
    }

    pub fn f32(&mut self, key: &str, value: f32) {
        self.raw(key, 6, &value.to_le_bytes());
    }

    pub fn text(&mut self, key: &str, value: &str) {
        self.raw(key, 8, &string(value));
    }

    pub fn texts<S: AsRef<str>>(&mut self, key: &str, values: &[S]) {
        let mut bytes = [&8u32.to_le_bytes()[..], &(values.len() as u64).to_le_bytes()].concat();
        values.iter().for_each(|value| bytes.extend(string(value.as_ref())));
        self.raw(key, 9, &bytes);
    }

    pub fn i32s(&mut self, key: &str, values: &[i32]) {
        let mut bytes = [&5u32.to_le_bytes()[..], &(values.len() as u64).to_le_bytes()].concat();
        values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        self.raw(key, 9, &bytes);
    }

    /// Values count up from 0, so that moved rows can be told.
    pub fn tensor(&mut self, name: &str, dims: &[u64]) {
        let count: u64 = dims.iter().product();
        let data = (0..count).flat_map(|i| (i as f32).to_le_bytes()).collect();
        self.tensors.push(Tensor { name: name.into(), dims: dims.to_vec(), kind: 0, data });
    }

    /// Everything before the tensors' data, not padded.
    pub fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.values.len() as u64).to_le_bytes());
        for (key, value) in &self.values {
            out.extend(string(key));
            out.extend(value);
        }
        let mut offset = 0;
        for Tensor { name, dims, kind, data } in &self.tensors {
            out.extend(string(name));
            out.extend((dims.len() as u32).to_le_bytes());
            dims.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset = (offset + data.len()).next_multiple_of(ALIGNMENT);
        }
        out
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.header();
        for Tensor { data, .. } in &self.tensors {
            out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
            out.extend(data);
        }
        out
    }
}

/// GPT-2's letters for all bytes, in the order of the bytes.
pub fn byte_letters() -> Vec<String> {
    let mut next = 256u32;
    let own = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut letter = |byte: u8| {
        let code = if own(byte) { u32::from(byte) } else { next };
        next += u32::from(!own(byte));
        char::from_u32(code).unwrap().to_string()
    };
    (0..=255).map(&mut letter).collect()
}

pub const HIDDEN: u64 = 32;
pub const HEAD: u64 = 8;
pub const LAYERS: usize = 2;

/// A llama of two layers, 4 heads and 2 key-value heads, with a byte-level tokenizer of 260 pieces.
pub fn tiny_llama() -> Writer {
    let mut w = Writer::default();
    w.text("general.architecture", "llama");
    for (key, value) in [
        ("llama.block_count", LAYERS as u32),
        ("llama.context_length", 128),
        ("llama.embedding_length", HIDDEN as u32),
        ("llama.feed_forward_length", 48),
        ("llama.attention.head_count", 4),
        ("llama.attention.head_count_kv", 2),
        ("tokenizer.ggml.eos_token_id", 259),
    ] {
        w.u32(key, value);
    }
    w.f32("llama.attention.layer_norm_rms_epsilon", 1e-5);
    w.text("tokenizer.ggml.model", "gpt2");
    w.text("tokenizer.ggml.pre", "smollm");
    let mut pieces = byte_letters();
    pieces.extend(["he", "ll", "hell", "<|end|>"].map(str::to_owned));
    w.texts("tokenizer.ggml.tokens", &pieces);
    w.texts("tokenizer.ggml.merges", &["h e", "l l", "he ll"]);
    let mut types = vec![1; 260];
    types[259] = 3;
    w.i32s("tokenizer.ggml.token_type", &types);
    w.tensor("token_embd.weight", &[HIDDEN, 260]);
    w.tensor("output_norm.weight", &[HIDDEN]);
    for layer in 0..LAYERS {
        let mut add = |name: &str, dims: &[u64]| w.tensor(&format!("blk.{layer}.{name}.weight"), dims);
        add("attn_norm", &[HIDDEN]);
        add("attn_q", &[HIDDEN, 4 * HEAD]);
        add("attn_k", &[HIDDEN, 2 * HEAD]);
        add("attn_v", &[HIDDEN, 2 * HEAD]);
        add("attn_output", &[4 * HEAD, HIDDEN]);
        add("ffn_norm", &[HIDDEN]);
        add("ffn_gate", &[HIDDEN, 48]);
        add("ffn_up", &[HIDDEN, 48]);
        add("ffn_down", &[48, HIDDEN]);
    }
    w
}
