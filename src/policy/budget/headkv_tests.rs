//! The notes' numbers, files, and a whole lane.

use super::*;
use crate::policy::Policy;
use crate::policy::part::Moment;
use crate::policy::testing::{Lane, moment, random_layer, sizes};

fn written(name: &str, text: &str) -> String {
    let path = std::env::temp_dir().join(format!("attnscope-headkv-{}-{name}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Capacity 128 with a window of 32, β = 1.2: a pool of 320 and a floor of 16 beside the window.
#[test]
fn the_numbers_of_the_notes() {
    let source = Source::File(PathBuf::new(), Vec::new());
    let weights = HeadKv { beta: 1.2, source }.weights(&[0.5, 0.3, 0.15, 0.05]);
    let scores = vec![Some(Scores::free(vec![vec![0.0; 1000]; 2]).keep_newest(32)); 2];
    let mut budgets = vec![vec![128; 2]; 2];
    divide_heads(&weights, 32, &scores, &mut budgets);
    assert_eq!(budgets, [[176 + 32, 112 + 32], [64 + 32, 32 + 32]]);
}

#[test]
fn json_gives_every_head_one_score() {
    assert_eq!(
        of_json(br#"{"0-1": [1, 2], "0-0": 0.5, "1-0": [], "1-1": 3}"#),
        Ok(vec![vec![0.5, 1.5], vec![0.0, 3.0]])
    );
    for bad in ["", "[]", "{}", r#"{"0": 1}"#, r#"{"0-1": 1}"#, r#"{"0-0": 1, "1-0": 1, "1-1": 1}"#, r#"{"0-0": "x"}"#]
    {
        assert!(of_json(bad.as_bytes()).is_err(), "{bad}");
    }
    let huge = format!(r#"{{"0-0": 1, "{0}-{0}": 1}}"#, usize::MAX);
    assert!(of_json(huge.as_bytes()).is_err());
}

/// Two layers with two kv heads of two query heads each.
#[test]
fn a_file_divides_the_whole_model() {
    let text = r#"{"0-0": 4, "0-1": 0, "0-2": 0, "0-3": 0, "1-0": 1, "1-1": 1, "1-2": 0, "1-3": 0}"#;
    let file = written("four.json", text);
    let policy = Policy::parse(&format!("headkv:beta=2,file={file}+knorm@10:every=step")).unwrap();
    assert!(policy.fits(sizes(2, 2, 4)).is_ok());
    assert!(policy.fits(sizes(2, 3, 4)).unwrap_err().contains("2 layers with 4 heads"));
    let layers: Vec<_> = (0..2).map(|seed| random_layer(seed, (2, 2), 4, 60)).collect();
    let decisions = policy.decide(0, Moment { layers: 2, ..moment(60, 0) }, &Lane(&layers));
    let budgets: Vec<_> = decisions.iter().flatten().map(|decision| decision.budget.clone()).collect();
    // importances 2 0 | 1 0 of 3, a pool of 20 and a floor of 5: 18.33 5 | 11.67 5
    assert_eq!(budgets, [[18, 5], [12, 5]]);
    std::fs::remove_file(file).unwrap();
}

#[test]
fn what_cannot_be_used_is_refused() {
    let why = |spec: String| Policy::parse(&spec).unwrap_err().to_string();
    let file = written("minus.json", r#"{"0-0": -1}"#);
    assert!(why(format!("headkv:file={file}+knorm@5")).contains("below 0"));
    assert!(why("headkv:file=/no/such+knorm@5".into()).contains("cannot use `/no/such`"));
    // calibration needs to read on, which a step cannot
    assert!(why("headkv+h2o@5".into()).contains("cannot act after a step"));
    assert!(why("decoding+headkv+knorm@5".into()).contains("cannot be scored after a step"));
    assert!(Policy::parse("headkv+adakv+snapkv@5").is_ok());
    std::fs::remove_file(file).unwrap();
}

#[test]
fn tensors_give_importances_too() {
    use safetensors::tensor::{Dtype, TensorView, serialize};
    let bytes: Vec<u8> = [0.5f32, 1.5, 0.0, 3.0, 1.0, 1.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![3, 2], &bytes).unwrap();
    let path = std::env::temp_dir().join(format!("attnscope-headkv-{}.safetensors", std::process::id()));
    std::fs::write(&path, serialize([("head_importance", view)], None).unwrap()).unwrap();
    assert_eq!(read(&path), Ok(vec![vec![0.5, 1.5], vec![0.0, 3.0], vec![1.0, 1.0]]));
    std::fs::write(&path, b"{}").unwrap();
    assert!(read(&path).is_err());
    std::fs::remove_file(path).unwrap();
}
