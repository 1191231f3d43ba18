//! What targets and sources of depth are called.

use crate::engine::message::{DepthInfo, DepthSources};

/// `L3 attention`, `L3 MLP`, `output`.
pub fn target(target: usize, targets: usize) -> String {
    match target {
        t if t + 1 == targets => "output".into(),
        t if t % 2 == 0 => format!("L{} attention", t / 2),
        t => format!("L{} MLP", t / 2),
    }
}

/// `out`, `L3a`, `L3m`.
pub fn target_short(target: usize, targets: usize) -> String {
    match target {
        t if t + 1 == targets => "out".into(),
        t => format!("L{}{}", t / 2, if t % 2 == 0 { "a" } else { "m" }),
    }
}

fn numbered(n: usize, info: &DepthInfo, short: bool) -> String {
    match (info.sources, n, short) {
        (_, 0, true) => "emb".into(),
        (_, 0, false) => "embedding".into(),
        (DepthSources::Sublayers, n, true) => target_short(n - 1, usize::MAX),
        (DepthSources::Sublayers, n, false) => target(n - 1, usize::MAX),
        (DepthSources::Blocks, n, true) => format!("b{n}"),
        (DepthSources::Blocks, n, false) => format!("block {n}"),
        (DepthSources::Snapshots, n, true) => format!("s{n}"),
        (DepthSources::Snapshots, n, false) => format!("snapshot {n}"),
        (DepthSources::Differences, n, true) => format!("Δ{n}"),
        (DepthSources::Differences, n, false) => format!("difference {n}"),
    }
}

/// Of source `source` of a target that has `count`.
pub fn source(source: usize, count: usize, info: &DepthInfo, short: bool) -> String {
    // the running stream is the last source, counted or mixed
    let streams = info.over_stream || info.sources == DepthSources::Snapshots;
    if streams && source + 1 == count {
        return "stream".into();
    }
    match source.checked_sub(usize::from(info.null)) {
        None => if short { "null" } else { "null source" }.into(),
        Some(n) => numbered(n, info, short),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(sources: DepthSources, null: bool, over_stream: bool) -> DepthInfo {
        DepthInfo { residual: String::new(), sources, null, over_stream, edges: Vec::new() }
    }

    #[test]
    fn every_kind_of_source_has_its_name() {
        let plain = info(DepthSources::Sublayers, false, false);
        let names: Vec<String> = (0..4).map(|i| source(i, 4, &plain, true)).collect();
        assert_eq!(names, ["emb", "L0a", "L0m", "L1a"]);
        assert_eq!(source(2, 3, &plain, false), "L0 MLP");
        assert_eq!(source(1, 2, &info(DepthSources::Blocks, false, false), false), "block 1");
        let delta = info(DepthSources::Sublayers, true, true);
        let names: Vec<String> = (0..4).map(|i| source(i, 4, &delta, true)).collect();
        assert_eq!(names, ["null", "emb", "L0a", "stream"]);
        assert_eq!(source(2, 3, &info(DepthSources::Snapshots, false, false), true), "stream");
        assert_eq!((target(24, 25), target_short(23, 25)), ("output".into(), "L11m".into()));
    }
}
