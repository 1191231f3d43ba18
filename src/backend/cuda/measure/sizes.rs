//! What is measured, in numbers.

/// A language model's head.
#[derive(Debug, Clone, Copy)]
pub struct HeadSize {
    pub vocab: usize,
    pub width: usize,
}

/// A map of one of `heads` query heads.
#[derive(Debug, Clone, Copy)]
pub struct MapSize {
    pub positions: usize,
    pub heads: usize,
    pub dim: usize,
}

/// Attention heads of a model.
#[derive(Debug, Clone, Copy)]
pub struct AttentionSize {
    pub heads: usize,
    pub kv_heads: usize,
    pub dim: usize,
}

#[derive(Debug, Clone)]
pub struct Sizes {
    /// Bytes that are copied.
    pub copy: usize,
    /// Bytes of a product's weights, at least.
    pub weights: usize,
    /// Inputs of those products.
    pub widths: Vec<usize>,
    pub heads: Vec<HeadSize>,
    /// Rows that are drawn for at once.
    pub batches: Vec<usize>,
    pub maps: Vec<MapSize>,
    /// Of a map: width, height.
    pub pixels: [usize; 2],
    pub attention: AttentionSize,
    /// Slots of each kv head, and lanes that attend at once.
    pub slots: Vec<usize>,
    pub lanes: Vec<usize>,
    /// Times of which the median counts, each of so many runs that follow each other.
    pub repeats: usize,
    pub runs: usize,
}

impl Sizes {
    /// Widths and attention of Llama 3 8B; vocabularies of SmolLM2 and Qwen2.
    pub fn full() -> Self {
        Self {
            copy: 1 << 30,
            weights: 1 << 30,
            widths: vec![4096, 14336],
            heads: vec![HeadSize { vocab: 49_152, width: 576 }, HeadSize { vocab: 151_936, width: 2048 }],
            batches: vec![1, 8, 64],
            maps: vec![
                MapSize { positions: 32_768, heads: 9, dim: 64 },
                MapSize { positions: 32_768, heads: 32, dim: 128 },
            ],
            pixels: [200, 120],
            attention: AttentionSize { heads: 32, kv_heads: 8, dim: 128 },
            slots: vec![2048, 32_768],
            lanes: vec![1, 8],
            repeats: 9,
            runs: 10,
        }
    }

    /// The same of everything, so small that the kernels can run on a CPU.
    pub fn tiny() -> Self {
        Self {
            copy: 1 << 20,
            weights: 4 << 10,
            widths: vec![256, 512],
            heads: vec![HeadSize { vocab: 300, width: 64 }, HeadSize { vocab: 515, width: 32 }],
            batches: vec![1, 8, 64],
            maps: vec![MapSize { positions: 200, heads: 3, dim: 64 }, MapSize { positions: 130, heads: 2, dim: 128 }],
            pixels: [20, 12],
            attention: AttentionSize { heads: 4, kv_heads: 2, dim: 64 },
            slots: vec![40, 300],
            lanes: vec![1, 8],
            repeats: 1,
            runs: 1,
        }
    }
}
