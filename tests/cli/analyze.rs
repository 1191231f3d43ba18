//! `analyze`, and lanes whose layers share in `compare`, on the tiny model.

use serde_json::Value;

use super::{HEADS, KV_HEADS, LAYERS, code, ids, json, on_tiny, said, stdout};

const PROMPT: usize = 70;
const DIM: usize = 16;

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list")
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

#[test]
fn the_json_of_the_analysis_is_as_the_readme_says() {
    let prompt = ids(PROMPT);
    let report =
        json(&on_tiny("analyze", &["--ids", &prompt, "--json", "--pieces", "3", "--piece", "20", "--rows", "30"]));
    for key in ["model", "device", "precision", "kv_type", "windows", "heads", "kv_heads", "head_dim", "schema"] {
        assert!(!report[key].is_null(), "{key}");
    }
    let maps = &report["maps"];
    assert_eq!((report["prompt_tokens"].as_u64(), maps["rows"].as_u64()), (Some(PROMPT as u64), Some(30)));
    for table in ["heads", "heads_without_sink", "mean", "mean_without_sink"] {
        for a in 0..LAYERS {
            assert_eq!(number(&maps[table][a][a]), 1.0);
            for b in 0..LAYERS {
                assert_eq!(maps[table][a][b], maps[table][b][a]);
                assert!((0.0..1.00001).contains(&number(&maps[table][a][b])), "{table}");
            }
        }
    }
    let spans: Vec<u64> =
        list(&maps["spans"]).iter().map(|s| s["last"].as_u64().unwrap() - s["first"].as_u64().unwrap()).collect();
    assert_eq!(spans, [1, 2, 3]);
    let caches = &report["caches"];
    assert_eq!((caches["pieces"].as_u64(), caches["of_prompt"].as_bool()), (Some(3), Some(true)));
    let order = |name: &str| list(&caches[name]).iter().map(|p| number(&p["distance"])).collect::<Vec<_>>();
    let (down, mut up) = (order("dissimilar_first"), order("similar_first"));
    assert!(down.len() == LAYERS * (LAYERS - 1) / 2 && down.windows(2).all(|w| w[0] >= w[1]));
    up.reverse();
    assert_eq!(down, up);
    assert_eq!((report["tokens"].as_u64(), list(&report["layers"]).len()), (Some(PROMPT as u64 - 1), LAYERS));
    for layer in list(&report["layers"]) {
        let rank = &layer["rank"];
        for (name, width) in [("keys", 1), ("keys_before_rope", 1), ("values", 1), ("both", 2)] {
            let width = width * KV_HEADS * DIM;
            let spectrum = &rank[name];
            let singular: Vec<f64> = list(&spectrum["singular"]).iter().map(number).collect();
            assert!(singular.len() == width && singular.windows(2).all(|w| w[0] >= w[1]), "{name}");
            assert!((1.0..=width as f64 + 1e-3).contains(&number(&spectrum["effective_rank"])));
            assert!(list(&spectrum["ranks"]).windows(2).all(|w| number(&w[0]) <= number(&w[1])));
        }
        assert_eq!(list(&rank["keys_of_head"]).len(), KV_HEADS);
        // f16: 2 · G · D cells of 2 bytes
        let bytes = &layer["bytes_per_token"];
        assert_eq!(bytes["gqa"].as_u64(), Some((2 * KV_HEADS * DIM * 2) as u64));
        assert_eq!(number(&bytes["mla"][1]), 2.0 * (number(&rank["both"]["ranks"][1]) + DIM as f64 / 2.0));
        assert_eq!(number(&bytes["mfa_kr"][2]) * 2.0, number(&bytes["mfa"][2]));
        assert_eq!(list(&layer["alike"]["maps_in_group"]).len(), KV_HEADS);
        assert!((-1.0..=1.0).contains(&number(&layer["residual_cosine"])) && HEADS > KV_HEADS);
        assert!((0.0..=1.0).contains(&number(&layer["alike"]["keys_cka"][0][1])));
    }
}

#[test]
fn the_table_has_pictures_and_names_its_scales() {
    let text = stdout(&on_tiny("analyze", &["--ids", &ids(40)]));
    for word in ["· ░ ▒ ▓ █", "linear", "without position 0", "KVSharer", "MLA B", "cannot show a rank above 39"]
    {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(!text.contains('\x1b'));
    assert_eq!(code(&on_tiny("analyze", &["--ids", "1"])), 0);
    assert_eq!(code(&on_tiny("analyze", &["--ids", "1", "--rows", "0"])), 2);
}

fn compare(lanes: &[&str]) -> Value {
    let prompt = ids(60);
    let mut args = vec!["--ids", &prompt, "--steps", "3", "--json"];
    lanes.iter().for_each(|lane| args.extend(["--lane", lane]));
    json(&on_tiny("compare", &args))
}

#[test]
fn lanes_that_share_say_how_and_hold_less() {
    let report = compare(&[
        "tie:map=3>1",
        "sharedattention:span=1-2",
        "kvsharer:layers=2,pieces=2,length=16,threshold=0",
        "echoatt:layers=1,skip=1",
    ]);
    let lanes = list(&report["lanes"]);
    let full = lanes[0]["kv_bytes"].as_u64().expect("bytes");
    let layer = full / LAYERS as u64;
    assert!(lanes[0]["sharing"].is_null());
    let bytes: Vec<u64> = lanes.iter().map(|lane| lane["kv_bytes"].as_u64().expect("bytes")).collect();
    assert_eq!(bytes[1..3], [full - layer, full - layer / 2]);
    assert_eq!(bytes[4], full - layer / 2);
    assert_eq!(lanes[1]["sharing"]["wiring"][0]["keys_of"].as_u64(), Some(1));
    assert_eq!(lanes[2]["sharing"]["wiring"][0]["queries_of"].as_u64(), Some(1));
    let tried = list(&lanes[3]["sharing"]["tried"]);
    let kept = tried.iter().filter(|t| t["kept"] == true).count();
    assert_eq!(bytes[3], full - kept as u64 * layer);
    assert!(tried.iter().all(|t| (number(&t["cosine"]) > 0.0) == (t["kept"] == true) && t["distance"].is_number()));
    assert_eq!(lanes[3]["sharing"]["pieces"].as_u64(), Some(2));
    assert!(lanes[4]["sharing"]["tried"][0]["similarity"].is_number());
    for lane in &lanes[1..] {
        assert_eq!(lane["kept"], lanes[0]["kept"], "every entry is there for the layers that read it");
        let errors: Vec<f64> = list(&lane["damage"]["out_rel_err"]).iter().map(number).collect();
        let wired: Vec<u64> =
            list(&lane["sharing"]["wiring"]).iter().map(|w| w["layer"].as_u64().expect("a layer")).collect();
        assert!((0..).zip(&errors).all(|(l, error)| (*error > 1e-3) == wired.contains(&l)), "{errors:?} {wired:?}");
    }
}

#[test]
fn a_tie_that_cannot_be_is_wrong_input() {
    for (spec, word) in [
        ("tie:map=9>1", "0 to 3"),
        ("tie:map=1>2", "later"),
        ("tie:map=1-2", "12>3/14>5"),
        ("tie+kvsharer", "both `tie` and `kvsharer`"),
    ] {
        let output = on_tiny("compare", &["--ids", &ids(20), "--steps", "1", "--lane", spec]);
        assert!(code(&output) == 2 && said(&output).contains(word), "{spec}: {}", said(&output));
    }
}
