//! Numbers that look like a model's, and repeat at every run.

use candle_core::{DType, Device, Tensor};

use crate::measure::Result;

/// Numbers by a linear congruence (Knuth's), which is all that is asked of them.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    /// Below `end`.
    pub fn below(&mut self, end: u32) -> u32 {
        self.next() % end
    }

    /// Near a normal distribution: the sum of four.
    fn number(&mut self) -> f32 {
        let sum: f32 = (0..4).map(|_| self.next() as f32 / (1_u32 << 31) as f32 - 0.5).sum();
        sum * 1.732
    }

    /// A tensor of f32 on the processor whose values `dtype` holds too.
    pub fn tensor(&mut self, shape: &[usize], scale: f32, dtype: DType) -> Result<Tensor> {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| self.number() * scale).collect();
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_dtype(DType::F32)?)
    }

    /// A vector of numbers around 1, such as a norm's scale.
    pub fn around_one(&mut self, size: usize) -> Result<Tensor> {
        Ok((self.tensor(&[size], 0.2, DType::F32)? + 1.0)?)
    }
}
