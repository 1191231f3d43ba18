//! Macros on a scripted engine on its own thread.

use attnscope::tui::theme::Depth;
use attnscope::tui::{Exit, ScreenOptions, run_headless};

use super::script;

/// What a macro leaves on the screen, and how it ended.
fn play(keys: &str, size: (u16, u16), prompt: usize, lanes: usize, colours: Depth) -> (String, Exit) {
    let (commands, events) = script::engine(prompt, lanes);
    let options = ScreenOptions { keys: Some(keys.into()), colours: Some(colours), ..Default::default() };
    let mut out = Vec::new();
    let exit = run_headless(&options, size, commands, events, &mut out).expect("the macro plays");
    (String::from_utf8(out).expect("the screen is text"), exit)
}

#[test]
fn a_macro_steps_looks_and_leaves() {
    let keys = "<wait:ready> n <wait:frame> n <wait:frame> <wait:idle> <screen:two> 3 <screen:policies> q";
    let (out, exit) = play(keys, (120, 40), 60, 3, Depth::Mono);
    assert_eq!(exit, Exit::Quit);
    let (two, policies) = out.split_once("=== policies ===").expect("two screens");
    assert!(two.contains("=== two ===") && two.contains("step 2"), "{two}");
    assert!(policies.contains("streaming@25%:sinks=4"), "{policies}");
}

#[test]
fn interrupting_is_told_apart_from_quitting() {
    assert_eq!(play("<wait:ready> <c-c>", (80, 24), 20, 1, Depth::Mono).1, Exit::Interrupted);
}

#[test]
fn sizes_change_in_the_middle() {
    let (out, _) = play("<wait:ready> <size:1x1> <size:200x60> <size:40x10> <wait:idle>", (80, 24), 20, 2, Depth::True);
    assert_eq!(out.lines().filter(|l| !l.is_empty()).count(), 11, "ten rows and the reset of the colours");
}

#[test]
fn a_wrong_macro_or_view_is_a_usage_error() {
    let (commands, events) = script::engine(4, 1);
    let mut out = Vec::new();
    for (keys, view) in [("<tba>", None), ("q", Some("nope"))] {
        let options = ScreenOptions { keys: Some(keys.into()), view: view.map(String::from), ..Default::default() };
        let error = run_headless(&options, (80, 24), commands.clone(), events.clone(), &mut out).unwrap_err();
        assert!(error.is_usage(), "{error}");
    }
}
