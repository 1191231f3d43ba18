//! `attnscope policies`: what can stand in a policy spec, from the registry.

use std::io::{self, ErrorKind, Write};

use comfy_table::{Cell, ContentArrangement, Table, presets};
use miette::{IntoDiagnostic, Result};
use serde_json::{Value, json};

use crate::policy::descriptor::Descriptor;
use crate::policy::registry::POLICIES;

const GRAMMAR: &str = "\
spec = part(+part)*, part = name[@budget][:key=value,...]; budget = N% (of the prompt, kept) or N (tokens)
e.g. snapkv@50%, streaming@256:sinks=8, h2o@12.5%:recent=25%; 100% keeps what is generated, too";

/// List the KV-cache policies with their keys, defaults and papers.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: Args) -> Result<()> {
    let text = match args.json {
        true => serde_json::to_string_pretty(&as_json()).into_diagnostic()?,
        false => format!("{}\n\n{GRAMMAR}", as_table()),
    };
    match writeln!(io::stdout().lock(), "{text}") {
        // the reader has seen enough (`| head`)
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done.into_diagnostic(),
    }
}

fn as_table() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic).set_header([
        "policy",
        "family",
        "idea",
        "acts",
        "keys (default): meaning",
        "budget",
        "paper",
    ]);
    for policy in POLICIES {
        table.add_row([
            Cell::new(policy.name),
            Cell::new(policy.family.label()),
            Cell::new(policy.idea),
            Cell::new(policy.acts()),
            Cell::new(keys(policy)),
            Cell::new(default_budget(policy).unwrap_or_else(|| "-".into())),
            Cell::new(policy.paper.as_ref().map_or("-".into(), |p| format!("{} (arXiv {})", p.title, p.arxiv))),
        ]);
    }
    table
}

/// One key a line.
fn keys(policy: &Descriptor) -> String {
    let line = |key: &&dyn crate::policy::key::AnyKey| {
        format!("{} ({}): {} [{}]", key.name(), key.default(), key.meaning(), key.allowed())
    };
    policy.keys.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn default_budget(policy: &Descriptor) -> Option<String> {
    policy.budget.map(|budget| budget.to_string())
}

fn as_json() -> Value {
    let policy = |policy: &&'static Descriptor| {
        let keys = policy.keys.iter().map(|key| {
            json!({
                "name": key.name(),
                "default": key.default(),
                "allowed": key.allowed(),
                "meaning": key.meaning(),
            })
        });
        json!({
            "name": policy.name,
            "family": policy.family.label(),
            "family_letter": policy.family.letter().to_string(),
            "idea": policy.idea,
            "acts": policy.acts(),
            "budget": default_budget(policy),
            "keys": keys.collect::<Vec<_>>(),
            "paper": policy.paper.as_ref().map(|p| json!({
                "title": p.title,
                "arxiv": p.arxiv,
                "url": format!("https://arxiv.org/abs/{}", p.arxiv),
            })),
        })
    };
    json!({ "schema": 1, "policies": POLICIES.iter().map(policy).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_and_json_show_every_policy_and_key() {
        let table = as_table().to_string();
        let json = as_json();
        for (policy, row) in POLICIES.iter().zip(json["policies"].as_array().unwrap()) {
            assert_eq!(row["name"], policy.name);
            assert!(table.contains(policy.name) && table.contains(policy.acts()));
            assert_eq!(row["keys"].as_array().unwrap().len(), policy.keys.len());
            for key in policy.keys {
                assert!(table.contains(&format!("{} ({}): ", key.name(), key.default())));
            }
        }
        assert_eq!(json["policies"][5]["paper"]["url"], "https://arxiv.org/abs/2404.14469");
        assert_eq!(json["policies"][0]["budget"], Value::Null);
    }
}
