//! Trying out layer sharing before a lane reads its prompt: on pieces of text, and on lane 0's maps.

use super::core::{Core, Pause};
use super::error::{EngineError, Result};
use super::message::Probes;
use super::pieces;
use crate::backend::{Backend, CacheId, Row};
use crate::cache::Wiring;
use crate::policy::Policy;
use crate::policy::sharing::{Lab, PieceRead, Shared};
use crate::probe::kv_distance::MeanCaches;
use crate::probe::map_similarity::LayerSimilarity;

/// Called now and then; may give up.
type Between<'a> = &'a mut dyn FnMut(&mut Core, usize) -> Pause;

struct Trials<'a, 'b> {
    core: &'a mut Core,
    between: Between<'b>,
    /// Emptied before each use.
    caches: Vec<CacheId>,
    failure: Option<EngineError>,
    stopped: bool,
}

impl Core {
    /// How `policy` wires the layers for this prompt; `None` where it was given up. What the last pass left in the
    /// backend is gone.
    pub(super) fn wire(&mut self, policy: &Policy, between: Between<'_>) -> Result<Option<Shared>> {
        let Some(sharing) = policy.sharing() else { return Ok(None) };
        let mut trials = Trials { core: self, between, caches: Vec::new(), failure: None, stopped: false };
        let shared = sharing.wire(&mut trials);
        if trials.end()? {
            return Ok(None);
        }
        let misfit = |why| EngineError::Wiring { spec: policy.spec().to_string(), why };
        shared.map(Some).map_err(misfit)
    }

    /// Keys and values averaged over `count` pieces of `length` tokens, and whether these are the prompt's; `None` where it
    /// was given up. What the last pass left in the backend is gone.
    pub fn mean_caches(
        &mut self,
        count: usize,
        length: usize,
        between: Between<'_>,
    ) -> Result<Option<(MeanCaches, bool)>> {
        let pieces = pieces::cut(&self.prompt, self.tokenizer.as_ref(), count, length.min(self.max_rows));
        let wiring = Wiring::own(self.config().layers.len());
        let mut caches = MeanCaches::new(wiring.layers());
        let mut trials = Trials { core: self, between, caches: Vec::new(), failure: None, stopped: false };
        trials.read(&pieces.ids, &wiring, &mut |piece| caches.add(piece.kv));
        Ok((!trials.end()?).then_some((caches, pieces.of_prompt)))
    }

    /// Two layers see equally far and turn keys alike: one can stand in for the other.
    pub fn alike(&self, a: usize, b: usize) -> bool {
        self.config().layers[a] == self.config().layers[b]
    }
}

impl Trials<'_, '_> {
    /// Gives the memory back; whether the trials were given up.
    fn end(self) -> Result<bool> {
        for cache in self.caches {
            self.core.backend.free(cache);
        }
        self.failure.map_or(Ok(self.stopped), Err)
    }

    fn pass(&mut self, pieces: &[Vec<u32>], wiring: &Wiring, each: &mut dyn FnMut(PieceRead<'_>)) -> Result<()> {
        let Core { backend, decoder, .. } = &mut *self.core;
        while self.caches.len() < pieces.len() {
            self.caches.push(backend.cache());
        }
        let mut rows = Vec::new();
        for (piece, &cache) in pieces.iter().zip(&self.caches) {
            backend.wire(cache, wiring)?;
            rows.extend((0..).zip(piece).map(|(p, &token)| Row { token, position: p, turned: p, cache }));
        }
        backend.begin(&rows, Probes::NONE, None)?;
        decoder.embed(&mut **backend);
        (0..decoder.sublayers()).for_each(|index| decoder.sublayer(&mut **backend, index));
        decoder.head(&mut **backend, 0..0);
        backend.run()?;
        let hidden = decoder.normed(&**backend);
        let (width, kv_heads) = (decoder.config().hidden, decoder.config().kv_heads);
        let mut from = 0;
        for (piece, &cache) in pieces.iter().zip(&self.caches) {
            let all = |of: &dyn Fn(usize) -> Vec<f32>| (0..kv_heads).flat_map(of).collect::<Vec<f32>>();
            let b: &dyn Backend = &**backend;
            let kv = |layer: usize| {
                let keys = |head: usize| b.keys(cache, layer, head).into_owned();
                let values = |head: usize| b.values(cache, layer, head).into_owned();
                (all(&keys), all(&values))
            };
            each(PieceRead { hidden: &hidden[from * width..(from + piece.len()) * width], kv: &kv });
            from += piece.len();
        }
        Ok(())
    }
}

impl Lab for Trials<'_, '_> {
    fn layers(&self) -> usize {
        self.core.config().layers.len()
    }

    fn head_dim(&self) -> usize {
        self.core.config().head_dim
    }

    fn alike(&self, a: usize, b: usize) -> bool {
        self.core.alike(a, b)
    }

    fn pieces(&mut self, count: usize, length: usize) -> Vec<Vec<u32>> {
        pieces::cut(&self.core.prompt, self.core.tokenizer.as_ref(), count, length.min(self.core.max_rows)).ids
    }

    fn read(&mut self, pieces: &[Vec<u32>], wiring: &Wiring, each: &mut dyn FnMut(PieceRead<'_>)) -> bool {
        let longest = pieces.iter().map(Vec::len).max().unwrap_or(1).max(1);
        for group in pieces.chunks((self.core.max_rows / longest).max(1)) {
            if self.stopped || self.failure.is_some() {
                return false;
            }
            if let Err(error) = self.pass(group, wiring, each) {
                self.failure = Some(error);
                return false;
            }
            let read = self.core.prompt.len();
            if let Pause::Stop = (self.between)(self.core, read) {
                self.stopped = true;
                return false;
            }
        }
        true
    }

    fn similarity(&mut self, rows: usize) -> Option<LayerSimilarity> {
        match self.core.map_similarity(rows) {
            Ok(similarity) => Some(similarity),
            Err(error) => {
                self.failure = Some(error);
                None
            }
        }
    }
}
