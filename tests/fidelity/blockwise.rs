//! Reading a prompt over a cache that is cut on the way.

use attnscope::engine::{Core, Pause, Precision};
use attnscope::probe::distribution::kl;

use crate::common::real_model;
use crate::golden::*;

const BLOCK: usize = 32;
const BUDGET: usize = 60;

fn kept(core: &Core, lane: usize) -> Vec<Vec<u32>> {
    let kept = &core.lanes()[lane].kept;
    (0..kept.layers).flat_map(|l| (0..kept.kv_heads).map(move |g| (l, g))).map(|(l, g)| kept.list(l, g)).collect()
}

fn read(core: &mut Core, ids: &[u32]) {
    core.read_prompt(ids, |_, _| Pause::Continue).unwrap().unwrap();
}

/// The same by another way: the first block as a prompt, the rest fed token by token, cut every 32 steps.
#[test]
fn reading_in_blocks_is_feeding_token_by_token_and_cutting_now_and_then() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let ids = ids(&json(&dir().join("smollm2/d2_code.forward.json"))["token_ids"]);
    for scorer in ["knorm", "keydiff", "streaming", "tova"] {
        let mut blocks = core(&model, Precision::F32, &["full", &format!("blockwise:size={BLOCK}+{scorer}@{BUDGET}")]);
        read(&mut blocks, &ids);
        let mut steps = core(&model, Precision::F32, &["full", &format!("decoding:every={BLOCK}+{scorer}@{BUDGET}")]);
        read(&mut steps, &ids[..BLOCK]);
        for &id in &ids[BLOCK..] {
            steps.force(1, id).unwrap();
            steps.force(0, id).unwrap();
            steps.step().unwrap();
        }
        // the prompt's end is no whole block: there blocks are cut once more
        let whole = ids.len() / BLOCK * BLOCK;
        let mut short = core(&model, Precision::F32, &["full", &format!("blockwise:size={BLOCK}+{scorer}@{BUDGET}")]);
        read(&mut short, &ids[..whole]);
        steps.rewind((whole - BLOCK) as u32).unwrap();
        assert_eq!(kept(&short, 1), kept(&steps, 1), "{scorer}");
        let far = kl(short.lanes()[1].outlook.logits().unwrap(), steps.lanes()[1].outlook.logits().unwrap());
        assert!(far < 1e-6, "{scorer}: {far}");
        assert!(kept(&blocks, 1).iter().all(|kept| kept.len() == BUDGET), "{scorer}");
        // what left early changed what came later
        let own = kl(blocks.lanes()[0].outlook.logits().unwrap(), blocks.lanes()[1].outlook.logits().unwrap());
        assert!(own > 1e-4, "{scorer}: {own}");
    }
}

#[test]
fn with_room_for_everything_it_is_full_and_back_in_time_is_exact() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let ids = ids(&json(&dir().join("smollm2/d2_code.forward.json"))["token_ids"]);
    let mut core =
        core(&model, Precision::Native, &["full", "blockwise:size=256+snapkv@100%", "blockwise:size=50+snapkv@40%"]);
    read(&mut core, &ids);
    let run = |core: &mut Core| (0..4).map(|_| format!("{:?}", core.step().unwrap().lanes)).collect::<Vec<_>>();
    assert_eq!(core.lanes()[0].outlook.logits().unwrap(), core.lanes()[1].outlook.logits().unwrap());
    let frames = run(&mut core);
    core.rewind(0).unwrap();
    assert_eq!(run(&mut core), frames);
}
