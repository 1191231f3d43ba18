//! A scripted engine on its own thread: says what the hand-made frames say.

use std::sync::Arc;

use attnscope::engine::message::*;
use crossbeam_channel::{Receiver, Sender, unbounded};

use super::frames::{frame, model, prompt, speller, tile};

/// An engine that answers from the hand-made frames; runs until `Quit` or until nobody listens.
pub fn engine(n: usize, lanes: usize) -> (Sender<Command>, Receiver<Event>) {
    let (commands, inbox) = unbounded::<Command>();
    let (outbox, events) = unbounded();
    std::thread::spawn(move || {
        let say = |event| outbox.send(event).is_ok();
        let paused = || Event::State(State::Paused { why: None });
        let mut step = 0;
        let start = [
            Event::Progress { what: "loading weights".into(), done: 50 << 20, total: 98 << 20 },
            Event::Ready(Arc::new(model()), speller()),
            Event::Prompt(prompt(n).into()),
            Event::State(State::Prefill { done: 0, total: n as u32 }),
            Event::Frame(Arc::new(frame(0, n, lanes))),
            paused(),
        ];
        if !start.into_iter().all(say) {
            return;
        }
        for command in inbox {
            let more = match command {
                Command::Step(Grain::Token) => 1,
                Command::Run { until: Until::Tokens(n), .. } => n,
                Command::Step(_) => {
                    let mut part = frame(step + 1, n, lanes);
                    part.partial = Some(12);
                    if !say(Event::Frame(Arc::new(part))) {
                        return;
                    }
                    continue;
                }
                Command::Rewind { step: to } => {
                    step = to;
                    if !say(Event::Rewound { step }) {
                        return;
                    }
                    continue;
                }
                Command::Query { id, query } => {
                    if !say(Event::Answer { id, answer: tile(&query) }) {
                        return;
                    }
                    continue;
                }
                Command::Quit => return,
                _ => continue,
            };
            for _ in 0..more {
                step += 1;
                if !say(Event::Frame(Arc::new(frame(step, n, lanes)))) {
                    return;
                }
            }
            if !say(paused()) {
                return;
            }
        }
    });
    (commands, events)
}
