//! A pass begins: room for its rows in every matrix and cache.

use super::*;

impl CpuBackend {
    /// See [`Backend::begin`].
    pub(super) fn begin_pass(&mut self, rows: &[Row], probes: Probes, keep_queries: Option<CacheId>) -> Result<()> {
        if rows.len() > self.shape.max_rows {
            return Err(failed("pass", format!("{} rows, at most {}", rows.len(), self.shape.max_rows)));
        }
        self.rows = rows.to_vec();
        self.probes_on = probes;
        self.keep_queries = keep_queries;
        self.steps.clear();
        self.layer = None;
        self.times.clear();
        self.spans.clear();
        self.timed_ns = 0;
        self.pending_points.clear();
        (self.points_seen, self.stream_seen) = (0, 0);
        self.logit_rows = 0;
        self.drawn.clear();
        self.fresh.fill(false);
        self.pass_caches.clear();
        self.runs.clear();
        for (r, row) in rows.iter().enumerate() {
            match self.runs.last_mut() {
                Some(run) if self.pass_caches[run.cache] == row.cache => run.len += 1,
                _ => {
                    self.pass_caches.push(row.cache);
                    self.runs.push(Run { cache: self.pass_caches.len() - 1, first: r, len: 1 });
                }
            }
        }
        for run in &self.runs {
            let sparse = self.sparse.get(&self.pass_caches[run.cache]);
            if sparse.is_some_and(|sparse| !rows[run.first].position.is_multiple_of(sparse.rule.gamma)) {
                let why = "a part of it has to begin at a dense row".to_owned();
                return Err(failed("reading a prompt sparsely", why));
            }
            if let Some(readers) = self.readers.get_mut(&self.pass_caches[run.cache]) {
                readers.clear_log();
            }
            for head in &mut self.caches[self.pass_caches[run.cache].0] {
                // attention of many rows walks whole tiles of slots
                if run.len > 1 {
                    head.settle();
                }
                head.reserve(run.len);
            }
        }
        if let Some(cache) = keep_queries {
            let kept: Vec<u32> = rows.iter().filter(|r| r.cache == cache).map(|r| r.position).collect();
            if kept.first().is_some_and(|&p| p != self.queries.range().end) {
                return Err(failed("kept queries", "positions must follow each other"));
            }
            self.queries.reserve(kept.len());
            let slots = self.caches[cache.0].iter().map(|head| head.len()).max().unwrap_or(0) + kept.len();
            self.watched.iter_mut().flatten().for_each(|sums| sums.resize(slots));
        }
        let half = self.shape.head_dim / 2;
        self.angles = (self.shape.ropes.iter())
            .map(|frequencies| {
                let angle = |row: &Row, i: usize| (row.turned as f32 * frequencies[i]).sin_cos();
                rows.iter().flat_map(|row| (0..half).map(move |i| angle(row, i)).map(|(sin, cos)| (cos, sin))).collect()
            })
            .collect();
        let (n, l) = (rows.len(), self.shape.layers);
        if self.pass_caches.iter().any(|cache| self.wirings[cache.0].is_some()) {
            self.lent_queries.resize(n);
        }
        if self.pass_caches.iter().any(|cache| self.sparse.contains_key(cache)) {
            self.probes.covered.resize(l * self.shape.heads * n);
            self.probes.covered.as_mut_slice().fill(1.0);
        }
        self.buffers.iter_mut().for_each(|grid| grid.resize(n));
        self.probes.residual.resize(self.shape.all_points() * n);
        self.probes.points.resize(self.shape.all_points() * self.saved_rows());
        self.probes.depth.resize(self.shape.points() * n);
        self.probes.gates.resize(self.shape.points() * n);
        self.probes.attention.resize(l * self.shape.heads * n);
        self.probes.norms.resize(l * self.shape.kv_heads * n);
        if self.runs.iter().any(|run| run.len > 1) {
            let slots = self.pass_caches.iter().flat_map(|c| &self.caches[c.0]).map(|h| h.len()).max().unwrap_or(0) + n;
            let blocks: usize = self.runs.iter().map(|run| run.len.div_ceil(QUERY_BLOCK)).sum();
            let width = slots.next_multiple_of(crate::cache::TILE);
            if self.probes.received.width() < width || self.probes.received.rows() < blocks * self.shape.heads {
                self.probes.received = Grid::new(blocks * self.shape.heads, width);
            }
            let rows = blocks * self.shape.heads * self.watches.0.len();
            if self.probes.watched.width() < width || self.probes.watched.rows() < rows {
                self.probes.watched = Grid::new(rows, width);
            }
        }
        Ok(())
    }
}
