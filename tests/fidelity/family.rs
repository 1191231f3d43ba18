//! A tiny random model of a family, from a Hugging Face folder, against reference data.

use std::io::Read;
use std::path::Path;

use attnscope::engine::{Core, Pause};
use attnscope::model::source::Model;

use crate::golden::*;

/// Makes a family's folder: unpacked from its archive, or copied where the golden data holds the folder itself.
/// The archive has the weights byte plane by byte plane, which compresses; undone here.
pub fn unpack(family: &str, to: &Path) -> Tensors {
    let folder = dir().join("tiny").join(family);
    if folder.is_dir() {
        for name in ["config.json", "model.safetensors"] {
            std::fs::copy(folder.join(name), to.join(name)).unwrap();
        }
        return Tensors::open(&folder.join("golden.safetensors"));
    }
    let file = std::fs::File::open(dir().join("tiny").join(format!("{family}.zip"))).unwrap();
    let mut archive = zip::ZipArchive::new(file).unwrap();
    let mut read = |name: &str| {
        let mut bytes = Vec::new();
        archive.by_name(name).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    let planes = read("model.safetensors.planes");
    let quarter = planes.len() / 4;
    let bytes: Vec<u8> = (0..planes.len()).map(|i| planes[i % 4 * quarter + i / 4]).collect();
    std::fs::write(to.join("model.safetensors"), trimmed(&bytes)).unwrap();
    std::fs::write(to.join("config.json"), read("config.json")).unwrap();
    Tensors::of(read("golden.safetensors"))
}

/// Without the zeros that filled the last plane: header length, header and data say where the file ends.
fn trimmed(bytes: &[u8]) -> &[u8] {
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let value: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let ends = value.as_object().unwrap().values().filter_map(|t| t["data_offsets"][1].as_u64());
    &bytes[..8 + header + ends.max().unwrap() as usize]
}

/// That the engine that `open` makes of the model gives the family's numbers.
pub fn equals(family: &str, open: impl FnOnce(&Model) -> Core) {
    let folder = tempfile::tempdir().unwrap();
    let golden = unpack(family, folder.path());
    let model = Model::open(folder.path()).unwrap();
    let mut core = open(&model);
    let prompt: Vec<u32> = golden.ints("ids").into_iter().map(|id| id as u32).collect();
    let (n, vocab) = (prompt.len(), core.config().vocab);
    let frame = core.read_prompt(&prompt, |_, _| Pause::Continue).unwrap().unwrap();

    let rows = if golden.has("rows") { golden.ints("rows") } else { (0..n).collect() };
    let logits: Vec<f32> = rows.iter().flat_map(|&r| core.prompt_logits(r..r + 1).unwrap().to_vec()).collect();
    let far = worst(logits.clone(), &golden.f32("logits"), 1.0);
    assert!(far <= 2e-4, "{family} logits: {far:e}");
    assert_eq!(logits.len(), rows.len() * vocab);

    let (layers, heads) = (core.config().layers.len(), core.config().heads);
    let mut maps = Vec::new();
    for i in 0..layers * heads {
        for &row in &rows {
            maps.extend(core.attention_rows(i / heads, i % heads, row as u32..row as u32 + 1).unwrap());
        }
    }
    let far = worst(maps, &golden.f32("attn"), 1.0);
    assert!(far <= 2e-5, "{family} attention: {far:e}");

    // Row 74 is the prompt's last: its residual norm after each layer is in the frame.
    let hidden = golden.f32("hidden");
    let width = core.config().hidden;
    for layer in 0..layers {
        let last = rows.iter().position(|r| *r == n - 1).unwrap();
        let theirs = &hidden[(layer * rows.len() + last) * width..][..width];
        let l2 = theirs.iter().map(|x| x * x).sum::<f32>().sqrt();
        let ours = frame.lanes[0].residual.l2[frame.lanes[0].residual.at(2 * layer, n - 1)];
        assert!((ours - l2).abs() <= 1e-5 * l2, "{family} residual at layer {layer}: {ours} {l2}");
    }

    let mut text = vec![frame.lanes[0].next.unwrap()];
    while text.len() < 16 {
        text.push(core.step().unwrap().lanes[0].next.unwrap());
    }
    assert_eq!(text, golden.ints("greedy16").into_iter().map(|id| id as u32).collect::<Vec<_>>(), "{family}");
}
