//! One tiny random model of every family, in f32 on the CPU.

use attnscope::engine::Precision;

use crate::family::equals;
use crate::golden::core;

macro_rules! families {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            equals(stringify!($name), |model| core(model, Precision::F32, &["full"]));
        })*
    };
}

families!(gemma2_softcap gemma3_text llama3_rope llama_linear_rope mistral_window qwen2_bias qwen3_qknorm);
