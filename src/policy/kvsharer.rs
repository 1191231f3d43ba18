//! KVSharer: layers with the most unlike caches share one (Yang et al. 2024, arXiv 2410.18517).
//!
//! Calibrated here: `pieces` × `length` tokens of text (of the prompt where it is long enough) are read, keys and values
//! averaged over the pieces, pairs of layers ranked by their Euclidean distance, the most dissimilar first. Then greedily:
//! the higher layer of a pair reads the lower one's cache (and so does whoever read it); it stays so where the final
//! hidden states keep a cosine above `threshold` with those of the unchanged model, mean over pieces; until `layers` share.
//! Counter-intuitive, so `order=similar` is there as a contrast. Sharing holds while the prompt is read, too.
//! As in the authors' code: distances are means over heads and positions of vector lengths, hidden states are flattened
//! per piece. Only layers of one kind (window, rotation) can share.

use linkme::distributed_slice;

use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Choice, Count, Key, Real};
use super::part::Part;
use super::registry::REGISTERED;
use super::sharing::{Lab, PieceRead, Shared, Sharing, Tried, What};
use crate::cache::Wiring;
use crate::probe::kv_distance::{MeanCaches, Order, ranked};

static LAYERS: Key<Count> = Key::new("layers", "layers that give up their cache", Count(0, 1000), 4);
static THRESHOLD: Key<Real> =
    Key::new("threshold", "cosine of final hidden states that a swap must leave", Real(-1.0, 1.0), 0.5);
static ORDER: Key<Choice<Order>> = Key::new(
    "order",
    "which pairs of layers are tried first",
    Choice(&[("dissimilar", Order::Dissimilar), ("similar", Order::Similar)]),
    Order::Dissimilar,
);
static PIECES: Key<Count> = Key::new("pieces", "calibration texts", Count(1, 1000), 30);
static LENGTH: Key<Count> = Key::new("length", "tokens in each", Count(2, 512), 64);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "kvsharer",
    family: Family::Sharing,
    idea: "layers with the most unlike caches share one, where the output stays alike (calibrated here)",
    paper: Some(Paper {
        title: "KVSharer: Efficient Inference via Layer-Wise Dissimilar KV Cache Sharing",
        arxiv: "2410.18517",
    }),
    budget: None,
    keys: &[&LAYERS, &THRESHOLD, &ORDER, &PIECES, &LENGTH],
    build: |spec| {
        Part::sharing(KvSharer {
            layers: spec.get(&LAYERS) as usize,
            threshold: spec.get(&THRESHOLD),
            order: spec.get(&ORDER),
            pieces: spec.get(&PIECES) as usize,
            length: spec.get(&LENGTH) as usize,
        })
    },
};

struct KvSharer {
    layers: usize,
    threshold: f64,
    order: Order,
    pieces: usize,
    length: usize,
}

impl Sharing for KvSharer {
    fn wire(&self, lab: &mut dyn Lab) -> Result<Shared, String> {
        let pieces = lab.pieces(self.pieces, self.length);
        let mut wiring = Wiring::own(lab.layers());
        let (mut caches, mut reference) = (MeanCaches::new(lab.layers()), Vec::new());
        let given_up = || "its calibration was given up".to_owned();
        let mut note = |read: PieceRead<'_>| {
            caches.add(read.kv);
            reference.push(read.hidden.to_vec());
        };
        if !lab.read(&pieces, &wiring, &mut note) {
            return Err(given_up());
        }
        let mut tried = Vec::new();
        let mut shared = 0;
        for (from, layer, distance) in ranked(&caches.distances(lab.head_dim()), self.order) {
            if shared >= self.layers {
                break;
            }
            let mut next = wiring.clone();
            if !lab.alike(from, layer) || !wiring.is_own(layer) || next.redirect(layer, wiring.keys(from)).is_err() {
                continue;
            }
            let (mut sum, mut at) = (0.0, 0);
            let mut compare = |read: PieceRead<'_>| {
                sum += cosine(&reference[at], read.hidden);
                at += 1;
            };
            if !lab.read(&pieces, &next, &mut compare) {
                return Err(given_up());
            }
            let cosine = sum / at.max(1) as f64;
            let kept = cosine > self.threshold;
            if kept {
                (wiring, shared) = (next, shared + 1);
            }
            let (distance, cosine) = (Some(distance), Some(cosine as f32));
            tried.push(Tried { distance, cosine, kept, ..Tried::new(layer, from, What::Kv) });
        }
        Ok(Shared { wiring, tried, pieces: pieces.len(), note: "calibrated on short pieces of text, not trained" })
    }
}

/// 0 where one of the two is nothing.
fn cosine(x: &[f32], y: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| *a as f64 * *b as f64).sum::<f64>();
    let norms = (dot(x, x) * dot(y, y)).sqrt();
    if norms > 0.0 { dot(x, y) / norms } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::probe::map_similarity::LayerSimilarity;

    /// Layers whose caches lie at known places on a line; every shared layer turns the output by 30°, layer 3 by 80°.
    struct Line;

    const PLACES: [f32; 5] = [0.0, 1.0, 5.0, 9.0, 2.0];

    impl Lab for Line {
        fn layers(&self) -> usize {
            PLACES.len()
        }
        fn head_dim(&self) -> usize {
            1
        }
        fn alike(&self, a: usize, b: usize) -> bool {
            (a, b) != (0, 2)
        }
        fn pieces(&mut self, count: usize, length: usize) -> Vec<Vec<u32>> {
            vec![vec![0; length]; count]
        }
        fn read(&mut self, pieces: &[Vec<u32>], wiring: &Wiring, each: &mut dyn FnMut(PieceRead<'_>)) -> bool {
            let turn = |layer: usize| if layer == 3 { 80f32 } else { 30.0 };
            let angle = wiring.readers().map(turn).sum::<f32>().to_radians();
            for _ in pieces {
                let kv = |layer: usize| (vec![PLACES[layer]], vec![PLACES[layer]]);
                each(PieceRead { hidden: &[angle.cos(), angle.sin()], kv: &kv });
            }
            true
        }
        fn similarity(&mut self, _: usize) -> Option<LayerSimilarity> {
            None
        }
    }

    fn wire(spec: &str) -> Shared {
        Policy::parse(spec).unwrap().sharing().unwrap().wire(&mut Line).unwrap()
    }

    #[test]
    fn the_most_unlike_pairs_come_first_and_stay_where_the_output_does() {
        let shared = wire("kvsharer:layers=2,threshold=0.4,pieces=2,length=4");
        let plain = |t: &Tried| (t.layer, t.from, t.distance.unwrap(), t.kept);
        // cos 80° is too low, twice; layers 0 and 2 are of two kinds; cos 30° and cos 60° are above 0.4
        let tried: Vec<_> = shared.tried.iter().map(plain).collect();
        assert_eq!(tried, [(3, 0, 9.0, false), (3, 1, 8.0, false), (4, 3, 7.0, true), (2, 1, 4.0, true)]);
        assert_eq!((shared.pieces, format!("{:?}", shared.wiring).as_str()), (2, "2>1/4>3"));
    }

    #[test]
    fn the_contrast_starts_with_the_most_alike() {
        let shared = wire("kvsharer:layers=1,order=similar,pieces=1,length=4");
        assert_eq!((shared.tried[0].layer, shared.tried[0].from), (1, 0));
        assert!((shared.tried[0].cosine.unwrap() - 30f32.to_radians().cos()).abs() < 1e-6);
        assert_eq!(format!("{:?}", shared.wiring), "1>0");
        assert!(wire("kvsharer:layers=0,pieces=1,length=4").tried.is_empty());
    }

    #[test]
    fn readers_pass_on_whom_they_read() {
        // 1 reads 0, so 4 with 1 is 4 with 0
        let shared = wire("kvsharer:layers=2,order=similar,threshold=0.1,pieces=1,length=4");
        assert_eq!(format!("{:?}", shared.wiring), "1>0/4>0");
    }
}
