//! A trace that speaks as an engine does.

use std::time::Duration;

use super::super::Trace;
use super::super::player::Player;
use super::*;
use crate::engine::message::{Answer, Command, Event, Grain, Query, State, Until};

fn player() -> Player {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.trace");
    record(&path);
    Player::spawn(Trace::open(&path).unwrap()).unwrap()
}

/// What is said until the next pause, in short.
fn heard(player: &Player) -> Vec<String> {
    let mut words = Vec::new();
    loop {
        match player.events.recv_timeout(Duration::from_secs(20)).expect("the player answers") {
            Event::Ready(model, _) => words.push(format!("ready {}", model.id)),
            Event::Prompt(ids) => words.push(format!("prompt {}", ids.len())),
            Event::Frame(frame) => words.push(format!("frame {}", frame.step)),
            Event::Rewound { step } => words.push(format!("rewound {step}")),
            Event::Forked { lane, from } => words.push(format!("forked {lane} {from}")),
            Event::Notice(what) => return vec![what],
            Event::Answer { answer: Answer::Nothing(why), .. } => return vec![why],
            Event::State(State::Paused { why }) => {
                words.push(why.unwrap_or_default());
                return words;
            }
            _ => {}
        }
    }
}

#[test]
fn steps_come_as_they_were_seen() {
    let player = player();
    let after = |command| {
        player.commands.send(command).unwrap();
        heard(&player)
    };
    assert_eq!(heard(&player), ["ready made-up", "prompt 3", "frame 0", "replay"]);
    assert_eq!(after(Command::Step(Grain::Token)), ["frame 1", "replay"]);
    assert_eq!(
        after(Command::Run { until: Until::Tokens(2), pace_ms: 0 }),
        ["frame 2", "frame 3", "as many tokens as asked for"]
    );
    assert_eq!(after(Command::Rewind { step: 2 }), ["rewound 2", "replay"]);
    assert_eq!(after(Command::Step(Grain::Layer)), ["frame 3", "replay"]);
    let end = ["rewound 1", "forked 2 1", "frame 2", "end of the trace"];
    assert_eq!(after(Command::Run { until: Until::Forever, pace_ms: 1 }), end);
    assert_eq!(after(Command::Step(Grain::Token)), ["end of the trace"]);
    player.finish();
}

#[test]
fn what_needs_the_model_is_refused_in_words() {
    let player = player();
    heard(&player);
    let after = |command| {
        player.commands.send(command).unwrap();
        heard(&player).concat()
    };
    for command in [
        Command::Fork { lane: 0, step: 0 },
        Command::Force { lane: 0, token: 1 },
        Command::Prompt("other".into()),
        Command::SetProbes(Default::default()),
    ] {
        let words = after(command);
        assert!(words.contains("needs the model"), "{words}");
    }
    assert!(after(Command::Query { id: 1, query: Query::PromptNll }).contains("surprise"));
    assert!(
        after(Command::Query { id: 2, query: Query::Row { lane: 0, layer: 0, head: 0 } }).contains("run the model")
    );
    player.finish();
}
