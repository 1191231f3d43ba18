//! The built-in prompts of `sample-prompts/`, each with a header that says what to look at.

use serde::Deserialize;

use super::exit::Usage;

/// (name, file): the first is the one that is used where none is named.
const FILES: [(&str, &str); 9] = [
    ("needle", include_str!("../../sample-prompts/needle.md")),
    ("multikey", include_str!("../../sample-prompts/multikey.md")),
    ("induction", include_str!("../../sample-prompts/induction.md")),
    ("sink", include_str!("../../sample-prompts/sink.md")),
    ("instructions", include_str!("../../sample-prompts/instructions.md")),
    ("code", include_str!("../../sample-prompts/code.md")),
    ("essay", include_str!("../../sample-prompts/essay.md")),
    ("counting", include_str!("../../sample-prompts/counting.md")),
    ("story", include_str!("../../sample-prompts/story.md")),
];

pub const DEFAULT: &str = FILES[0].0;

/// A prompt with its header.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: &'static str,
    pub header: Header,
    pub text: &'static str,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    pub title: String,
    /// What there is to see.
    pub look: String,
    /// The part of the text that the answer depends on.
    pub needle: Option<String>,
    /// What a model that understood says next, or soon.
    pub answer: Option<String>,
}

/// The sample called `name`.
pub fn find(name: &str) -> Result<Sample, Usage> {
    let file = FILES.iter().find(|(known, _)| *known == name);
    file.and_then(|(name, file)| parse(name, file)).ok_or_else(|| {
        let list: Vec<String> = all().map(|s| format!("{:13} {}", s.name, s.header.title)).collect();
        Usage::new(format!("there is no sample prompt {name:?}"), format!("there are:\n{}", list.join("\n")))
    })
}

pub fn all() -> impl Iterator<Item = Sample> {
    FILES.iter().filter_map(|(name, file)| parse(name, file))
}

/// `+++`, TOML, `+++`, text; the text ends without the file's last newline.
fn parse(name: &'static str, file: &'static str) -> Option<Sample> {
    let (header, text) = file.strip_prefix("+++\n")?.split_once("\n+++\n")?;
    let header = toml::from_str(header).ok()?;
    Some(Sample { name, header, text: text.strip_suffix('\n').unwrap_or(text) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_a_header_and_its_needle() {
        assert_eq!(all().count(), FILES.len());
        for sample in all() {
            assert!(!sample.header.look.is_empty() && !sample.text.is_empty(), "{}", sample.name);
            if let Some(needle) = &sample.header.needle {
                assert_eq!(sample.text.matches(needle.as_str()).count(), 1, "{}", sample.name);
            }
            if let (Some(needle), Some(answer)) = (&sample.header.needle, &sample.header.answer) {
                assert!(needle.contains(answer.as_str()), "{}", sample.name);
            }
        }
    }

    #[test]
    fn an_unknown_name_is_told_the_list() {
        let error = find("nedle").unwrap_err();
        let help = miette::Diagnostic::help(&error).map(|h| h.to_string()).unwrap_or_default();
        assert!(FILES.iter().all(|(name, _)| help.contains(name)), "{help}");
        assert_eq!(find(DEFAULT).unwrap().name, DEFAULT);
    }
}
