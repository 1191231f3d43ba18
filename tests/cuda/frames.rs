//! Whole models on a device, every kernel in its place: the frames are those of the CPU, and of Hugging Face.

use std::path::PathBuf;

use attnscope::backend::cuda::backend::CudaBackend;
use attnscope::cache::KvType;
use attnscope::engine::frame::{Frame, LaneFrame, Pick};
use attnscope::engine::message::{Answer, Fold, Probes, Query};
use attnscope::engine::{Core, Device, LaneSpec, LogitRows, Options, Pause, Precision, Sampler, open_on};
use attnscope::model::source::Model;
use attnscope::policy::Policy;

use crate::emulator;
use crate::family::{equals, unpack};
use crate::golden;

/// Families that a model needs.
pub const KERNELS: [&str; 14] = [
    "alter",
    "compact",
    "decode_attention",
    "elementwise",
    "embed",
    "gated",
    "mix",
    "norm",
    "prefill_attention",
    "product",
    "product_tensor",
    "rope",
    "sampling",
    "viewport",
];

fn on_device(model: &Model, lanes: &[&str]) -> Core {
    on_device_in(model, lanes, Precision::F32)
}

fn on_device_in(model: &Model, lanes: &[&str], precision: Precision) -> Core {
    opened(model, lanes, precision, None)
}

/// In f32, with depth queries from a file.
pub fn on_device_with(model: &Model, lanes: &[&str], depth: Option<PathBuf>) -> Core {
    opened(model, lanes, Precision::F32, depth)
}

fn opened(model: &Model, lanes: &[&str], precision: Precision, depth: Option<PathBuf>) -> Core {
    let lane = |spec: &&str| LaneSpec { policy: Policy::parse(spec).unwrap(), sampler: Sampler::default() };
    let options = Options {
        device: Device::Cuda(0),
        precision,
        threads: 2,
        kv: Some(KvType::F32),
        queries_budget: 1 << 30,
        chunk: 256,
        lanes: lanes.iter().map(lane).collect(),
        depth,
    };
    let make = |shape, exact| {
        let backend = CudaBackend::new(emulator::device(&KERNELS), shape, exact, 2)?;
        Ok((Box::new(backend) as Box<_>, None))
    };
    open_on(model, &options, make, |_, _| {}).unwrap().0
}

macro_rules! families {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            equals(stringify!($name), |model| on_device(model, &["full"]));
        })*
    };
}

families!(gemma2_softcap gemma3_text llama3_rope llama_linear_rope mistral_window qwen2_bias qwen3_qknorm);

/// A family's model and a prompt.
fn family(name: &str) -> (tempfile::TempDir, Model, Vec<u32>) {
    let folder = tempfile::tempdir().unwrap();
    let golden = unpack(name, folder.path());
    let model = Model::open(folder.path()).unwrap();
    (folder, model, golden.ints("ids").into_iter().map(|id| id as u32).collect())
}

/// Largest |a − b| relative to the larger of |a| and `unit`; NaN only beside NaN.
pub fn far(a: &[f32], b: &[f32], unit: f32) -> f32 {
    assert_eq!(a.len(), b.len());
    let apart = |(a, b): (&f32, &f32)| match (a.is_nan(), b.is_nan()) {
        (true, true) => 0.0,
        (false, false) => (a - b).abs() / a.abs().max(unit),
        _ => f32::INFINITY,
    };
    a.iter().zip(b).map(apart).fold(0.0, f32::max)
}

/// Sums of up to 160 products and 75 probabilities in another order: some hundred units in the last place.
pub const NEAR: f32 = 1e-4;
/// Of packed caches: a number that lies between two codes may become the one here and the other there.
const CODES: f32 = 1e-2;

pub fn same(device: &LaneFrame, cpu: &LaneFrame, near: f32) {
    let spec = &cpu.spec;
    assert_eq!((&device.spec, device.next, device.pos), (spec, cpu.next, cpu.pos));
    assert_eq!(device.kept, cpu.kept, "{spec}: what is kept");
    assert_eq!((device.kv.held, &device.kv.slots_per_layer), (cpu.kv.held, &cpu.kv.slots_per_layer), "{spec}");
    for (name, a, b, unit) in [
        ("l2", &device.residual.l2, &cpu.residual.l2, 1e-3),
        ("rms", &device.residual.rms, &cpu.residual.rms, 1e-3),
        ("largest", &device.residual.absmax, &cpu.residual.absmax, 1e-3),
        ("median", &device.residual.median, &cpu.residual.median, 1e-3),
        ("entropy", &device.attention.entropy, &cpu.attention.entropy, 0.1),
        ("first", &device.attention.first, &cpu.attention.first, 0.1),
        ("recent", &device.attention.recent, &cpu.attention.recent, 0.1),
        ("distance", &device.attention.distance, &cpu.attention.distance, 1.0),
        ("keys", &device.kv_norms.key_l2, &cpu.kv_norms.key_l2, 0.1),
        ("keys before", &device.kv_norms.key_l2_pre, &cpu.kv_norms.key_l2_pre, 0.1),
        ("values", &device.kv_norms.value_l2, &cpu.kv_norms.value_l2, 0.01),
        ("values l1", &device.kv_norms.value_l1, &cpu.kv_norms.value_l1, 0.1),
    ] {
        let apart = far(a, b, unit);
        assert!(apart <= near, "{spec} {name}: {apart:e}");
    }
    assert_eq!(device.residual.argmax, cpu.residual.argmax, "{spec}");
    for (name, a, b) in [("received", &device.received, &cpu.received), ("row", &device.row, &cpu.row)] {
        assert!(far(a, b, 0.01) <= near, "{spec} {name}: {:e}", far(a, b, 0.01));
    }
    assert!(far(&[device.entropy], &[cpu.entropy], 1.0) <= near, "{spec} entropy of the next token");
    match (&device.against, &cpu.against) {
        // the KL of lanes that are nearly one is a difference of nearly equal sums
        (Some(a), Some(b)) => assert!((a.kl - b.kl).abs() <= 1e-6 + 10.0 * near * b.kl, "{spec} KL {} {}", a.kl, b.kl),
        (a, b) => assert_eq!(a.is_some(), b.is_some()),
    }
}

fn all_same(device: &Frame, cpu: &Frame, near: f32) {
    assert_eq!(device.lanes.len(), cpu.lanes.len());
    device.lanes.iter().zip(&cpu.lanes).for_each(|(device, cpu)| same(device, cpu, near));
}

/// Prompt and some steps of these lanes.
fn runs_alike(name: &str, lanes: &[&str], steps: usize, near: f32) {
    let (_folder, model, prompt) = family(name);
    let (mut device, mut cpu) = (on_device(&model, lanes), golden::core(&model, Precision::F32, lanes));
    let read = |core: &mut Core| core.read_prompt(&prompt, |_, _| Pause::Continue).unwrap().unwrap();
    all_same(&read(&mut device), &read(&mut cpu), near);
    for _ in 0..steps {
        all_same(&device.step().unwrap(), &cpu.step().unwrap(), near);
    }
}

#[test]
fn lanes_that_evict_are_the_cpus() {
    let lanes = ["full", "streaming@50%", "h2o@50%", "tova@40%", "snapkv@50%", "adakv+knorm@30%", "expected@25%"];
    runs_alike("llama3_rope", &lanes, 6, NEAR);
    runs_alike("gemma3_text", &lanes, 3, NEAR);
}

#[test]
fn prompts_go_through_tensor_cores_where_nothing_has_to_be_plain_f32() {
    let (_folder, model, prompt) = family("llama3_rope");
    let mut device = on_device_in(&model, &["full", "snapkv@50%"], Precision::Native);
    let mut cpu = golden::core(&model, Precision::F32, &["full", "snapkv@50%"]);
    let read = |core: &mut Core| core.read_prompt(&prompt, |_, _| Pause::Continue).unwrap().unwrap();
    for (device, cpu) in [(read(&mut device), read(&mut cpu)), (device.step().unwrap(), cpu.step().unwrap())] {
        for (device, cpu) in device.lanes.iter().zip(&cpu.lanes) {
            assert_eq!((device.next, &device.kept), (cpu.next, &cpu.kept));
            let apart = [far(&device.residual.l2, &cpu.residual.l2, 1.0), far(&device.received, &cpu.received, 0.1)];
            assert!(apart.iter().all(|apart| *apart <= NEAR), "{}: {apart:?}", cpu.spec);
        }
    }
}

#[test]
fn a_draw_without_logits_is_the_same_draw() {
    let (_folder, model, prompt) = family("qwen2_bias");
    let run = |rows: LogitRows, on_cpu: bool| -> Vec<(Option<u32>, Option<Pick>)> {
        let mut core =
            if on_cpu { golden::core(&model, Precision::F32, &["full"]) } else { on_device(&model, &["full"]) };
        core.logit_rows = rows;
        let sampler = Sampler { temperature: 1.0, seed: 5, top_k: 20, ..Sampler::default() };
        core.set_lanes(vec![LaneSpec { policy: Policy::parse("full").unwrap(), sampler }]);
        let first = core.read_prompt(&prompt, |_, _| Pause::Continue).unwrap().unwrap();
        let frames = std::iter::once(first).chain((0..12).map(|_| core.step().unwrap()));
        frames.map(|frame| (frame.lanes[0].next, frame.lanes[0].pick)).collect()
    };
    let (kept, dropped) = (run(LogitRows::Keep, true), run(LogitRows::Drop, false));
    for ((a, with), (b, without)) in kept.iter().zip(&dropped) {
        let (with, without) = (with.unwrap(), without.unwrap());
        let doubtful = with.margin < 1e-4 || without.margin < 1e-4;
        assert!(a == b || doubtful, "{a:?} {with:?} {b:?} {without:?}");
        assert!(doubtful || far(&without.scores, &with.scores, 1.0) <= NEAR, "{with:?} {without:?}");
    }
    let vocab = 4 * 320;
    assert_eq!(dropped.iter().skip(1).map(|(_, pick)| pick.unwrap().dropped).collect::<Vec<_>>(), vec![vocab; 12]);
}

#[test]
fn a_step_along_its_time_and_what_the_device_can_do() {
    let (_folder, model, prompt) = family("qwen3_qknorm");
    let mut core = on_device(&model, &["full", "tova@50%"]);
    core.read_prompt(&prompt, |_, _| Pause::Continue).unwrap();
    core.step().unwrap();
    let spans = core.backend().timeline();
    let of = |layer: u32| spans.iter().filter(|span| span.layer == Some(layer)).map(|s| s.name).collect::<Vec<_>>();
    let operations =
        ["norm", "q·k·v", "rope·append", "attention", "attention out", "norm", "gate·up", "activation", "down"];
    assert!((0..4).all(|layer| of(layer) == operations), "{spans:?}");
    assert!(spans.windows(2).all(|pair| pair[0].start_ns + u64::from(pair[0].ns) == pair[1].start_ns));
    assert!(core.backend().peaks().unwrap().is_sound());
}

#[test]
fn lanes_that_rewrite_what_stays_are_the_cpus() {
    runs_alike(
        "qwen3_qknorm",
        &["full", "merge+keydiff@25%", "rerotate+finch@25%", "snapkv@50%+decoding:every=2+knorm@24"],
        5,
        NEAR,
    );
}

#[test]
fn lanes_that_intervene_are_the_cpus() {
    let lanes = [
        "full",
        "zerohead:layer=1,head=2",
        "zerolayer:layer=2,sublayer=mlp",
        "scale:layer=1,sublayer=both,by=0.5",
        "setchannel:layer=0,channel=7,to=3,tokens=first",
        "masksink",
        "zerosink",
        "dropbos",
        "kvbias:from=2",
    ];
    runs_alike("llama3_rope", &lanes, 4, NEAR);
    let lanes = ["full", "scale:layer=1,sublayer=both,by=0.5", "zerohead:layer=1,head=0", "masksink"];
    runs_alike("gemma3_text", &lanes, 3, NEAR);
}

#[test]
fn lanes_whose_attention_has_no_kernel_attend_with_the_cpu() {
    runs_alike("llama3_rope", &["full", "quest@16:page=4", "tie:map=2=1", "kvsharer:layers=1,threshold=0"], 4, NEAR);
    runs_alike("llama3_rope", &["full", "int8", "snapkv@50%+kivi:bits=4"], 4, CODES);
    let (_folder, model, prompt) = family("llama3_rope");
    let mut core = on_device(&model, &["full", "knorm@50%", "int8"]);
    let frame = core.read_prompt(&prompt, |_, _| Pause::Continue).unwrap().unwrap();
    let on_host: Vec<bool> = frame.lanes.iter().map(|lane| lane.on_host).collect();
    assert_eq!(on_host, [false, false, true], "and the frame says so");
}

/// Everything of a frame but the clock.
fn timeless(frame: &Frame) -> String {
    let lanes: Vec<String> = frame.lanes.iter().map(|lane: &LaneFrame| format!("{lane:?}")).collect();
    format!("{} {:?} {}", frame.step, frame.findings, lanes.join("\n"))
}

fn steps(core: &mut Core, count: usize) -> Vec<String> {
    (0..count).map(|_| timeless(&core.step().unwrap())).collect()
}

#[test]
fn time_travel_changes_no_bit() {
    let (_folder, model, prompt) = family("mistral_window");
    let lanes = ["full", "h2o@50%", "snapkv@40%", "int8"];
    let mut core = on_device(&model, &lanes);
    core.probes = Probes { timings: false, ..Probes::default() };
    let first = timeless(&core.read_prompt(&prompt, |_, _| Pause::Continue).unwrap().unwrap());
    let frames = steps(&mut core, 36);
    core.probes.timings = true;
    for back in [34, 31, 3, 0] {
        core.rewind(back).unwrap();
        assert_eq!(steps(&mut core, 36 - back as usize), frames[back as usize..], "back to {back}");
    }
    assert_eq!(timeless(&core.read_prompt(&prompt, |_, _| Pause::Continue).unwrap().unwrap()), first);
    assert_eq!(steps(&mut core, 5), frames[..5]);
    core.fork(1, 3).unwrap();
    let forked = core.step().unwrap();
    assert_eq!(forked.lanes[4].row, forked.lanes[1].row);
}

#[test]
fn graphs_change_no_bit() {
    let (_folder, model, prompt) = family("mistral_window");
    let run = |timings: bool| {
        let mut core = on_device(&model, &["full", "h2o@50%"]);
        core.probes = Probes { timings, ..Probes::default() };
        core.read_prompt(&prompt, |_, _| Pause::Continue).unwrap();
        (0..6).map(|_| core.step().unwrap()).collect::<Vec<Frame>>()
    };
    let (timed, untimed) = (run(true), run(false));
    // known from the second time on
    assert!(timed.iter().chain(&untimed).all(|frame| frame.graph == (frame.step > 1)));
    assert!(timed.iter().all(|frame| !frame.ops.is_empty()) && untimed.iter().all(|frame| frame.ops.is_empty()));
    // the same steps, one kernel after the other
    let mut core = on_device(&model, &["full", "h2o@50%"]);
    core.read_prompt(&prompt, |_, _| Pause::Continue).unwrap();
    for (a, b) in timed.iter().zip(&untimed) {
        let mut frame = core.advance(1).unwrap();
        while frame.partial.is_some() {
            frame = core.advance(1).unwrap();
        }
        assert!(!frame.graph, "two sublayers are two runs");
        assert_eq!((timeless(a), timeless(b)), (timeless(&frame), timeless(&frame)));
    }
}

#[test]
fn stepping_by_sublayers_ends_in_the_same_frame() {
    let (_folder, model, prompt) = family("gemma2_softcap");
    let mut core = on_device(&model, &["full", "tova@50%", "int8"]);
    core.read_prompt(&prompt, |_, _| Pause::Continue).unwrap();
    let whole = timeless(&core.step().unwrap());
    core.rewind(0).unwrap();
    let mut frame = core.advance(1).unwrap();
    while let Some(done) = frame.partial {
        let lane = &frame.lanes[0];
        let at = lane.residual.at(done as usize, 0);
        assert!(lane.residual.l2[at] > 0.0, "{done} sublayers have their statistics");
        frame = core.advance(1).unwrap();
    }
    assert_eq!(timeless(&frame), whole);
}

#[test]
fn maps_are_the_cpus_at_any_zoom() {
    let (_folder, model, prompt) = family("mistral_window");
    let (mut device, mut cpu) = (on_device(&model, &["full"]), golden::core(&model, Precision::F32, &["full"]));
    for core in [&mut device, &mut cpu] {
        core.read_prompt(&prompt, |_, _| Pause::Continue).unwrap();
        core.step().unwrap();
    }
    for (height, width, fold) in [(76, 76, Fold::Sum), (20, 31, Fold::Max), (7, 5, Fold::Mean)] {
        let query = Query::Tile { layer: 1, head: 3, rows: (0, 76), cols: (0, 76), height, width, fold };
        let pixels = |core: &mut Core| match core.answer(&query) {
            Answer::Tile { values, .. } => values.to_vec(),
            other => panic!("{other:?}"),
        };
        let (found, expected) = (pixels(&mut device), pixels(&mut cpu));
        assert!(far(&found, &expected, 0.01) <= NEAR, "{fold:?} {:e}", far(&found, &expected, 0.01));
    }
}
