//! Kept sets of kvpress' wrappers on the same prompt as `kvpress_tests`, for the layers whose attention is in the file.

use safetensors::SafeTensors;

use super::Policy;
use super::kvpress_tests::{file, layer};
use super::part::{Ahead, LaneView, LayerView, Moment, Start, Text};
use super::testing::{Layer, Letters};

/// The layers of a model that the file holds; policies leave the others alone.
struct Shown {
    layers: Vec<(usize, Layer)>,
}

impl LaneView for Shown {
    fn layer(&self, layer: usize, look: &mut dyn FnMut(&dyn LayerView)) -> bool {
        let found = self.layers.iter().find(|(number, _)| *number == layer);
        found.inspect(|(_, layer)| look(layer)).is_some()
    }
    fn tokens(&self) -> &[u32] {
        unreachable!("none of these policies asks")
    }
    fn context(&self) -> usize {
        0
    }
    fn text(&self) -> &dyn Text {
        &Letters
    }
    fn next(&self) -> u32 {
        unreachable!("none of these policies asks")
    }
    fn cosines(&self) -> &[f32] {
        &[]
    }
    fn ahead(&self, _: Start<'_>, _: &mut dyn FnMut(&mut dyn Ahead)) {
        unreachable!("none of these policies asks")
    }
}

/// Bit t of a mask: position t stays, by layer and kv head.
fn check(model: &str, of: usize, numbers: &[usize], prompt: usize, runs: &[(&str, &[&[u64]])]) {
    let tensors = file(model, "policies.safetensors");
    let tensors = SafeTensors::deserialize(&tensors).unwrap();
    let layers = numbers.iter().enumerate().map(|(i, &number)| (number, layer(&tensors, i, prompt, 1e4))).collect();
    let lane = Shown { layers };
    let at = Moment { step: 0, prompt, layers: of, layer: 0 };
    for (spec, expected) in runs {
        let decisions = Policy::parse(spec).unwrap().decide(0, at, &lane);
        for (number, expected) in numbers.iter().zip(*expected) {
            let all = vec![(0..prompt as u32).collect(); expected.len()];
            let kept = decisions[*number].as_ref().map_or(all, |decision| decision.kept.clone());
            let masks: Vec<u64> = kept.iter().map(|kept| kept.iter().map(|t| 1 << t).sum()).collect();
            assert_eq!(&masks, expected, "{model} {spec} layer {number}: {masks:x?} is not {expected:x?}");
        }
    }
}

#[test]
fn smollm2() {
    // kvpress drops two of the last eight, which are all forced and hence equal, by chance: it keeps 25 to 28 of them
    // (0xde…); here the newest of the chunk stay, 26 to 29 (0xfc…)
    check(
        "smollm2",
        30,
        &[0, 9],
        32,
        &[
            (
                "adakv+snapkv@75%:window=8",
                &[&[0xff7ffefe, 0xffff8018, 0xfffffc88], &[0xff3ff7ff, 0xffff00ff, 0xff3800ff]],
            ),
            (
                "adakv+snapkv@50%:window=8",
                &[&[0xff7fc008, 0xff3e0000, 0xff7fc000], &[0xff0000ff, 0xff0000ff, 0xff0000ff]],
            ),
            (
                "pyramid+snapkv@75%:window=8",
                &[&[0xff7ff8ac, 0xffff987c, 0xfffffc88], &[0xff3f03ff, 0xffff00ff, 0xffff00ff]],
            ),
            ("chunkkv+snapkv@50%:window=8", &[&[0xfff00000; 3], &[0xfff00000; 3]]),
            ("entropychunkkv+snapkv@75%:window=8", &[&[0xfc0ffefe; 3], &[0xfc0ff3ff; 3]]),
            ("entropychunkkv+snapkv@50%:window=8", &[&[0xfc0ffc00; 3], &[0xfc0003ff; 3]]),
            ("entropychunkkv+snapkv@25%:window=8", &[&[0xfc0c0000; 3], &[0xfc000088; 3]]),
            ("simlayer:threshold=0.5,recent=8", &[&[0xffffffff; 3], &[0xffffffff; 3]]),
        ],
    );
}

#[test]
fn gemma3() {
    check(
        "gemma3",
        18,
        &[5, 11, 17],
        33,
        &[
            ("adakv+snapkv@50%:window=8", &[&[0x1fe000f0f], &[0x1ffe00207], &[0x1fe401e07]]),
            ("pyramid+snapkv@75%:window=8", &[&[0x1fe40ffff], &[0x1fff03f6f], &[0x1ffc03f7f]]),
            ("pyramid+snapkv@50%:window=8", &[&[0x1fe001fef], &[0x1ffc00007], &[0x1fe000000]]),
            ("chunkkv+snapkv@50%:window=8", &[&[0x1fff00000], &[0x1fff00000], &[0x1fff00000]]),
            ("entropychunkkv+snapkv@75%:window=8", &[&[0x1fff1fe07], &[0x1fff8fe07], &[0x1fff1fe07]]),
            ("entropychunkkv+snapkv@50%:window=8", &[&[0x1fff00007], &[0x1fff00007], &[0x1fff00007]]),
            ("simlayer:threshold=0.5,recent=8", &[&[0x1fc00000f], &[0x1fc00000f], &[0x1fc00000f]]),
            ("simlayer:threshold=0.75,recent=8", &[&[0x1fc00000f], &[0x1ffffffff], &[0x1ffffffff]]),
        ],
    );
}
