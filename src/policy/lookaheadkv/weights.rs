//! Soft tokens and their low-rank changes, from a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::backend::LowRank;
use crate::model::soft::{LayerChange, Place, SoftTokens};
use crate::policy::error::printable;
use crate::policy::part::Sizes;
use crate::policy::tensor_file::{Tensors, Weights};

const EMBEDDINGS: &str = "lookahead.embeddings";

pub struct Lookahead {
    path: PathBuf,
    hidden: usize,
    pub soft: SoftTokens,
}

const fn module(place: Place) -> &'static str {
    match place {
        Place::Q => "self_attn.q_proj",
        Place::K => "self_attn.k_proj",
        Place::V => "self_attn.v_proj",
        Place::O => "self_attn.o_proj",
        Place::Gate => "mlp.gate_proj",
        Place::Up => "mlp.up_proj",
        Place::Down => "mlp.down_proj",
    }
}

/// Inputs and outputs of a linear weight.
fn shape(place: Place, model: Sizes) -> (usize, usize) {
    let (queries, keys) = (model.heads * model.head_dim, model.kv_heads * model.head_dim);
    match place {
        Place::Q => (model.hidden, queries),
        Place::K | Place::V => (model.hidden, keys),
        Place::O => (queries, model.hidden),
        Place::Gate | Place::Up => (model.hidden, model.ff),
        Place::Down => (model.ff, model.hidden),
    }
}

/// Layer, place in [`Place::ALL`], and whether it is A, of a LoRA tensor's name.
fn parsed(name: &str) -> Option<(usize, usize, bool)> {
    let (before, rest) = name.split_once("layers.")?;
    let (layer, rest) = rest.split_once('.')?;
    let (which, is_a) = match rest.split_once(".lora_A") {
        Some(parts) => (parts, true),
        None => (rest.split_once(".lora_B")?, false),
    };
    let place = Place::ALL.iter().position(|place| module(*place) == which.0)?;
    let known = (before.is_empty() || before.ends_with('.')) && [".weight", ".default.weight"].contains(&which.1);
    layer.parse().ok().filter(|_| known).map(|layer| (layer, place, is_a))
}

impl Lookahead {
    /// Fails with a sentence about the file, which it does not name.
    pub fn read(path: &Path) -> Result<Self, String> {
        let weights = Weights::open(path)?;
        let tensors = weights.tensors()?;
        let (count, hidden, embeddings) = tensors.matrix(EMBEDDINGS)?;
        let mut pairs: BTreeMap<(usize, usize), [Option<String>; 2]> = BTreeMap::new();
        for name in tensors.names() {
            match parsed(name) {
                Some((layer, place, is_a)) => {
                    let twice = pairs.entry((layer, place)).or_default()[is_a as usize].replace(name.into());
                    if twice.is_some() {
                        return Err(format!("`{}` is there under two names", printable(name)));
                    }
                }
                None if name == EMBEDDINGS => {}
                None => return Err(format!("`{}` is no tensor of soft tokens or LoRA", printable(name))),
            }
        }
        let layers = pairs.keys().next_back().map_or(0, |(layer, _)| layer.saturating_add(1));
        let places: Vec<usize> = pairs.keys().filter(|(layer, _)| *layer == 0).map(|(_, place)| *place).collect();
        // also what keeps a layer number from asking for memory
        if layers.checked_mul(places.len()) != Some(pairs.len())
            || pairs.keys().any(|(_, place)| !places.contains(place))
        {
            return Err("not all layers have LoRA pairs for the same modules".into());
        }
        let mut changes = vec![LayerChange::default(); layers];
        for ((layer, place), names) in pairs {
            let place = Place::ALL[place];
            let [Some(b), Some(a)] = names else {
                return Err(format!("layer {layer} has only one of lora_A and lora_B of `{}`", module(place)));
            };
            changes[layer].set(place, pair(&tensors, &a, &b)?);
        }
        Ok(Self { path: path.into(), hidden, soft: SoftTokens { count, embeddings, changes } })
    }

    /// Fails with the reason where they were made for another model.
    pub fn fits(&self, model: Sizes) -> Result<(), String> {
        let path = self.path.display();
        if self.hidden != model.hidden {
            return Err(format!(
                "{path} has soft tokens for a width of {}, the model's is {}",
                self.hidden, model.hidden
            ));
        }
        let layers = self.soft.changes.len();
        if layers != 0 && layers != model.layers {
            return Err(format!("{path} has LoRA pairs for {layers} layers, the model has {}", model.layers));
        }
        for (layer, change) in self.soft.changes.iter().enumerate() {
            for (place, change) in Place::ALL.iter().filter_map(|&place| Some((place, change.at(place)?))) {
                let found = (change.down.len() / change.rank, change.up.len() / change.rank);
                let wanted = shape(place, model);
                if found != wanted {
                    return Err(format!(
                        "{path} has a LoRA pair from {} to {} for `{}` of layer {layer}, the model's is from {} to {}",
                        found.0,
                        found.1,
                        module(place),
                        wanted.0,
                        wanted.1
                    ));
                }
            }
        }
        Ok(())
    }
}

fn pair(tensors: &Tensors<'_>, a: &str, b: &str) -> Result<LowRank, String> {
    let alpha = tensors.note("lora_alpha").and_then(|alpha| alpha.parse::<f32>().ok()).filter(|x| x.is_finite());
    let Some(alpha) = alpha else {
        return Err("its metadata have no number `lora_alpha`: save_file(…, metadata={\"lora_alpha\": \"32\"})".into());
    };
    let (rank, _, down) = tensors.matrix(a)?;
    let (outputs, inner, up) = tensors.matrix(b)?;
    match inner == rank {
        true => Ok(LowRank { rank, down, up, scale: alpha / rank as f32 }),
        false => Err(format!("`{}` has shape [{outputs}, {inner}], but lora_A is of rank {rank}", printable(b))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tensor_file::tests::file;

    const MODEL: Sizes = Sizes { layers: 2, heads: 2, kv_heads: 1, head_dim: 2, hidden: 3, ff: 5 };

    type Named = Vec<(String, Vec<usize>, Vec<f32>)>;

    /// Rank 2, for all seven modules of two layers.
    fn whole() -> Named {
        let mut all: Named = vec![(EMBEDDINGS.into(), vec![4, 3], vec![0.25; 12])];
        for (layer, place) in (0..2).flat_map(|layer| Place::ALL.map(|place| (layer, place))) {
            let (inputs, outputs) = shape(place, MODEL);
            let name = |ab: &str| format!("base_model.model.model.layers.{layer}.{}.lora_{ab}.weight", module(place));
            all.push((name("A"), vec![2, inputs], vec![1.0; 2 * inputs]));
            all.push((name("B"), vec![outputs, 2], vec![2.0; 2 * outputs]));
        }
        all
    }

    fn read(tensors: &Named, notes: &[(&str, &str)]) -> Result<Lookahead, String> {
        let all: Vec<(&str, &[usize], &[f32])> = tensors.iter().map(|(n, s, v)| (&**n, &**s, &**v)).collect();
        Lookahead::read(file(&all, notes).path())
    }

    #[test]
    fn pairs_are_read_as_peft_writes_them() {
        let lookahead = read(&whole(), &[("lora_alpha", "32")]).unwrap();
        assert_eq!(lookahead.fits(MODEL), Ok(()));
        assert_eq!((lookahead.soft.count, lookahead.soft.embeddings.len()), (4, 12));
        let down = lookahead.soft.changes[1].at(Place::Down).unwrap();
        assert_eq!((down.rank, down.scale, down.down.len(), down.up.len()), (2, 16.0, 10, 6));
        let others = [
            Sizes { hidden: 4, ..MODEL },
            Sizes { layers: 3, ..MODEL },
            Sizes { heads: 4, ..MODEL },
            Sizes { kv_heads: 2, ..MODEL },
            Sizes { ff: 6, ..MODEL },
        ];
        assert!(others.iter().all(|other| lookahead.fits(*other).is_err()));
        // P alone; and only some modules, under the names of a model's own state dict
        assert_eq!(read(&whole()[..1].to_vec(), &[]).unwrap().fits(MODEL), Ok(()));
        let some: Named = (whole().into_iter())
            .filter(|(name, ..)| name == EMBEDDINGS || name.contains("v_proj"))
            .map(|(name, shape, x)| {
                (name.replace("base_model.model.model.", "").replace("A.w", "A.default.w"), shape, x)
            })
            .collect();
        let lookahead = read(&some, &[("lora_alpha", "4")]).unwrap();
        assert!(lookahead.fits(MODEL).is_ok() && lookahead.soft.changes[0].at(Place::Q).is_none());
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let wrong = |change: &dyn Fn(&mut Named)| {
            let mut tensors = whole();
            change(&mut tensors);
            read(&tensors, &[("lora_alpha", "32")]).err().unwrap()
        };
        assert!(wrong(&|t| drop(t.remove(0))).contains("no tensor `lookahead.embeddings`"));
        assert!(wrong(&|t| drop(t.pop())).contains("layer 1 has only one of lora_A and lora_B of `mlp.down_proj`"));
        assert!(wrong(&|t| t.truncate(27)).contains("not all layers"));
        assert!(
            wrong(&|t| t[3].0 = t[3].0.replace("layers.0", "layers.18446744073709551615")).contains("not all layers")
        );
        assert!(
            wrong(&|t| t[1].0 = "lm_head.lora_A\x1b.weight".into()).contains("`lm_head.lora_A?.weight` is no tensor")
        );
        assert!(wrong(&|t| (t[2].1, t[2].2) = (vec![4, 1], vec![0.0; 4])).contains("is of rank 2"));
        assert!(wrong(&|t| t[5].2[0] = f32::INFINITY).contains("not finite"));
        assert!(read(&whole(), &[]).err().unwrap().contains("`lora_alpha`"));
    }
}
