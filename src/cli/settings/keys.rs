//! The keys of `config.toml`: names, meanings, built-in values, and how a value is read.

use toml::Value;

use super::{DEFAULT_LANES, Settings};
use crate::cli::args::{bytes, physical_cores};
use crate::engine::REGRET_ABOVE;
use crate::policy::Policy;

/// What is wrong with a value otherwise.
type Read = Result<(), String>;

pub struct Key {
    pub name: &'static str,
    pub meaning: &'static str,
    /// The built-in value, as it stands in the file.
    pub default: fn() -> String,
    pub read: fn(&mut Settings, &Value) -> Read,
    /// What the file says, as it would stand there.
    pub shown: fn(&Settings) -> Option<String>,
}

/// In the order of the file.
pub const KEYS: [Key; 10] = [
    Key {
        name: "model",
        meaning: "catalog name (`attnscope models`), FILE.gguf, a Hugging Face folder, or hf:owner/name",
        default: || quoted(crate::model::catalog::default_name()),
        read: |settings, value| set(&mut settings.model, text(value)),
        shown: |settings| settings.model.as_deref().map(quoted),
    },
    Key {
        name: "device",
        meaning: "auto, cpu or cuda:N",
        default: || quoted("auto"),
        read: |settings, value| set(&mut settings.device, text(value).and_then(|text| text.parse())),
        shown: |settings| settings.device.map(|device| quoted(&device.to_string())),
    },
    Key {
        name: "threads",
        meaning: "the built-in value is the number of physical cores that a process may use",
        default: || physical_cores().to_string(),
        read: |settings, value| set(&mut settings.threads, threads(value)),
        shown: |settings| settings.threads.map(|threads| threads.to_string()),
    },
    Key {
        name: "kv",
        meaning: "number type of the KV cache: f32, f16 or bf16; with --precision f32 the built-in one is f32",
        default: || quoted("f16"),
        read: |settings, value| {
            set(&mut settings.kv, text(value).and_then(|text| text.parse().map_err(|_| "f32, f16 or bf16".into())))
        },
        shown: |settings| settings.kv.map(|kv| quoted(&kv.to_string())),
    },
    Key {
        name: "queries_budget",
        meaning: "memory for the kept queries, from which attention maps are computed again",
        default: || quoted("512MiB"),
        read: |settings, value| set(&mut settings.queries_budget, text(value).and_then(|text| bytes(&text))),
        shown: |settings| settings.queries_budget.map(|bytes| quoted(&bytes.to_string())),
    },
    Key {
        name: "lanes",
        meaning: "policies that `run` shows beside lane 0 (`attnscope policies`); [] = lane 0 alone",
        default: || list(&DEFAULT_LANES.map(str::to_owned)),
        read: |settings, value| set(&mut settings.lanes, lanes(value)),
        shown: |settings| settings.lanes.as_deref().map(list),
    },
    Key {
        name: "view",
        meaning: "the view that the screen begins with",
        default: || quoted("overview"),
        read: |settings, value| set(&mut settings.view, text(value)),
        shown: |settings| settings.view.as_deref().map(quoted),
    },
    Key {
        name: "mouse",
        meaning: "the screen reacts to the mouse",
        default: || "false".into(),
        read: |settings, value| set(&mut settings.mouse, value.as_bool().ok_or_else(|| "true or false".into())),
        shown: |settings| settings.mouse.map(|mouse| mouse.to_string()),
    },
    Key {
        name: "regret_above",
        meaning: "`run` and `compare` tell of evicted entries that lane 0 gives more than this probability later",
        default: || REGRET_ABOVE.to_string(),
        read: |settings, value| set(&mut settings.regret_above, probability(value)),
        shown: |settings| settings.regret_above.map(|mass| mass.to_string()),
    },
    Key {
        name: "logits",
        meaning: "rows of logits in `run` and `bench`: keep, drop where nothing needs them, or auto (drop where that saves time)",
        default: || quoted("auto"),
        read: |settings, value| set(&mut settings.logits, text(value).and_then(|text| text.parse())),
        shown: |settings| settings.logits.map(|rows| quoted(rows.name())),
    },
];

fn set<T>(field: &mut Option<T>, value: Result<T, String>) -> Read {
    *field = Some(value?);
    Ok(())
}

fn text(value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| "a text in quotation marks".into())
}

fn threads(value: &Value) -> Result<u16, String> {
    let number = value.as_integer().and_then(|n| u16::try_from(n).ok()).filter(|n| (1..=1024).contains(n));
    number.ok_or_else(|| "a number from 1 to 1024".into())
}

fn probability(value: &Value) -> Result<f32, String> {
    let number = value.as_float().or_else(|| value.as_integer().map(|n| n as f64));
    number.map(|n| n as f32).filter(|n| (0.0..=1.0).contains(n)).ok_or_else(|| "a number from 0 to 1".into())
}

fn lanes(value: &Value) -> Result<Vec<String>, String> {
    let wrong = || "a list of policies such as [\"snapkv@50%\"]".to_owned();
    let specs = value.as_array().ok_or_else(wrong)?;
    let specs: Vec<String> =
        specs.iter().map(|spec| spec.as_str().map(str::to_owned)).collect::<Option<_>>().ok_or_else(wrong)?;
    for spec in &specs {
        Policy::parse(spec).map_err(|error| error.to_string())?;
    }
    Ok(specs)
}

fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

fn list(specs: &[String]) -> String {
    format!("[{}]", specs.iter().map(|spec| quoted(spec)).collect::<Vec<_>>().join(", "))
}
