//! Named parts of real prompts: where they are in the tokens of two models, what is left of them in known sets, and
//! what hindsight says of an oracle.

mod common;

use std::path::Path;

use attnscope::engine::frame::{Frame, PromptSpan};
use attnscope::engine::{Core, Pause, Precision};
use attnscope::model::chat::Message;
use attnscope::model::source::Model;
use attnscope::probe::prompt_span::PromptText;
use common::real_model;

const SAMPLES: [&str; 8] = ["needle", "multikey", "induction", "sink", "instructions", "code", "essay", "counting"];

fn sample(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("sample-prompts/{name}.md"));
    let file = std::fs::read_to_string(path).expect("a sample");
    file.split_once("\n+++\n").expect("a header").1.trim_end_matches('\n').to_owned()
}

fn spans(model: &Model, ids: &[u32]) -> Vec<PromptSpan> {
    let tokenizer = model.tokenizer.as_ref().expect("a tokenizer");
    PromptText::new(ids.iter().map(|&id| (tokenizer.bytes(id), tokenizer.is_special(id)))).spans()
}

/// The text of each span, by name.
fn texts(model: &Model, ids: &[u32]) -> Vec<(String, String)> {
    let tokenizer = model.tokenizer.as_ref().expect("a tokenizer");
    let text =
        |span: &PromptSpan| ids[span.from as usize..span.to as usize].iter().map(|&id| tokenizer.text(id)).collect();
    spans(model, ids).iter().map(|span| (span.name.to_string(), text(span))).collect()
}

fn chat(model: &Model, messages: &[(&str, &str)]) -> Option<Vec<u32>> {
    let turns: Vec<Message> = messages
        .iter()
        .map(|(role, content)| Message { role: role.to_string(), content: content.to_string() })
        .collect();
    let text = model.chat_template.as_ref()?.render(&turns, true).expect("a conversation");
    Some(model.tokenizer.as_ref()?.encode(&text, true).expect("tokens"))
}

/// What the rule should say of a text without marks: blank lines belong to what stands before them.
fn expected(text: &str, alone: &str) -> Vec<(String, String)> {
    match text.trim_end().rsplit_once("\n\n") {
        None => vec![(alone.into(), text.trim().into())],
        Some((document, question)) => {
            vec![("document".into(), document.trim().into()), ("question".into(), question.trim().into())]
        }
    }
}

fn trimmed(texts: Vec<(String, String)>) -> Vec<(String, String)> {
    texts.into_iter().map(|(name, text)| (name, text.trim().to_owned())).collect()
}

#[test]
fn samples_are_cut_before_their_last_paragraph() {
    for name in ["smollm2-135m", "gemma3-270m"] {
        let Some(model) = real_model(name) else { continue };
        for sample_name in SAMPLES {
            let text = sample(sample_name);
            let ids = model.tokenizer.as_ref().expect("a tokenizer").prompt_ids(&text).expect("tokens");
            assert_eq!(trimmed(texts(&model, &ids)), expected(&text, "prompt"), "{name}: {sample_name}");
            // Nothing but a beginning-of-text token is left out.
            let spans = spans(&model, &ids);
            let bos = model.tokenizer.as_ref().and_then(|t| t.bos()).is_some() as u32;
            assert_eq!((spans[0].from, spans[spans.len() - 1].to), (bos, ids.len() as u32));
            assert!(spans.windows(2).all(|pair| pair[0].to == pair[1].from));
        }
    }
}

#[test]
fn a_chat_has_its_roles() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let system =
        ("system".to_owned(), "You are a helpful AI assistant named SmolLM, trained by Hugging Face".to_owned());
    for sample_name in SAMPLES {
        let text = sample(sample_name);
        let ids = chat(&model, &[("user", &text)]).expect("a template");
        let all = [vec![system.clone()], expected(&text, "user")].concat();
        assert_eq!(trimmed(texts(&model, &ids)), all, "{sample_name}");
    }
    let talk =
        [("system", "Be brief.\n\nAlways."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "A text.\n\nWhy?")];
    let found = trimmed(texts(&model, &chat(&model, &talk).expect("a template")));
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["system", "history", "document", "question"]);
    assert_eq!(found[0].1, "Be brief.\n\nAlways.");
    assert!(found[1].1.starts_with("Hi<|im_end|>") && found[1].1.ends_with("Hello!"), "{}", found[1].1);
    assert_eq!((found[2].1.as_str(), found[3].1.as_str()), ("A text.", "Why?"));
}

fn read(core: &mut Core, ids: &[u32]) -> Frame {
    core.read_prompt(ids, |_, _| Pause::Continue).expect("the prompt is read").expect("to its end")
}

#[test]
fn frames_say_what_is_left_and_what_it_covers() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let ids = model.tokenizer.as_ref().expect("a tokenizer").prompt_ids(&sample("multikey")).expect("tokens");
    let (n, lanes) = (ids.len() as u32, ["full", "window@40", "knorm@100%", "oracle@25%:tokens=6", "snapkv@25%"]);
    let mut core = common::core(&model, Precision::Native, &lanes);
    core.set_spans(vec![format!("end={}..", n - 50).parse().expect("a span"), "rosa=Rosa".parse().expect("a span")]);
    core.check_spans(&ids).expect("both are there");
    let first = read(&mut core, &ids);
    let names: Vec<&str> = first.spans.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["end", "rosa", "document", "question"]);
    let share = |lane: usize, span: usize| first.lanes[lane].survival[span].share;
    // the newest 40 of the last 50
    assert_eq!((share(0, 0), share(1, 0), share(1, 3), share(2, 2)), (1.0, 0.8, 1.0, 1.0));
    assert!(share(1, 1) == 0.0 && first.lanes[1].survival[2].least <= share(1, 2));
    assert!(first.lanes.iter().all(|lane| lane.covered.is_none()), "nothing came later yet");
    let recall: Vec<_> = first.lanes.iter().map(|lane| lane.recall.map(|recall| recall.oracle)).collect();
    assert_eq!(recall, [None, Some(3), None, None, Some(3)]);
    let mut covered = vec![0.0; lanes.len()];
    for _ in 0..6 {
        let step = core.step().expect("a step");
        for (sum, lane) in covered.iter_mut().zip(&step.lanes) {
            *sum += lane.covered.unwrap_or(f32::NAN);
        }
    }
    // knorm@100% evicts, but nothing yet
    assert!(covered[0].is_nan() && (covered[2] - 6.0).abs() < 1e-3, "{covered:?}");
    assert!(covered[1] < covered[4] && covered[4] < covered[3] && covered[3] < 6.0, "{covered:?}");
    // another prompt does not say it
    let other = model.tokenizer.as_ref().expect("a tokenizer").prompt_ids("3, 6, 9, 12, 15, 18").expect("tokens");
    assert!(core.check_spans(&other).is_err());
    assert_eq!(read(&mut core, &other).spans.len(), 1);
}

#[test]
fn a_lane_that_becomes_an_oracle_is_one_for_the_others() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let ids = model.tokenizer.as_ref().expect("a tokenizer").prompt_ids(&sample("counting").repeat(4)).expect("tokens");
    let mut core = common::core(&model, Precision::Native, &["full", "knorm@50%", "snapkv@50%"]);
    read(&mut core, &ids);
    core.step().expect("a step");
    let mut frames = Vec::new();
    let policy = attnscope::policy::Policy::parse("oracle@50%:tokens=4").expect("a policy");
    core.change(2, policy, |frame| frames.push(frame)).expect("the lane changes");
    assert_eq!(frames.len(), 2);
    assert!(frames.iter().all(|frame| frame.lanes[1].recall.is_some_and(|recall| recall.oracle == 2)));
    assert!(frames.iter().all(|frame| frame.lanes[2].recall.is_none()));
}
