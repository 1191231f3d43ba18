//! Attention without a kernel: lanes that store packed, read a part, read their prompt sparsely or share layers keep their
//! caches on this machine, and the CPU attends for them. All products stay on the device; queries, keys and values of
//! their rows come here, layer by layer, and what attention makes of them goes back.

use super::records::{NORMS, REDUCTIONS};
use crate::backend::cpu::CpuBackend;
use crate::backend::{Attention, Backend, Buf, CacheId, Inspect, Result, Row, Shape};
use crate::cache::HeadCache;
use crate::engine::message::Probes;

pub struct OnHost {
    shape: Shape,
    exact: bool,
    threads: usize,
    /// As the backend has them, by the same names.
    vectors: Vec<Vec<f32>>,
    host: Option<Host>,
    /// Rows of the pass that attend here.
    rows: Vec<usize>,
    /// Queries are put away; the first one kept since has this position.
    shelved: Option<u32>,
}

struct Host {
    cpu: CpuBackend,
    qkv: Buf,
    out: Buf,
}

impl OnHost {
    pub fn new(shape: &Shape, exact: bool, threads: usize) -> Self {
        let (shape, vectors, rows) = (shape.clone(), Vec::new(), Vec::new());
        Self { shape, exact, threads, vectors, host: None, rows, shelved: None }
    }

    /// A vector of weights that attention may name.
    pub fn knows(&mut self, vector: Vec<f32>) {
        self.vectors.push(vector);
    }

    pub fn cpu(&self) -> Option<&CpuBackend> {
        self.host.as_ref().map(|host| &host.cpu)
    }

    pub fn cpu_mut(&mut self) -> Option<&mut CpuBackend> {
        self.host.as_mut().map(|host| &mut host.cpu)
    }

    fn started(&mut self) -> Result<&mut CpuBackend> {
        let host = match self.host.take() {
            Some(host) => host,
            None => self.start()?,
        };
        Ok(&mut self.host.insert(host).cpu)
    }

    fn start(&self) -> Result<Host> {
        let mut cpu = CpuBackend::new(self.shape.clone(), self.exact, self.threads)?;
        cpu.set_vectors(self.vectors.clone());
        self.shelved.iter().for_each(|&first| cpu.shelve_queries(first));
        let Shape { heads, kv_heads, head_dim, .. } = self.shape;
        let (qkv, out) = (cpu.buffer((heads + 2 * kv_heads) * head_dim), cpu.buffer(heads * head_dim));
        Ok(Host { cpu, qkv, out })
    }

    pub fn shelve_queries(&mut self, first: u32) {
        self.shelved = Some(first);
        self.cpu_mut().iter_mut().for_each(|cpu| cpu.shelve_queries(first));
    }

    pub fn restore_queries(&mut self) {
        self.shelved = None;
        self.cpu_mut().iter_mut().for_each(|cpu| cpu.restore_queries());
    }

    /// An empty cache.
    pub fn cache(&mut self) -> Result<CacheId> {
        Ok(self.started()?.cache())
    }

    /// A cache with these heads.
    pub fn adopt(&mut self, heads: Vec<HeadCache>) -> Result<CacheId> {
        Ok(self.started()?.adopt(heads))
    }

    /// Begins a pass over the rows (place in the pass, row with this side's cache) that attend here.
    pub fn begin(&mut self, rows: Vec<(usize, Row)>, probes: Probes, keep: Option<CacheId>) -> Result<()> {
        self.rows = rows.iter().map(|(place, _)| *place).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
        self.started()?.begin(&rows, Probes { timings: false, ..probes }, keep)
    }

    pub fn has_rows(&self) -> bool {
        !self.rows.is_empty()
    }

    /// Places in the pass of the rows that attend here.
    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// Queries, keys and values of these rows [rows, (H + 2G)·D] to what attention gives [rows, H·D].
    pub fn attend(&mut self, attention: &Attention, qkv: &[f32]) -> Result<Vec<f32>> {
        let Some(Host { cpu, qkv: from, out }) = &mut self.host else { return Ok(Vec::new()) };
        cpu.put(*from, qkv);
        cpu.attend(attention, *from, *out);
        cpu.run()?;
        Ok(cpu.read(*out))
    }

    /// Puts what the probe found here into [planes][rows of the pass][columns].
    fn put(&self, all: &mut [f32], rows: usize, columns: usize, of: impl Fn(&CpuBackend) -> &[f32]) {
        let Some(cpu) = self.cpu().filter(|_| self.has_rows()) else { return };
        let planes = all.chunks_exact_mut((rows * columns).max(1));
        for (plane, found) in planes.zip(of(cpu).chunks_exact(self.rows.len() * columns)) {
            for (&row, found) in self.rows.iter().zip(found.chunks_exact(columns)) {
                plane[row * columns..][..columns].copy_from_slice(found);
            }
        }
    }

    /// [L · H][rows][6]
    pub fn put_attention(&self, all: &mut [f32], rows: usize) {
        self.put(all, rows, REDUCTIONS, CpuBackend::attention_probe);
    }

    /// [L · G][rows][4]
    pub fn put_norms(&self, all: &mut [f32], rows: usize) {
        self.put(all, rows, NORMS, CpuBackend::norms_probe);
    }
}
