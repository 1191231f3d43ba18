//! From what was recorded to a program that all threads walk.

use super::*;

impl CpuBackend {
    /// Carries out what was recorded since `begin` or the last time, with all threads.
    pub(super) fn carry_out(&mut self) -> Result<()> {
        let points = std::mem::take(&mut self.pending_points);
        if self.saved_rows() == self.rows.len() && self.probes_on.residual && !points.is_empty() {
            let bytes = (points.len() * self.rows.len() * self.shape.hidden * 4) as u64;
            self.push("residual statistics", Op::SavedStats { points }, bytes, bytes);
        }
        let steps = std::mem::take(&mut self.steps);
        if self.interrupt.swap(false, Ordering::Relaxed) {
            return Err(BackendError::Interrupted);
        }
        let caches: Vec<Vec<Alone<HeadCache>>> = {
            let mut by_id: BTreeMap<CacheId, Vec<Alone<HeadCache>>> = BTreeMap::new();
            for (id, cache) in self.caches.iter_mut().enumerate() {
                by_id.insert(CacheId(id), cache.iter_mut().map(Alone::new).collect());
            }
            self.pass_caches.iter().filter_map(|id| by_id.get(id).cloned()).collect()
        };
        let readers = {
            let mut by_id: BTreeMap<CacheId, Vec<Alone<Follower>>> = BTreeMap::new();
            for (id, readers) in &mut self.readers {
                by_id.insert(*id, readers.0.iter_mut().map(Alone::new).collect());
            }
            self.pass_caches.iter().map(|id| by_id.remove(id)).collect()
        };
        let queries = self.keep_queries.and_then(|id| self.pass_caches.iter().position(|c| *c == id));
        let queries = queries.map(|cache| (cache, self.queries.writer()));
        let saved_rows = self.saved_rows();
        let exec = Exec {
            rows: &self.rows,
            runs: &self.runs,
            hidden: self.shape.hidden,
            heads: self.shape.heads,
            kv_heads: self.shape.kv_heads,
            dim: self.shape.head_dim,
            recent_window: self.shape.recent_window,
            probe_residual: self.probes_on.residual,
            probe_norms: self.probes_on.kv_norms,
            saved_rows,
            table: self.table.as_ref(),
            matrices: &self.matrices,
            vectors: &self.vectors,
            sources: &self.sources,
            buffers: &self.buffers,
            quantized: &self.quantized,
            logits: &self.logits,
            drawn: self.drawn.iter_mut().map(Alone::new).collect(),
            probes: &self.probes,
            caches,
            readers,
            sparse: self.pass_caches.iter().map(|id| self.sparse.get(id).copied()).collect(),
            wirings: self.pass_caches.iter().map(|cache| self.wirings[cache.0].as_ref()).collect(),
            lent_queries: &self.lent_queries,
            queries,
            watches: &self.watches.0,
            watched: &self.watched,
            angles: &self.angles,
            isa: self.isa,
        };
        let program = Program::new(&steps, self.pool.threads());
        let mut times = Vec::with_capacity(steps.len());
        let clock = self.probes_on.timings.then(|| Alone::new(&mut times));
        let interrupt = &self.interrupt;
        let stopped = AtomicBool::new(false);
        let outcome = self.pool.run(&|worker| {
            if !program.walk(&exec, worker, interrupt, clock) {
                stopped.store(true, Ordering::Relaxed);
            }
        });
        for (step, ns) in steps.iter().zip(times) {
            let record = self.times.entry(step.name).or_default();
            record.ns.push(ns);
            record.bytes += step.bytes;
            record.flops += step.flops;
            record.product = step.op.is_product();
            let (start_ns, bytes) = (self.timed_ns, step.bytes);
            self.spans.push(OpSpan { name: step.name, layer: step.layer, start_ns, ns, bytes });
            self.timed_ns += u64::from(ns);
        }
        outcome.map_err(|why| failed("an operation", why))?;
        if stopped.into_inner() {
            self.interrupt.store(false, Ordering::Relaxed);
            return Err(BackendError::Interrupted);
        }
        Ok(())
    }
}
