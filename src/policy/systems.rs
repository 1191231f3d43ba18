//! Systems that compress or share KV caches but are no policy of a lane: what the program shows of each instead, or why
//! it is out of scope.

/// A published system that no spec runs.
pub struct System {
    pub name: &'static str,
    pub what: What,
    pub why: &'static str,
}

/// What of a system can be looked at here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// An analysis that every model allows; the words are the command.
    View(&'static str),
    OutOfScope,
}

const fn view(name: &'static str, command: &'static str, why: &'static str) -> System {
    System { name, what: What::View(command), why }
}

const fn out(name: &'static str, why: &'static str) -> System {
    System { name, what: What::OutOfScope, why }
}

const TRAINED_SHARING: &str =
    "layers share KV by training; other weights are needed. How alike this model's layers are";
const LATENT: &str = "caches a trained latent; other weights are needed. How low the rank of this model's cache is";
const VISION: &str = "acts on image tokens; the models here read text";
const ARCHITECTURE: &str = "another architecture or a training study: there is no cache policy to run";
const OTHER_SAVINGS: &str = "saves activations, layers or sampling, not cache";

pub static SYSTEMS: &[System] = &[
    out("KVgrad", "its score is a gradient of the final residual stream; the engine has no backward pass"),
    out("SpecKV", "drafts with a second, smaller model; `laq` drafts with the model itself"),
    view("CLA", "attnscope analyze", TRAINED_SHARING),
    view("LCKV", "attnscope analyze", TRAINED_SHARING),
    view("CLLA", "attnscope analyze", TRAINED_SHARING),
    view("YOCO", "attnscope analyze", TRAINED_SHARING),
    view("MixAttention", "attnscope analyze", TRAINED_SHARING),
    view("Gemma 3n / 4 KV sharing", "attnscope analyze", TRAINED_SHARING),
    view("MLA", "attnscope analyze", LATENT),
    view("MHA2MLA", "attnscope analyze", LATENT),
    view("TransMLA", "attnscope analyze", LATENT),
    view("X-EcoMLA", "attnscope analyze", LATENT),
    view("MFA, MFA-KR", "attnscope analyze", LATENT),
    view("Effectively Compress KV Heads", "attnscope analyze", "merges kv heads and trains on: how alike heads are"),
    view("Cost-Optimal GQA", "attnscope analyze", "chooses kv heads before training: how alike heads are"),
    out("DeepSeek-V4 CSA and HCA", "compressed entries and their indexer are trained"),
    out("AnchorCoder", "anchor attention is trained"),
    out("SinkLoRA", "shifted attention for fine-tuning"),
    out("SCCA, SDA", "shifted cross-chunk attention for fine-tuning"),
    out("RestoreKV", "KVzip with learned tokens that stay in the cache; no weights are published for the models here"),
    out("DMS", "trains the model to evict; its rule without training, a threshold after a delay, is `kvzap:threshold`"),
    view(
        "LESS",
        "attnscope compare",
        "adds what evicted entries said to the attention's output through trained kernels, of which none are published: \
         what it would have to restore, the lost mass and the error of each layer's output",
    ),
    out("AirCache", VISION),
    out("Visual Attention Sink (VAR)", VISION),
    out("VHD, VHR", VISION),
    out("LVLM attention fix", VISION),
    out("MimIC", VISION),
    out(
        "SCBench",
        "a benchmark of many turns over one cache: `attnscope eval --question hidden` asks after the eviction",
    ),
    view("vAttention", "the memory panel", "a memory manager for serving: bytes held and allocated over time"),
    out("KV-Runahead", "reads one prompt on several machines at once"),
    view("AttnRes", "the growth view", "mixes residual streams over depth with trained weights: how the stream grows"),
    view("mHC", "the growth view", "widens the residual stream with trained weights: how the stream grows"),
    out("R-Sparse", OTHER_SAVINGS),
    out("Balcony", OTHER_SAVINGS),
    out("FlashSampling", OTHER_SAVINGS),
    out("Self-speculative and assisted decoding", OTHER_SAVINGS),
    view(
        "Massive Activations",
        "the growth view and findings",
        "detected with the paper's definition, channel and position named",
    ),
    view("Attention is naturally sparse", "the heads view", "entropy and effective support of every row"),
    view("Is Flash Attention Stable", "attnscope bench", "drift of the native numbers from the f32 reference"),
    out("ShiftViT", ARCHITECTURE),
    out("KV-Transformer", ARCHITECTURE),
    out("Transformer-VQ", ARCHITECTURE),
    out("RRWKV", ARCHITECTURE),
    out("ReGLA", ARCHITECTURE),
    out("Mamba-PTQ", ARCHITECTURE),
    out("Context Broadcasting", ARCHITECTURE),
    out("Monotonic attention", ARCHITECTURE),
    out("KArAt", ARCHITECTURE),
    out("Attention Transfer", ARCHITECTURE),
    out("KD-QAT", ARCHITECTURE),
    out("MobiLlama", ARCHITECTURE),
    out("DSMoE, FactorLLM", ARCHITECTURE),
    out("SAAP, eFedLLM", ARCHITECTURE),
    out("Order sensitivity and recurrent hallucination studies", ARCHITECTURE),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::registry::POLICIES;

    #[test]
    fn each_system_stands_once_and_no_policy_is_among_them() {
        for (i, system) in SYSTEMS.iter().enumerate() {
            assert!(SYSTEMS[..i].iter().all(|other| other.name != system.name), "{} twice", system.name);
            assert!(!system.why.is_empty());
            let plain = system.name.to_ascii_lowercase();
            assert!(POLICIES.iter().all(|policy| policy.name != plain), "{} runs", system.name);
        }
    }
}
