//! Models on this machine and the ways to get more.

use std::env::var_os;
use std::process::{Command, Stdio};

use indicatif::HumanBytes;

use super::Section;
use crate::model::{catalog, fetch};

/// Read for their values, which say nothing secret but a password in a proxy's address.
const SHOWN: [&str; 7] =
    ["ATTNSCOPE_HOME", "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"];

pub fn look() -> Section {
    let mut section = Section::new("models");
    match fetch::home() {
        Ok(home) => section.fact("folder", home.display().to_string()),
        Err(error) => section.warn("folder", error.to_string()),
    }
    for entry in catalog::entries() {
        let found = match fetch::present(entry) {
            Some(path) => path.display().to_string(),
            None => format!("not here ({}; attnscope pull {})", HumanBytes(entry.size), entry.name),
        };
        section.fact(entry.name.as_str(), found);
    }
    section
}

pub fn network() -> Section {
    let mut section = Section::new("network");
    match pip() {
        Some(version) => section.fact("pip", version),
        None => section.warn("pip", "not found: catalog models come from the Hugging Face hub alone"),
    }
    for name in SHOWN {
        if let Some(value) = var_os(name) {
            section.fact(name, without_password(&value.to_string_lossy()));
        }
    }
    section.fact("HF_TOKEN", if var_os("HF_TOKEN").is_some() { "set" } else { "not set" });
    section
}

fn pip() -> Option<String> {
    let ask = |program: &str| {
        let out = Command::new(program).args(["-m", "pip", "--version"]).stdin(Stdio::null()).output().ok()?;
        let words = String::from_utf8_lossy(&out.stdout).split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        (out.status.success() && !words.is_empty()).then(|| format!("{words} ({program})"))
    };
    ["python3", "python"].into_iter().find_map(ask)
}

/// `http://user:secret@host` without what stands before the `@`.
fn without_password(address: &str) -> String {
    match (address.split_once("://"), address.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        (None, Some((_, host))) => format!("…@{host}"),
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(without_password("http://me:secret@proxy:3128"), "http://…@proxy:3128");
        assert_eq!(without_password("me:secret@proxy"), "…@proxy");
        assert_eq!(without_password("http://proxy:3128"), "http://proxy:3128");
    }
}
