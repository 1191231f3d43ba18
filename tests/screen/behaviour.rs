//! What keys do, and what the screen says.

use std::sync::Arc;

use attnscope::engine::frame::{Depth as Contributions, Gates};
use attnscope::engine::message::*;
use attnscope::tui::action::Action;
use attnscope::tui::app::Exit;
use attnscope::tui::theme::Depth;
use ratatui::layout::Position;

use super::frames;
use super::rig::Rig;

fn press(rig: &mut Rig, keys: &str) {
    for key in keys.split(' ') {
        let chord: attnscope::tui::keymap::Chord = key.parse().expect("a key");
        rig.app.key(chord.event());
    }
}

#[test]
fn the_first_screen_stands_before_the_engine_has_spoken() {
    let screen = Rig::silent(Depth::Mono).text(80, 24);
    assert!(screen.contains("starting") && screen.contains("overview"), "{screen}");
}

#[test]
fn loading_shows_what_and_how_far() {
    let mut rig = Rig::silent(Depth::Mono);
    rig.app.take(Event::Progress { what: "loading weights".into(), done: 49 << 20, total: 98 << 20 });
    let screen = rig.text(80, 24);
    assert!(screen.contains("loading weights") && screen.contains("49.0 MiB of 98.0 MiB"), "{screen}");
}

#[test]
fn keys_become_commands() {
    let mut rig = Rig::ready(Depth::Mono, 20, 2);
    rig.draw(100, 30);
    rig.answer();
    press(&mut rig, "n N s space");
    let sent = rig.answer();
    assert!(matches!(sent[0], Command::Step(Grain::Token)), "{sent:?}");
    assert!(matches!(sent[1], Command::Step(Grain::Layer)), "{sent:?}");
    assert!(matches!(sent[2], Command::Step(Grain::Sublayer)), "{sent:?}");
    assert!(matches!(sent[3], Command::Run { until: Until::Forever, pace_ms: 0 }), "{sent:?}");
    rig.app.take(Event::State(State::Running));
    press(&mut rig, "- space");
    let sent = rig.answer();
    assert!(matches!(sent[0], Command::Run { pace_ms: 20, .. }), "{sent:?}");
    assert!(matches!(sent[1], Command::Pause), "{sent:?}");
    press(&mut rig, "q");
    assert_eq!(rig.app.exit, Some(Exit::Quit));
}

#[test]
fn a_lanes_policy_is_changed_as_fast_as_keys_are_pressed() {
    let mut rig = Rig::ready(Depth::Mono, 20, 2);
    rig.draw(100, 30);
    rig.answer();
    press(&mut rig, "> e");
    assert!(rig.answer().is_empty(), "lane 0 is the yardstick");
    press(&mut rig, ") > > lt u");
    let changes: Vec<String> = rig
        .answer()
        .into_iter()
        .map(|command| match command {
            Command::Change { lane: 1, spec } => spec,
            other => panic!("{other:?}"),
        })
        .collect();
    let spec = |command: usize| attnscope::policy::Spec::parse(&changes[command]).unwrap();
    let first = attnscope::policy::Spec::parse(&rig.app.seen().lane().unwrap().spec).unwrap();
    assert_eq!(spec(0), first.nudged(true).unwrap());
    assert_eq!(spec(1), spec(0).nudged(true).unwrap());
    assert_eq!(spec(2), spec(0));
    assert_eq!(spec(3), spec(0).protection_toggled());
}

#[test]
fn time_goes_back_and_forth_and_stepping_at_the_end_computes() {
    let mut rig = Rig::ready(Depth::Mono, 20, 2);
    for step in 1..=3 {
        rig.frame(frames::frame(step, 20, 2));
    }
    press(&mut rig, "b b");
    assert!(rig.text(100, 30).contains("step 1 of 3"));
    press(&mut rig, "f f");
    assert!(rig.app.timeline.is_live());
    assert!(rig.answer().is_empty());
    press(&mut rig, "f");
    assert!(matches!(rig.answer()[..], [Command::Step(Grain::Token)]));
    press(&mut rig, "B R");
    assert!(matches!(rig.answer()[..], [Command::Rewind { step: 0 }]));
    rig.app.take(Event::Rewound { step: 0 });
    assert_eq!(rig.app.session.frames().len(), 1);
}

#[test]
fn a_new_frame_does_not_move_who_looks_at_the_past() {
    let mut rig = Rig::ready(Depth::Mono, 20, 1);
    rig.frame(frames::frame(1, 20, 1));
    press(&mut rig, "b");
    rig.frame(frames::frame(2, 20, 1));
    assert!(rig.text(100, 30).contains("step 0 of 2"));
}

#[test]
fn a_partial_frame_is_marked_and_replaced_by_the_whole() {
    let mut rig = Rig::ready(Depth::Mono, 20, 2);
    let mut part = frames::frame(1, 20, 2);
    part.partial = Some(12);
    rig.frame(part);
    assert!(rig.text(120, 40).contains("◐ 12 sublayers"));
    rig.frame(frames::frame(1, 20, 2));
    assert!(!rig.text(120, 40).contains("◐"));
    assert_eq!(rig.app.session.frames().len(), 2);
}

#[test]
fn the_map_asks_once_and_keeps_the_old_tile_meanwhile() {
    let mut rig = Rig::ready(Depth::Mono, 30, 1);
    rig.act(&[Action::View(2)]);
    rig.draw(120, 40);
    let asked = rig.sent();
    assert_eq!(asked.len(), 2, "the tile and the cell under the crosshair: {asked:?}");
    rig.draw(120, 40);
    assert!(rig.sent().is_empty(), "an open question is not asked again");
    for command in asked {
        let Command::Query { id, query } = command else { panic!("{command:?}") };
        rig.app.take(Event::Answer { id, answer: frames::tile(&query) });
    }
    let first = rig.text(120, 40);
    rig.act(&[Action::LayerNext]);
    let meanwhile = attnscope::tui::dump::plain(&rig.draw(120, 40));
    let pixels = |s: &str| s.matches(['░', '▒', '▓', '█']).count();
    assert!(pixels(&meanwhile) * 10 > pixels(&first) * 9, "{meanwhile}");
    let queries: Vec<_> = rig.sent();
    assert!(
        queries.iter().any(|c| matches!(c, Command::Query { query: Query::Tile { layer: 1, .. }, .. })),
        "{queries:?}"
    );
}

#[test]
fn the_map_follows_a_run_with_a_tenth_of_its_time_and_keys_at_once() {
    let tiles = |rig: &mut Rig| {
        rig.draw(120, 40);
        let whole = |c: &Command| matches!(c, Command::Query { query: Query::Tile { height: 2.., .. }, .. });
        let sent = rig.sent();
        for command in &sent {
            if let Command::Query { id, query } = command {
                let mut answer = frames::tile(query);
                if let Answer::Tile { micros, .. } = &mut answer {
                    *micros = 60_000_000;
                }
                rig.app.take(Event::Answer { id: *id, answer });
            }
        }
        sent.iter().filter(|c| whole(c)).count()
    };
    let mut rig = Rig::ready(Depth::Mono, 30, 1);
    rig.act(&[Action::View(2)]);
    assert_eq!(tiles(&mut rig), 1);
    rig.app.take(Event::State(State::Running));
    rig.frame(frames::frame(1, 30, 1));
    assert_eq!(tiles(&mut rig), 0, "a token more can wait");
    rig.act(&[Action::LayerNext]);
    assert_eq!(tiles(&mut rig), 1, "a key cannot");
    rig.frame(frames::frame(2, 30, 1));
    assert_eq!(tiles(&mut rig), 0);
    rig.app.take(Event::State(State::Paused { why: None }));
    assert_eq!(tiles(&mut rig), 1, "standing still, the map is up to date");
}

#[test]
fn search_jumps_while_typing_and_goes_round() {
    let mut rig = Rig::ready(Depth::Mono, 66, 1);
    press(&mut rig, "/ space P a r i s");
    assert_eq!(rig.app.found, [5, 29, 30, 38, 62, 63]);
    assert_eq!(rig.app.selection.token, Some(5));
    press(&mut rig, "enter ;");
    assert_eq!(rig.app.selection.token, Some(29));
    press(&mut rig, ", ,");
    assert_eq!(rig.app.selection.token, Some(63));
    press(&mut rig, "/ z z esc");
    assert!(rig.app.found.is_empty());
}

#[test]
fn a_search_may_span_tokens() {
    let mut rig = Rig::ready(Depth::Mono, 33, 1);
    press(&mut rig, "/ p a r i s i i");
    assert_eq!(rig.app.found, [29, 30, 31]);
}

#[test]
fn help_lists_the_panels_own_keys_and_every_bound_action() {
    let mut rig = Rig::ready(Depth::Mono, 20, 1);
    rig.act(&[Action::View(2), Action::Help]);
    let screen = rig.text(200, 60);
    for words in ["panel: map", "zoom in; close enough", "run or pause", "search the tokens", "go to layer N"] {
        assert!(screen.contains(words), "{words}: {screen}");
    }
}

#[test]
fn the_palette_finds_and_does() {
    let mut rig = Rig::ready(Depth::Mono, 20, 1);
    press(&mut rig, ": v i e w space p o l enter");
    assert_eq!(rig.app.views[rig.app.view].name, "policies");
    press(&mut rig, ": l a y e r space 1 2 enter");
    assert_eq!(rig.app.selection.layer, 12);
}

#[test]
fn enter_on_a_finding_goes_to_its_place() {
    let mut rig = Rig::ready(Depth::Mono, 20, 2);
    rig.frame(frames::frame(1, 20, 2));
    rig.act(&[Action::View(6)]);
    rig.draw(120, 40);
    while rig.app.focused().name() != "findings" {
        rig.act(&[Action::FocusNext]);
    }
    rig.act(&[Action::Down, Action::Choose]);
    let s = rig.app.selection;
    assert_eq!((s.layer, s.head, s.token), (9, 4, Some(0)));
    assert!(rig.text(120, 40).contains("step 0 of 1"));
}

#[test]
fn a_click_on_a_tab_and_on_a_token() {
    let mut rig = Rig::ready(Depth::Mono, 20, 1);
    rig.draw(120, 40);
    let (_, tab) = rig.app.places.tabs[2];
    rig.app.click(Position::new(tab.x + 1, tab.y));
    assert_eq!(rig.app.view, 2);
    rig.act(&[Action::View(1)]);
    rig.draw(120, 40);
    let (_, tokens) = rig.app.places.panels[0];
    // "The·capital·of": the fifth column is in the second token.
    rig.app.click(Position::new(tokens.x + 4, tokens.y));
    assert_eq!(rig.app.selection.token, Some(1));
}

#[test]
fn policies_mark_the_first_difference_and_count_agreement() {
    let mut rig = Rig::ready(Depth::Mono, 20, 2);
    for step in 1..=8 {
        rig.frame(frames::frame(step, 20, 2));
    }
    rig.act(&[Action::View(3)]);
    let screen = rig.text(120, 40);
    assert!(screen.contains("streaming@25%:sinks=4"), "{screen}");
    assert!(screen.contains("text differs"), "{screen}");
    assert!(screen.contains("/9"), "{screen}");
}

#[test]
fn a_lost_engine_is_said_and_the_screen_stays() {
    let mut rig = Rig::ready(Depth::Mono, 20, 1);
    rig.app.lost("the engine has stopped");
    assert!(rig.text(100, 30).contains("the engine has stopped"));
    press(&mut rig, "x");
    assert!(rig.text(100, 30).contains("failed"));
    assert_eq!(rig.app.exit, None);
}

#[test]
fn what_another_cache_would_take_follows_the_keys() {
    let mut rig = Rig::ready(Depth::Mono, 48, 4);
    rig.act(&[Action::View(5)]);
    let line = |rig: &mut Rig, words: &str| {
        let screen = rig.text(120, 40);
        screen.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{words}: {screen}")).to_owned()
    };
    assert!(line(&mut rig, "what if").contains("8 192 tokens × 1 bf16"));
    // 2 · 30 layers · 3 heads · 64 · 8192 tokens · 2 bytes
    assert!(line(&mut rig, "as it is").contains("180 MiB"));
    assert!(line(&mut rig, "window 512").contains("11.2 MiB") && line(&mut rig, "15 share").contains("50 % of it"));
    press(&mut rig, "+ v v m");
    assert!(line(&mut rig, "what if").contains("16 384 tokens × 8 f32"));
    assert!(line(&mut rig, "as it is").contains("5.62 GiB"));
    press(&mut rig, "0 -");
    assert!(line(&mut rig, "what if").contains("4 096 tokens"));
}

/// Two streams of which each sublayer reads the first, and which are mixed a little.
fn gates(targets: usize) -> Gates {
    let one = [1.0, 0.25, 0.5, 1.5, 0.75, 0.25, 0.25, 0.75, 3.0, 1.0, 1.0, 3.0];
    Gates { streams: 2, values: one.repeat(targets) }
}

#[test]
fn streams_are_shown_where_there_are_several() {
    let mut rig = Rig::ready(Depth::Mono, 20, 1);
    let views = attnscope::tui::view::load(&[]).expect("our own views are valid");
    let view = views.iter().position(|view| view.name == "streams").expect("a view") as u32 + 1;
    rig.act(&[Action::View(view)]);
    assert!(rig.text(100, 30).contains("this model has one residual stream"));
    let mut frame = frames::frame(1, 20, 1);
    let depth = Contributions { gates: Some(gates(2 * frames::LAYERS + 1)), ..Contributions::default() };
    frame.lanes[0].depth = Some(Arc::new(depth));
    rig.frame(frame);
    rig.act(&[Action::Newest]);
    let screen = rig.text(100, 30);
    for words in ["2 streams", "L0 attention", "H_res", "0.750", "1.50", "branch", "0.250"] {
        assert!(screen.contains(words), "{words}: {screen}");
    }
    rig.act(&[Action::FocusNext, Action::Down, Action::Down]);
    assert!(rig.text(100, 30).contains("L1 attention 2 streams"), "{}", rig.text(100, 30));
    for (width, height) in [(20, 5), (80, 24), (200, 60)] {
        rig.text(width, height);
    }
}

/// Sixty sublayers that read the newest of at most three sources with 0.75, the embedding with what is left.
fn mixed(weighed: bool) -> Contributions {
    let counts: Vec<u32> = (0..=2 * frames::LAYERS as u32).map(|target| (target + 1).min(3)).collect();
    let row = |n: &u32| match n {
        1 => vec![1.0],
        2 => vec![0.25, 0.75],
        _ => vec![0.25, 0.0, 0.75],
    };
    let values: Vec<f32> = counts.iter().flat_map(row).collect();
    Contributions { counts, share: values.clone(), weight: if weighed { values } else { Vec::new() }, gates: None }
}

#[test]
fn what_is_read_is_a_map_of_weights_or_contributions() {
    let mut rig = Rig::ready(Depth::Mono, 20, 2);
    let views = attnscope::tui::view::load(&[]).expect("our own views are valid");
    let view = views.iter().position(|view| view.name == "depth").expect("a view") as u32 + 1;
    rig.act(&[Action::View(view)]);
    assert!(rig.text(120, 40).contains("not measured"), "{}", rig.text(120, 40));
    let mut frame = frames::frame(1, 20, 2);
    frame.lanes[0].depth = Some(Arc::new(mixed(true)));
    frame.lanes[1].depth = Some(Arc::new(mixed(false)));
    rig.frame(frame);
    rig.act(&[Action::Newest, Action::FocusNext]);
    let screen = rig.text(120, 40);
    // e to the entropy of a quarter and three quarters
    for words in ["weight α", "emb", "L0a", "output: L0 MLP 0.75", "0.25", "entropy 0.56 nats", "1.8", "25 %"] {
        assert!(screen.contains(words), "{words}: {screen}");
    }
    rig.act(&[Action::Up]);
    assert!(rig.text(200, 60).contains("L29 MLP: "), "{}", rig.text(200, 60));
    rig.act(&[Action::Colour]);
    assert!(rig.text(120, 40).contains("not attention"));
    rig.act(&[Action::Colour]);
    assert!(rig.text(120, 40).contains("choose one with"), "{}", rig.text(120, 40));
    rig.act(&[Action::LaneNext]);
    assert!(rig.text(120, 40).contains("difference from lane 0"));
    rig.act(&[Action::Span, Action::Span]);
    assert!(rig.text(120, 40).contains("mean over the steps"));
    for (width, height) in [(20, 5), (80, 24), (200, 60)] {
        rig.text(width, height);
    }
}
