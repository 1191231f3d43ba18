//! Policies judged by tasks, on the default model.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use attnscope::model::{catalog, fetch};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::Value;

use super::{attnscope, code, json, on_tiny, run, said, stderr, stdout};

/// Whether the default model is on this machine; says so where it is not.
fn model_is_here() -> bool {
    let here = catalog::find(catalog::default_name()).is_some_and(|entry| fetch::present(entry).is_some());
    if !here {
        eprintln!("skipped: {} is not on this machine", catalog::default_name());
    }
    here
}

const SMALL: [&str; 13] = [
    "eval",
    "--threads",
    "2",
    "--tasks",
    "needle,instructions,nll",
    "--policies",
    "snapkv,knorm@100%",
    "--budgets",
    "25%,64",
    "--lengths",
    "200",
    "--continuation",
    "16",
];

fn small(more: &[&str]) -> Vec<String> {
    SMALL.iter().chain(&["--depths", "0,100"]).chain(more).map(|s| s.to_string()).collect()
}

fn eval(more: &[&str]) -> std::process::Output {
    run(&small(more).iter().map(String::as_str).collect::<Vec<_>>())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("a number, not {value}"))
}

#[test]
fn wrong_wishes_are_refused_before_anything_runs() {
    for (args, what) in [
        (vec!["--policies", "snapkw"], "did you mean `snapkv`?"),
        (vec!["--policies", "full"], "there is no policy to be judged"),
        (vec!["--budgets", "0%"], "a share such as 25%"),
        (vec!["--tasks", "quiz"], "needle"),
        (vec!["--depths", "101"], "101"),
        (vec!["--out", "/"], "is a folder"),
        (vec![], "no tokenizer"),
    ] {
        let output = on_tiny("eval", &args);
        assert_eq!(code(&output), 2, "{args:?}: {}", stderr(&output));
        assert!(said(&output).contains(what), "{args:?}: {}", said(&output));
    }
    if model_is_here() {
        for (args, what) in [
            (["--lengths", "16"], "needs a length of at least"),
            (["--lengths", "8190"], "the context has 8192"),
            (["--continuation", "100000"], "give a longer one with --text"),
        ] {
            let output = run(&[&["eval"][..], &args].concat());
            assert_eq!(code(&output), 2, "{args:?}: {}", stderr(&output));
            assert!(said(&output).contains(what), "{args:?}: {}", said(&output));
        }
    }
}

#[test]
fn prompts_are_as_long_and_hide_the_answer_as_deep_as_asked() {
    if !model_is_here() {
        return;
    }
    let args = ["eval", "--tasks", "passkey,needle,multikey", "--lengths", "300,700", "--seeds", "2", "--show-prompts"];
    let shown = stdout(&run(&args));
    assert_eq!(shown, stdout(&run(&args)), "the same prompts every time");
    let prompts: Vec<&str> = shown.split("=== ").skip(1).collect();
    assert_eq!(prompts.len(), 3 * 2 * 5 * 2);
    let mut answers = Vec::new();
    for prompt in prompts {
        let (head, body) = prompt.split_once("\n\n").expect("a heading");
        let depth = head.split("depth ").nth(1).and_then(|rest| rest.split(' ').next()).expect(head);
        let (context, asked) = body.rsplit_once("\n\nQuestion: ").expect("a question");
        let answer = asked.trim_end().rsplit_once("… ").expect("an answer").1;
        let places: Vec<usize> = context.match_indices(answer).map(|(at, _)| at).collect();
        assert_eq!(places.len(), if head.starts_with("needle") { 1 } else { 2 }, "{head}: {answer}");
        assert!(!asked.split('…').next().expect("a question").contains(answer));
        let text = context.split_once("\n\n").expect("an introduction").1;
        let place = text.find(answer).expect("the answer") as f64 / text.len() as f64;
        // A sentence can be some hundred characters long.
        let slack = 250.0 / text.len() as f64;
        assert!((place - depth.parse::<f64>().expect("a number") / 100.0).abs() < slack, "{head}: {place}");
        answers.push(answer.to_owned());
    }
    answers.sort();
    answers.dedup();
    assert!(answers.len() > 55, "answers differ from prompt to prompt");
}

#[test]
fn results_are_whole_and_the_full_cache_does_well() {
    if !model_is_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (parquet, svg) = (folder.path().join("all.parquet"), folder.path().join("all.svg"));
    let report = json(&eval(&["--json", "--parquet", text(&parquet), "--svg", text(&svg)]));
    assert_eq!((&report["schema"], &report["complete"]), (&1.into(), &true.into()));
    assert_eq!((&report["question"], &report["budgets"]), (&"hidden".into(), &serde_json::json!(["25%", "64"])));
    let rows = list(&report["rows"]);
    let specs = ["full", "snapkv@25%", "snapkv@64", "knorm@100%"];
    assert_eq!(rows.len(), 3 * specs.len());
    for (row, spec) in rows.iter().zip(specs.iter().cycle()) {
        assert_eq!(row["spec"], *spec);
        assert_eq!(row["nll"]["seeds"], 2);
        let held = if *spec == "full" || *spec == "knorm@100%" { 1.0 } else { number(&row["kept"]) };
        assert!((number(&row["kept"]) - held).abs() < 1e-6 && held > 0.2);
        if *spec == "snapkv@64" {
            assert!((held - 64.0 / 200.0).abs() < 0.01, "{held}");
        }
        if row["task"] == "nll" {
            assert!(row["accuracy"].is_null() && row["span_kept"].is_null());
        } else if *spec == "full" {
            assert!(number(&row["accuracy"]["mean"]) >= 0.8, "{row}");
            assert_eq!(row["span_kept"], 1.0);
        }
    }
    // What keeps everything is the full cache.
    for task in rows.chunks(specs.len()) {
        for key in ["accuracy", "nll", "span_kept", "grid", "asks"] {
            assert_eq!(task[0][key], task[3][key], "{key}");
        }
        assert!(number(&task[1]["nll"]["mean"]) > number(&task[0]["nll"]["mean"]), "eviction costs something");
    }
    let cells = list(&report["cells"]);
    assert_eq!(cells.len(), specs.len() * (2 * 2 + 2 + 2));
    for cell in cells {
        let tokens = cell["context_tokens"].as_u64().expect("a number");
        assert!((196..=200).contains(&tokens), "{tokens}");
    }
    assert!(std::fs::read_to_string(&svg).expect("the picture").contains("<polyline"));
    same_in_parquet(&parquet, cells);
}

fn same_in_parquet(path: &Path, cells: &[Value]) {
    let reader = SerializedFileReader::new(File::open(path).expect("the file")).expect("a Parquet file");
    let rows: Vec<BTreeMap<String, Field>> = reader
        .get_row_iter(None)
        .expect("rows")
        .map(|row| row.expect("a row").into_columns().into_iter().collect())
        .collect();
    let asked: Vec<(&Value, &Value)> =
        cells.iter().flat_map(|cell| list(&cell["asks"]).iter().map(move |ask| (cell, ask))).collect();
    assert_eq!(rows.len(), asked.len());
    for (row, (cell, ask)) in rows.iter().zip(asked) {
        for key in ["spec", "task", "kv_type", "model_sha256"] {
            assert_eq!(row[key], Field::Str(cell[key].as_str().expect(key).to_owned()), "{key}");
        }
        assert_eq!(row["seed"], Field::Long(cell["seed"].as_i64().expect("a number")));
        assert_eq!(row["depth"], cell["depth"].as_i64().map_or(Field::Null, Field::Long));
        assert_eq!(row["found"], ask["found"].as_bool().map_or(Field::Null, Field::Bool));
        assert_eq!(row["nll"], Field::Float(number(&ask["nll"]) as f32));
        assert_eq!(row["span_kept"], ask["span_kept"].as_f64().map_or(Field::Null, |v| Field::Float(v as f32)));
        assert_eq!(row["kept"], Field::Float(number(&cell["kept"]) as f32));
    }
}

#[test]
fn a_run_that_was_stopped_goes_on_and_ends_the_same() {
    if !model_is_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let whole = json(&eval(&["--json"]));
    let path = folder.path().join("results.jsonl");
    let out = ["--out", text(&path)];
    // Stopped as soon as the first results are there.
    let child = attnscope(&small(&out).iter().map(String::as_str).collect::<Vec<_>>())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let started = Instant::now();
    while std::fs::metadata(&path).map_or(0, |file| file.len()) == 0 {
        assert!(started.elapsed() < Duration::from_secs(120), "no result appeared");
        std::thread::sleep(Duration::from_millis(2));
    }
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().expect("kill").success());
    let output = child.wait_with_output().expect("the end");
    assert_eq!(code(&output), 130, "{}", stderr(&output));
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("not complete") && shown.contains("snapkv"), "{shown}");
    // The last result was being written when the power went.
    let results = std::fs::read(&path).expect("results");
    let done = results.iter().filter(|byte| **byte == b'\n').count();
    assert!(done < list(&whole["cells"]).len());
    std::fs::write(&path, &results[..results.len() - 10]).expect("a shorter file");
    assert_eq!(json(&eval(&[&out[..], &["--json"]].concat())), whole);
    // Everything is known now: nothing is run, nothing is written, and the tables are those of a run without a file.
    let lines = std::fs::read(&path).expect("results");
    assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), list(&whole["cells"]).len());
    assert_eq!(stdout(&eval(&out)), stdout(&eval(&[])));
    assert_eq!(std::fs::read(&path).expect("results"), lines);
    // Other settings are other results.
    let visible = json(&eval(&[&out[..], &["--question", "visible", "--seeds", "1", "--json"]].concat()));
    assert_eq!((&visible["question"], &visible["complete"]), (&"visible".into(), &true.into()));
    assert_eq!(list(&visible["cells"]).len(), 4 * (2 + 1 + 1));
    assert!(std::fs::read(&path).expect("results").len() > lines.len());
}

#[test]
fn tables_and_plots_show_every_policy_at_every_budget() {
    if !model_is_here() {
        return;
    }
    let text = stdout(&eval(&["--grid", "--seeds", "1"]));
    for word in
        ["question hidden", "25% found", "64 NLL", "own budget", "200 at 100 %", "snapkv@25%", "knorm@100%", "└───"]
    {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(text.contains("a snapkv") && text.contains("b knorm@100%") && !text.contains('\x1b'));
    assert!(!stdout(&eval(&["--no-plot", "--seeds", "1"])).contains("a snapkv"));
}
