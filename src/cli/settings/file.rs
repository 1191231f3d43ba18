//! `config.toml` as text: reading it, and the one that `config --init` writes.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use super::{KEYS, Settings, SettingsError, VARIABLE, path};

/// Larger files are no configuration.
const LONGEST: u64 = 1 << 20;

impl Settings {
    /// What the configuration file says. No file is fine, but for one that the environment names.
    pub fn load() -> Result<Self, SettingsError> {
        let Some(path) = path() else { return Ok(Self::default()) };
        let wrong =
            |what: String, help: &str| SettingsError { file: path.display().to_string(), what, help: help.to_owned() };
        match std::fs::metadata(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound && std::env::var_os(VARIABLE).is_none() => {
                return Ok(Self::default());
            }
            Err(e) => {
                return Err(wrong(
                    e.to_string(),
                    "write the file with `attnscope config --init`, or unset ATTNSCOPE_CONFIG",
                ));
            }
            Ok(metadata) if metadata.len() > LONGEST => {
                return Err(wrong("the file is too large".into(), "a configuration is a few lines of TOML"));
            }
            Ok(_) => {}
        }
        let text = std::fs::read_to_string(&path).map_err(|e| wrong(e.to_string(), "give a UTF-8 text file"))?;
        Self::parse(&text).map_err(|(what, help)| wrong(what, &help))
    }

    /// What is wrong and what to do otherwise.
    pub fn parse(text: &str) -> Result<Self, (String, String)> {
        let table: toml::Table = toml::from_str(text).map_err(|e| {
            let line = e.span().map(|s| text.get(..s.start).map_or(0, |t| t.matches('\n').count()) + 1);
            let place = line.map_or(String::new(), |line| format!("line {line}: "));
            (format!("{place}{}", e.message()), "the file is TOML: lines such as view = \"policies\"".to_owned())
        })?;
        let mut settings = Self::default();
        for (name, value) in &table {
            let Some(key) = KEYS.iter().find(|key| key.name == name) else {
                let nearest = KEYS.iter().map(|key| (strsim::damerau_levenshtein(key.name, name), key.name)).min();
                let close = nearest.filter(|(distance, near)| *distance <= near.len() / 2);
                let hint = close.map_or(String::new(), |(_, near)| format!("; did you mean {near}?"));
                let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
                return Err((
                    format!("there is no setting {name:?}{hint}"),
                    format!("there are: {}", names.join(", ")),
                ));
            };
            (key.read)(&mut settings, value)
                .map_err(|wanted| (format!("{name} = {value}: {wanted}"), format!("{name}: {}", key.meaning)))?;
        }
        Ok(settings)
    }
}

/// The file with every key at its built-in value, commented out.
pub fn template() -> String {
    let mut out = String::from(
        "# attnscope: what stands here replaces the built-in values; options on the command line replace both.\n\
         # Take the # away before a name to set it.\n",
    );
    for key in &KEYS {
        // Writing to a String cannot fail.
        let _ = write!(out, "\n# {}\n#{} = {}\n", key.meaning, key.name, (key.default)());
    }
    out
}

/// Writes [`template`] to a file that must not exist yet, and the folders to it.
pub fn init(path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(template().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_sets_nothing_and_every_default_in_it_is_valid() {
        let text = template();
        assert_eq!(Settings::parse(&text), Ok(Settings::default()));
        let active: String = text
            .lines()
            .filter_map(|l| l.strip_prefix('#'))
            .filter(|l| !l.starts_with(' '))
            .fold(String::new(), |all, line| all + line + "\n");
        let settings = Settings::parse(&active).unwrap();
        for key in &KEYS {
            let shown = (key.shown)(&settings).expect(key.name);
            let expected = if key.name == "queries_budget" { "\"536870912\"".into() } else { (key.default)() };
            assert_eq!(shown, expected, "{}", key.name);
        }
    }

    #[test]
    fn mistakes_name_the_key_and_what_would_do() {
        for (text, what, help) in [
            ("modle = \"x\"", "did you mean model?", "queries_budget"),
            ("colour = 1", "no setting \"colour\"", "mouse"),
            ("threads = 0", "from 1 to 1024", "threads"),
            ("mouse = \"yes\"", "true or false", "mouse"),
            ("regret_above = 20", "from 0 to 1", "regret_above"),
            ("lanes = [\"snapkw@50%\"]", "snapkw", "lane 0"),
            ("lanes = \"full\"", "a list", "lane 0"),
            ("device = \"gpu\"", "cuda:N", "device"),
            ("logits = \"no\"", "keep or drop", "logits"),
            ("\n\nview = ", "line 3", "TOML"),
        ] {
            let error = Settings::parse(text).unwrap_err();
            assert!(error.0.contains(what) && error.1.contains(help), "{text}: {error:?}");
        }
    }
}
