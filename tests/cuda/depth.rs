//! Models that mix depth on a device: weights, contributions and streams are those of the CPU.

use attnscope::engine::frame::LaneFrame;
use attnscope::engine::{Core, Pause, Precision};
use attnscope::model::embedded;
use attnscope::model::source::Model;
use safetensors::{Dtype, serialize_to_file, tensor::TensorView};

use crate::frames::{NEAR, far, on_device_with, same};
use crate::golden;

fn twin(name: &str) -> Model {
    Model::open(&embedded::find(name).unwrap().path()).unwrap()
}

fn same_depth(device: &LaneFrame, cpu: &LaneFrame) {
    same(device, cpu, NEAR);
    let (a, b) = (device.depth.as_ref().unwrap(), cpu.depth.as_ref().unwrap());
    assert_eq!(a.counts, b.counts);
    // weights are between 0 and 1, contributions mostly
    let apart = far(&a.weight, &b.weight, 1.0).max(far(&a.share, &b.share, 1.0));
    assert!(apart <= NEAR, "depth: {apart:e}");
    let apart = far(&device.stream.rms, &cpu.stream.rms, 1e-3);
    assert!(apart <= NEAR && device.stream.points == cpu.stream.points, "stream: {apart:e}");
}

fn agree(device: &mut Core, cpu: &mut Core) {
    let prompt: Vec<u32> = (0..21u32).map(|i| 1 + i * 37 % 900).collect();
    let read = |core: &mut Core| core.read_prompt(&prompt, |_, _| Pause::Continue).unwrap().unwrap();
    let (a, b) = (read(device), read(cpu));
    a.lanes.iter().zip(&b.lanes).for_each(|(a, b)| same_depth(a, b));
    for step in 0..3 {
        if step == 1 {
            let (a, b) = (device.advance(7).unwrap(), cpu.advance(7).unwrap());
            assert_eq!(a.lanes[0].depth.as_ref().unwrap().counts.len(), 8);
            a.lanes.iter().zip(&b.lanes).for_each(|(a, b)| same_depth(a, b));
        }
        let (a, b) = (device.step().unwrap(), cpu.step().unwrap());
        a.lanes.iter().zip(&b.lanes).for_each(|(a, b)| same_depth(a, b));
    }
}

#[test]
fn blocks_in_two_phases() {
    let model = twin("twin-attnres");
    let lanes = ["full", "streaming@50%"];
    agree(&mut on_device_with(&model, &lanes, None), &mut golden::core(&model, Precision::F32, &lanes));
}

#[test]
fn depth_learned_on_a_plain_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("learned.safetensors");
    let (targets, hidden) = (25, 192);
    let bytes: Vec<u8> =
        (0..targets * hidden).flat_map(|i| ((i * 7919 % 401) as f32 / 1e4 - 0.02).to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![targets, hidden], &bytes).unwrap();
    let metadata = [("format".to_string(), "attnscope-depth-adapter".to_string())].into();
    serialize_to_file([("depth.query", view)], Some(metadata), &path).unwrap();
    let model = twin("twin-plain");
    let mut cpu = golden::core_with(&model, Precision::F32, &["full"], Some(path.clone()));
    agree(&mut on_device_with(&model, &["full"], Some(path)), &mut cpu);
}
