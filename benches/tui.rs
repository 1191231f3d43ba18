//! How long a 200×60 screen takes: with new data in every panel, unchanged, and as text.

#[path = "../tests/screen/frames.rs"]
mod frames;
#[path = "../tests/screen/rig.rs"]
mod rig;

use attnscope::tui::action::Action;
use attnscope::tui::theme::Depth;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const PROMPT: usize = 400;
const LANES: usize = 4;

fn screens(c: &mut Criterion) {
    let mut group = c.benchmark_group("tui 200x60");
    for view in 1..=6 {
        let mut rig = rig::Rig::ready(Depth::True, PROMPT, LANES);
        for step in 1..=64 {
            rig.frame(frames::frame(step, PROMPT, LANES));
        }
        rig.act(&[Action::View(view)]);
        rig.draw(200, 60);
        rig.answer();
        let name = rig.app.views[rig.app.view].name.clone();
        group.bench_function(format!("{name}, unchanged"), |b| b.iter(|| rig.draw(200, 60)));
        let mut step = 65;
        group.bench_function(format!("{name}, new frame"), |b| {
            b.iter_batched(
                || {
                    step += 1;
                    frames::frame(65 + step % 2, PROMPT, LANES)
                },
                |frame| {
                    rig.frame(frame);
                    let screen = rig.draw(200, 60);
                    rig.answer();
                    screen
                },
                BatchSize::PerIteration,
            )
        });
        group.bench_function(format!("{name}, settled and as text"), |b| b.iter(|| rig.text(200, 60)));
    }
    group.finish();
}

criterion_group!(benches, screens);
criterion_main!(benches);
