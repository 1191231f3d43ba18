//! `order` on the tiny model.

use serde_json::Value;

use super::{code, ids, json, on_tiny, said, stdout};

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

const SPANS: [&str; 6] = ["--span", "a=4..10", "--span", "b=10..22", "--span", "c=30..34"];

#[test]
fn every_order_is_another_prompt_of_the_same_tokens() {
    let prompt = ids(40);
    let args = [&["--ids", &prompt, "--steps", "3", "--shuffles", "6", "--seed", "4", "--json"], &SPANS[..]].concat();
    let report = json(&on_tiny("order", &args));
    let (parts, orders) = (list(&report["parts"]), list(&report["orders"]));
    assert_eq!((parts.len(), orders.len()), (3, 7));
    assert_eq!(orders[0]["order"], serde_json::json!([0, 1, 2]));
    assert_eq!((&parts[2]["name"], number(&parts[2]["from"])), (&Value::from("c"), 30.0));
    for order in orders {
        let masses: Vec<f64> = list(&order["mass"]).iter().map(number).collect();
        let all: f64 = masses.iter().sum::<f64>() + number(&order["sink"]) + number(&order["rest"]);
        assert!((all - 1.0).abs() < 1e-4 && masses.iter().all(|mass| *mass > 0.0), "{order}");
        let mut places: Vec<u64> = list(&order["order"]).iter().map(|p| p.as_u64().expect("a part")).collect();
        places.sort_unstable();
        assert_eq!(places, [0, 1, 2]);
        // The same order gives the same numbers, another one others.
        let own = order["order"] == orders[0]["order"];
        assert_eq!(own, order["mass"] == orders[0]["mass"]);
        assert!(!own || order["same_tokens"] == 3);
    }
    let mean = |part: usize| orders.iter().map(|order| number(&order["mass"][part])).sum::<f64>() / 7.0;
    assert!((mean(1) - number(&parts[1]["mass"])).abs() < 1e-6);
    let by_place: f64 = list(&report["places"]).iter().map(|place| number(&place["mass"])).sum();
    assert!((by_place - (0..3).map(mean).sum::<f64>()).abs() < 1e-5);
    assert!(orders.iter().any(|order| order["order"] != orders[0]["order"]));
}

#[test]
fn parts_that_cannot_be_shuffled_are_wrong_usage() {
    let prompt = ids(40);
    let table =
        stdout(&on_tiny("order", &[&["--ids", &prompt, "--steps", "2", "--shuffles", "2"], &SPANS[..]].concat()));
    assert!(table.contains("parts by place") && table.contains("read one after another"), "{table}");
    for (args, word) in [
        (&["--span", "a=4..10"][..], "nothing to shuffle"),
        (&["--span", "a=4..10", "--span", "b=9..12"], "overlap"),
        (&["--span", "a=4..10", "--span", "b=38..99"], "positions 0..40"),
        (&["--by", "lines"], "nothing to shuffle"),
        (&["--span", "a=4..10", "--by", "lines"], "cannot be used with"),
        (&["--span", "a=4..10", "--span", "b=11..12", "--answer", "x"], "no tokenizer"),
    ] {
        let output = on_tiny("order", &[&["--ids", &prompt], args].concat());
        assert!(code(&output) == 2 && said(&output).contains(word), "{args:?}: {}", said(&output));
    }
}
