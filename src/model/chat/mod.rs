//! Chat templates: Jinja as transformers renders it (trimmed blocks, Python's string methods, `raise_exception`,
//! `strftime_now`), bounded in steps because templates come with models from anywhere.

mod strftime;

use std::path::Path;
use std::time::SystemTime;

use miette::Diagnostic;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, context};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::error::{ModelError, Quoted};
use super::gguf::{GgufError, Metadata};
use super::json;
use super::tokenizer::Tokenizer;

/// Instructions that one rendering may take: published templates need a few hundred per message.
const FUEL: u64 = 1_000_000;
const RECURSION: usize = 64;
/// Published templates with tools and reasoning stay below 20 KB.
const LONGEST_TEMPLATE: usize = 256 << 10;

/// Why a conversation could not be written as a prompt.
#[derive(Debug, Error, Diagnostic)]
pub enum ChatError {
    #[error("the chat template refuses this conversation: {0}")]
    Refused(Quoted),
    #[error("the chat template cannot be used: {0}")]
    #[diagnostic(help("leave out --chat to give the prompt as it is"))]
    Template(Quoted),
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    pub content: String,
}

/// A model's template with the texts of its special tokens. Parsed when used, so that a broken one only stops chats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatTemplate {
    source: String,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    pub fn new(source: impl Into<String>, bos: impl Into<String>, eos: impl Into<String>) -> ChatTemplate {
        ChatTemplate { source: source.into(), bos: bos.into(), eos: eos.into() }
    }

    /// `tokenizer.chat_template` and the tokens that the header names; `None` where there is no template.
    pub fn from_gguf(metadata: &Metadata, tokenizer: Option<&Tokenizer>) -> Result<Option<ChatTemplate>, GgufError> {
        let Some(source) = metadata.text("tokenizer.chat_template")? else { return Ok(None) };
        let token = |key| {
            let id = metadata.unsigned(key)?.and_then(|id| u32::try_from(id).ok());
            Ok(id.zip(tokenizer).map_or("", |(id, tokenizer)| tokenizer.piece(id)))
        };
        let (bos, eos) = (token("tokenizer.ggml.bos_token_id")?, token("tokenizer.ggml.eos_token_id")?);
        Ok(Some(ChatTemplate::new(source, bos, eos)))
    }

    /// `chat_template.jinja`, or `chat_template` in `tokenizer_config.json`: one text, or several with names.
    pub fn from_folder(folder: &Path) -> Result<Option<ChatTemplate>, ModelError> {
        let path = folder.join("tokenizer_config.json");
        let config = if path.exists() { json::read(&path)? } else { Value::Null };
        let separate = folder.join("chat_template.jinja");
        let source = if separate.exists() {
            Some(String::from_utf8_lossy(&json::read_bytes(&separate)?).into_owned())
        } else {
            template_text(&config["chat_template"])
        };
        let token = |key: &str| config[key].as_str().or(config[key]["content"].as_str()).unwrap_or_default();
        Ok(source.map(|source| ChatTemplate::new(source, token("bos_token"), token("eos_token"))))
    }

    /// The conversation as one text, special tokens written out. With `add_generation_prompt` it ends where the
    /// assistant begins to speak. Encode it with `Tokenizer::encode(text, true)`: the template writes the BOS itself.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, ChatError> {
        self.render_at(messages, add_generation_prompt, SystemTime::now())
    }

    fn render_at(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        now: SystemTime,
    ) -> Result<String, ChatError> {
        if self.source.len() > LONGEST_TEMPLATE {
            return Err(ChatError::Template(Quoted::new("it is longer than any published one")));
        }
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::from(Raised(message)))
        });
        environment.add_function("strftime_now", move |format: String| strftime::utc(&format, now));
        let context = context! {
            messages,
            add_generation_prompt,
            bos_token => self.bos,
            eos_token => self.eos,
        };
        environment.render_str(&self.source, context).map_err(|error| explain(&error))
    }
}

/// An error that the template itself raised, told apart from mistakes in it.
#[derive(Debug, Error)]
#[error("{0}")]
struct Raised(String);

impl From<Raised> for minijinja::Error {
    fn from(raised: Raised) -> minijinja::Error {
        minijinja::Error::new(ErrorKind::InvalidOperation, "raised by the template").with_source(raised)
    }
}

fn explain(error: &minijinja::Error) -> ChatError {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(current) = cause {
        if let Some(Raised(message)) = current.downcast_ref() {
            return ChatError::Refused(Quoted::new(message));
        }
        cause = current.source();
    }
    ChatError::Template(Quoted::new(&error.to_string()))
}

fn template_text(value: &Value) -> Option<String> {
    let named = |list: &Vec<Value>| {
        let default = list.iter().find(|one| one["name"] == "default").or(list.first());
        default.and_then(|one| one["template"].as_str()).map(str::to_owned)
    };
    value.as_str().map(str::to_owned).or_else(|| value.as_array().and_then(named))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn turn(role: &str, content: &str) -> Message {
        Message { role: role.into(), content: content.into() }
    }

    #[test]
    fn chatml_as_smollm2_writes_it() {
        let source = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
            {{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}{% endif %}\
            {{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
            {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
        let template = ChatTemplate::new(source, "<|im_start|>", "<|im_end|>");
        let talk = [turn("user", "Hi <b>"), turn("assistant", "Hello"), turn("user", "Bye")];
        assert_eq!(
            template.render(&talk, true).unwrap(),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi <b><|im_end|>\n\
             <|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
        );
        assert!(template.render(&talk, false).unwrap().ends_with("Bye<|im_end|>\n"));
    }

    #[test]
    fn gemma_style_blocks_methods_and_refusals() {
        let source = "{{ bos_token }}\n{%- if messages[0]['role'] == 'system' -%}\n    {{ raise_exception('No system role') }}\n\
            {%- endif -%}\n{% for message in messages %}\n    {%- if message['role'] == 'assistant' -%}\n\
            {%- set role = 'model' -%}\n    {%- else -%}\n        {%- set role = message['role'] -%}\n    {%- endif -%}\n\
            {{ '<start_of_turn>' + role + '\n' + message['content'].strip() + '<end_of_turn>\n' }}{% endfor %}\n";
        let template = ChatTemplate::new(source, "<bos>", "<eos>");
        let written = template.render(&[turn("user", " Hi "), turn("assistant", "Yes")], false).unwrap();
        assert_eq!(written, "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nYes<end_of_turn>\n");
        let refused = template.render(&[turn("system", "x")], false).unwrap_err();
        assert!(matches!(&refused, ChatError::Refused(m) if m.to_string().contains("No system role")), "{refused}");
    }

    #[test]
    fn the_date_is_the_given_one() {
        let template = ChatTemplate::new("{{ strftime_now('%d %b %Y') }}", "", "");
        let at = UNIX_EPOCH + Duration::from_secs(1_722_004_205);
        assert_eq!(template.render_at(&[], false, at).unwrap(), "26 Jul 2024");
    }

    #[test]
    fn hostile_templates_end_in_an_error() {
        let deep = format!("{}1{}", "(".repeat(10_000), ")".repeat(10_000));
        for source in [
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}".to_owned(),
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".to_owned(),
            "{{ messages[".to_owned(),
            "{{ 'x' * 99999999999 }}".to_owned(),
            format!("{{{{ {deep} }}}}"),
            " ".repeat(LONGEST_TEMPLATE + 1),
        ] {
            let result = ChatTemplate::new(&*source, "", "").render(&[turn("user", "x")], true);
            assert!(result.is_err(), "{:.60} rendered", source);
        }
    }

    #[test]
    fn templates_of_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(ChatTemplate::from_folder(folder.path()).unwrap(), None);
        let config = r#"{"bos_token": {"content": "<s>"}, "eos_token": "</s>",
            "chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]}"#;
        std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
        assert_eq!(ChatTemplate::from_folder(folder.path()).unwrap(), Some(ChatTemplate::new("D", "<s>", "</s>")));
        std::fs::write(folder.path().join("chat_template.jinja"), "J").unwrap();
        assert_eq!(ChatTemplate::from_folder(folder.path()).unwrap(), Some(ChatTemplate::new("J", "<s>", "</s>")));
    }
}
