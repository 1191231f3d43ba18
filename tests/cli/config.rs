//! The configuration file: where it is, what it may say, and who wins.

use std::process::Output;

use super::{attnscope, code, ids, json, said, stdout, tiny};

fn with(file: &std::path::Path, args: &[&str]) -> Output {
    attnscope(args).env("ATTNSCOPE_CONFIG", file).output().expect("the program starts")
}

#[test]
fn the_command_line_wins_over_the_file_and_the_file_over_the_defaults() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("deep/config.toml");
    let model = tiny();
    assert!(stdout(&with(&file, &["config", "--init"])).contains("config.toml"));
    let settings = json(&with(&file, &["config", "--json"]));
    assert!(settings["settings"].as_array().expect("a list").iter().all(|s| s["source"] == "built-in"));
    let again = with(&file, &["config", "--init"]);
    assert!(code(&again) == 2 && said(&again).contains("exists already"));
    let text = format!("model = {model:?}\nthreads = 1\nlanes = [\"knorm@25%\"]\nkv = \"f32\"\nview = \"memory\"\n");
    std::fs::write(&file, text).expect("a file");
    let settings = json(&with(&file, &["config", "--json"]));
    let threads = settings["settings"].as_array().expect("a list").iter().find(|s| s["name"] == "threads");
    assert_eq!(threads.map(|s| (s["value"].clone(), s["source"].clone())), Some(("1".into(), "file".into())));
    let prompt = ids(8);
    let summary = stdout(&with(&file, &["run", "--ids", &prompt, "--steps", "1"]));
    for word in ["llama3_rope", "1 thread,", "KV f32", "knorm@25%"] {
        assert!(summary.contains(word), "{word}: {summary}");
    }
    let over = ["run", "--ids", &prompt, "--steps", "1", "--threads", "2", "--lane", "full", "--kv", "f16"];
    let summary = stdout(&with(&file, &over));
    assert!(summary.contains("2 threads") && summary.contains("KV f16") && !summary.contains("lane 1"), "{summary}");
    std::fs::write(&file, format!("model = {model:?}\nregret_above = 0.0\nview = \"memory\"\n")).expect("a file");
    let regrets = |more: &[&str]| {
        let prompt = ids(40);
        let all = [&["run", "--ids", &prompt, "--steps", "4", "--lane", "window@8"], more].concat();
        stdout(&with(&file, &all)).matches("has lost position").count()
    };
    assert!(regrets(&[]) > 0 && regrets(&["--regret-above", "1"]) == 0);
    let screen = ["run", "--ids", &prompt, "--keys", "<size:120x30><wait:ready><wait:idle>"];
    assert!(stdout(&with(&file, &screen)).contains("KV caches"), "the view of the file");
}

#[test]
fn mistakes_are_told_by_the_commands_that_read_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("config.toml");
    let absent = with(&file, &["run", "--ids", "1"]);
    assert!(code(&absent) == 2 && said(&absent).contains("config --init"), "{}", said(&absent));
    std::fs::write(&file, "modle = \"x\"").expect("a file");
    for command in [&["run", "--ids", "1"][..], &["config"], &["compare", "--lane", "knorm@50%"]] {
        let output = with(&file, command);
        assert!(code(&output) == 2 && said(&output).contains("did you mean model?"), "{}", said(&output));
    }
    assert_eq!(code(&with(&file, &["policies"])), 0);
}
