//! What the tests of both kinds of weights share.

mod float;
mod quantized;

use std::sync::LazyLock;

use super::Isa;

/// splitmix64: a small stream of numbers that is the same everywhere.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// In −1..1.
    fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn row(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.unit()).collect()
    }
}

fn bits(values: &[Vec<f32>]) -> Vec<Vec<u32>> {
    values.iter().map(|row| row.iter().map(|v| v.to_bits()).collect()).collect()
}

/// What this CPU can run beside the portable code; says once what it cannot.
fn vector_isas() -> &'static [Isa] {
    static HERE: LazyLock<Vec<Isa>> = LazyLock::new(|| {
        let (here, absent): (Vec<_>, Vec<_>) =
            [Isa::Avx2, Isa::Avx512Vnni].into_iter().partition(|isa| isa.is_available());
        for isa in absent {
            eprintln!("not compared: this CPU has no {isa}");
        }
        here
    });
    &HERE
}
