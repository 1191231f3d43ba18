//! No size, no order of keys, and no text from outside brings the screen down or reaches the terminal raw.

use std::sync::Arc;

use attnscope::engine::frame::*;
use attnscope::engine::message::*;
use attnscope::tui::action::Action;
use attnscope::tui::keymap::Chord;
use attnscope::tui::text;
use attnscope::tui::theme::Depth;
use crossterm::event::KeyCode;
use proptest::prelude::*;
use ratatui::buffer::Buffer;
use ratatui::style::Color;

use super::frames;
use super::rig::Rig;

fn raw_cells(buf: &Buffer) -> Vec<String> {
    // Braille dots are ours; an empty one never comes from text, which shows it as a picture.
    let ours = |s: &str| s.chars().all(|c| ('\u{2800}'..='\u{28ff}').contains(&c));
    buf.content.iter().map(|c| c.symbol().to_string()).filter(|s| !text::is_safe(s) && !ours(s)).collect()
}

#[test]
fn every_view_at_every_small_size() {
    let mut rig = Rig::ready(Depth::True, 40, 3);
    rig.frame(frames::frame(1, 40, 3));
    for view in 1..=6 {
        rig.act(&[Action::View(view)]);
        for (width, height) in (1..=14).flat_map(|w| (1..=9).map(move |h| (w, h))).chain([(30, 1), (1, 50), (24, 12)]) {
            rig.draw(width, height);
            rig.answer();
            rig.draw(width, height);
        }
    }
}

#[test]
fn popups_at_every_small_size() {
    for open in [Action::Help, Action::Palette, Action::Search, Action::PickHead, Action::Prompt] {
        let mut rig = Rig::ready(Depth::True, 10, 1);
        rig.act(&[open]);
        for (width, height) in (1..=20).flat_map(|w| (1..=8).map(move |h| (w, h))) {
            rig.draw(width, height);
        }
    }
    let mut rig = Rig::silent(Depth::True);
    rig.app.take(Event::Failed("out of memory\nat layer 3".into()));
    for (width, height) in (1..=20).flat_map(|w| (1..=8).map(move |h| (w, h))) {
        rig.draw(width, height);
    }
}

#[test]
fn text_from_outside_arrives_as_pictures() {
    let evil = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{202e}\u{200b}\u{9b}31m";
    let mut rig = Rig::silent(Depth::True);
    rig.app.take(Event::Progress { what: evil.into(), done: 1, total: 2 });
    assert_eq!(raw_cells(&rig.draw(120, 40)), Vec::<String>::new());
    let mut model = frames::model();
    (model.id, model.family, model.device) = (evil.into(), evil.into(), evil.into());
    (model.weight_types, model.kv_type, model.precision) = (evil.into(), evil.into(), evil.into());
    rig.app.take(Event::Ready(Arc::new(model), frames::speller()));
    rig.app.take(Event::Prompt(vec![900; 12].into()));
    let mut frame = frames::frame(0, 12, 2);
    for lane in &mut frame.lanes {
        (lane.spec, lane.fed, lane.next) = (evil.into(), vec![900; 12].into(), Some(900));
        lane.candidates.iter_mut().for_each(|c| c.id = 900);
        lane.lens.iter_mut().for_each(|l| l.top[0].0 = 900);
    }
    frame.ops[0].name = evil.into();
    for finding in &mut frame.findings {
        (finding.title, finding.evidence, finding.advice) = (evil.into(), evil.into(), evil.into());
    }
    rig.frame(frame);
    rig.app.take(Event::State(State::Paused { why: Some(evil.into()) }));
    for view in 1..=6 {
        rig.act(&[Action::View(view), Action::Token(3)]);
        rig.draw(200, 60);
        for command in rig.sent() {
            if let Command::Query { id, .. } = command {
                rig.app.take(Event::Answer { id, answer: Answer::Nothing(evil.into()) });
            }
        }
        let buf = rig.draw(200, 60);
        assert_eq!(raw_cells(&buf), Vec::<String>::new(), "view {view}");
        assert!(buf.content.iter().any(|c| c.symbol() == "␛"), "view {view} shows the escape as a picture");
    }
    rig.app.take(Event::Failed(evil.into()));
    assert_eq!(raw_cells(&rig.draw(120, 40)), Vec::<String>::new());
}

#[test]
fn without_colours_there_is_no_colour() {
    let mut rig = Rig::ready(Depth::Mono, 60, 3);
    for view in 1..=6 {
        rig.act(&[Action::View(view)]);
        rig.draw(160, 50);
        rig.answer();
        let buf = rig.draw(160, 50);
        assert!(buf.content.iter().all(|c| c.fg == Color::Reset && c.bg == Color::Reset), "view {view}");
    }
}

#[test]
fn lying_frames_do_no_harm() {
    let mut rig = Rig::ready(Depth::True, 20, 2);
    let mut frame = frames::frame(1, 20, 2);
    for lane in &mut frame.lanes {
        lane.residual = Arc::new(ResidualStats { points: 500, rows: 9, ..Default::default() });
        lane.attention = Arc::new(AttentionStats { layers: 99, heads: 99, rows: 3, ..Default::default() });
        lane.kept = Arc::new(Kept::default());
        (lane.received, lane.row, lane.kv) = (Arc::from([]), Arc::from([]), KvBytes::default());
        lane.candidates.clear();
    }
    frame.findings.push(Finding {
        kind: FindingKind::MassiveActivation,
        lane: 77,
        step: 99,
        title: String::new(),
        evidence: String::new(),
        advice: String::new(),
        layer: Some(u32::MAX / 4),
        head: Some(12345),
        position: Some(u32::MAX),
    });
    rig.frame(frame);
    for view in 1..=6 {
        rig.act(&[Action::View(view)]);
        rig.draw(200, 60);
        rig.answer();
        rig.draw(120, 40);
    }
    let mut empty = frames::frame(2, 20, 1);
    empty.lanes.clear();
    rig.frame(empty);
    for view in 1..=6 {
        rig.act(&[Action::View(view), Action::LaneNext, Action::Right, Action::Down, Action::Choose]);
        rig.draw(120, 40);
    }
}

fn any_action() -> impl Strategy<Value = Action> {
    let numbered = (0u32..200, 0usize..7).prop_map(|(n, kind)| match kind {
        0 => Action::View(n % 8),
        1 => Action::Layer(n),
        2 => Action::Head(n),
        3 => Action::Lane(n),
        4 => Action::Token(n),
        5 => Action::At(n % 5),
        _ => Action::Force(n),
    });
    prop_oneof![3 => proptest::sample::select(Action::PLAIN.to_vec()), 1 => numbered]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_actions_in_any_order(moves in prop::collection::vec((any_action(), any::<char>(), 1u16..140, 1u16..50), 1..40)) {
        let mut rig = Rig::ready(Depth::True, 24, 3);
        for step in 1..4 {
            rig.frame(frames::frame(step, 24, 3));
        }
        for (action, key, width, height) in moves {
            if rig.app.layers.is_empty() {
                rig.app.act(action);
            } else {
                rig.app.key(Chord::key(KeyCode::Char(key)).event());
                rig.app.key(Chord::key(KeyCode::Enter).event());
            }
            rig.app.exit = None;
            let buf = rig.draw(width, height);
            prop_assert_eq!(raw_cells(&buf), Vec::<String>::new());
            rig.app.click(ratatui::layout::Position::new(width / 2, height / 2));
            rig.answer();
        }
    }
}
