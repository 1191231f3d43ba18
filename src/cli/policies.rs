//! `attnscope policies`: what can stand in a policy spec, from the registry.

use std::io::{self, ErrorKind, Write};

use comfy_table::{ContentArrangement, Table, presets};
use miette::{IntoDiagnostic, Result};
use serde_json::{Value, json};

use crate::policy::descriptor::Descriptor;
use crate::policy::registry::POLICIES;
use crate::policy::systems::{SYSTEMS, What};

const GRAMMAR: &str = "\
spec = part(+part)*, part = name[@budget][:key=value,...]; budget = N% (of the prompt, kept) or N (tokens)
e.g. snapkv@50%, streaming@256:sinks=8, h2o@12.5%:recent=25%; 100% keeps what is generated, too
budgets and wrappers act on the scorer behind them: adakv+criticalkv+snapkv@25%; scorers follow each other:
snapkv@50%+decoding:every=8+knorm@256; how what stays is stored comes last: kivi, snapkv@50%+kivi:bits=4
readers read a part of what is left, their budget is what they read: snapkv@50%+quest@256; layers that
share stand anywhere: tie:map=12=3/14=5+snapkv@50%";

/// Columns where the output is no terminal.
const PLAIN_WIDTH: u16 = 120;

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
        false => format!("{}\n\n{}\n\n{GRAMMAR}\n\nSystems that no lane runs:\n{}", policies(), keys(), systems()),
    };
    match writeln!(io::stdout().lock(), "{text}") {
        // the reader has seen enough (`| head`)
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done.into_diagnostic(),
    }
}

/// A row for each policy; its keys are in the table of keys.
fn policies() -> Table {
    let mut table = table(["policy", "family", "idea", "acts", "budget", "arXiv"]);
    for policy in POLICIES.iter() {
        table.add_row([
            policy.name.to_owned(),
            policy.family.label().to_owned(),
            policy.idea.to_owned(),
            policy.acts().to_owned(),
            default_budget(policy).unwrap_or_else(|| "-".into()),
            policy.paper.as_ref().map_or("-".into(), |p| p.arxiv.into()),
        ]);
    }
    table
}

/// A row for each key of each policy.
fn keys() -> Table {
    let mut table = table(["policy", "key", "default", "allowed", "meaning"]);
    for policy in POLICIES.iter() {
        for key in policy.keys {
            let name = [policy.name.to_owned(), key.name().to_owned()];
            table.add_row(name.into_iter().chain([key.default(), key.allowed(), key.meaning().to_owned()]));
        }
    }
    table
}

/// A row for each published system that is no policy of a lane.
fn systems() -> Table {
    let mut table = table(["system", "what runs instead", "why"]);
    for system in SYSTEMS {
        let what = match system.what {
            What::View(command) => command,
            What::OutOfScope => "out of scope",
        };
        table.add_row([system.name, what, system.why]);
    }
    table
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none() {
        table.set_width(PLAIN_WIDTH);
    }
    table.set_header(header);
    table
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
    let system = |system: &crate::policy::systems::System| {
        let (status, instead) = match system.what {
            What::View(command) => ("view", Some(command)),
            What::OutOfScope => ("out_of_scope", None),
        };
        json!({ "name": system.name, "status": status, "instead": instead, "why": system.why })
    };
    json!({
        "schema": 1,
        "policies": POLICIES.iter().map(policy).collect::<Vec<_>>(),
        "systems": SYSTEMS.iter().map(system).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_json_show_every_policy_and_key() {
        let rows = |mut table: Table| {
            table.set_width(400);
            table.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        let (policies, keys) = (rows(policies()), rows(keys()));
        let json = as_json();
        for (policy, row) in POLICIES.iter().zip(json["policies"].as_array().unwrap()) {
            assert_eq!(row["name"], policy.name);
            let line = format!("{} ┆ {} ┆ {} ┆ {}", policy.name, policy.family.label(), policy.idea, policy.acts());
            assert!(policies.iter().any(|row| row.contains(&line)), "{line}");
            assert_eq!(row["keys"].as_array().unwrap().len(), policy.keys.len());
            for key in policy.keys {
                let line = format!("{} ┆ {} ┆ {} ┆ {}", policy.name, key.name(), key.default(), key.allowed());
                assert!(keys.iter().any(|row| row.contains(&line)), "{line}");
            }
        }
        let snapkv = json["policies"].as_array().unwrap().iter().find(|row| row["name"] == "snapkv").unwrap();
        assert_eq!(snapkv["paper"]["url"], "https://arxiv.org/abs/2404.14469");
        assert_eq!(json["policies"][0]["budget"], Value::Null);
        assert_eq!(json["systems"].as_array().unwrap().len(), SYSTEMS.len());
        let systems = rows(systems());
        assert!(systems.iter().any(|row| row.contains("SpecKV ┆ out of scope ┆ drafts with a second")));
    }
}
