//! Activations of linear layers and of one half of a gated layer.
//!
//! Absolute errors on the processor, in f32 and for results that are rounded to bf16 (2e-3 of a value by itself): of
//! GELU at most 3e-7 and 3e-5 times its input; of `SiLU` 4e-7 and 2e-4 times its input; of tanh, and of the sigmoid
//! inside the others, 4e-7 and 2e-4. Source: Hendrycks and Gimpel 2016 (GELU); Elfwing et al. 2017 (`SiLU`).

/// The function that is applied to each value of a linear layer's result, or of one half of a gated layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Activation {
    /// The identity.
    #[default]
    None,
    /// The exact (erf) GELU, `x * Phi(x)`.
    Gelu,
    /// GELU's approximation by tanh.
    GeluTanh,
    /// `x * sigmoid(x)`.
    Silu,
    /// The hyperbolic tangent.
    Tanh,
    /// `x` where it is positive, else 0.
    Relu,
}

#[cfg(test)]
impl Activation {
    /// The activation of `x` in float64.
    pub(crate) fn reference(self, x: f64) -> f64 {
        let cubic = x + 0.044_715 * x.powi(3);
        match self {
            Self::None => x,
            Self::Gelu => 0.5 * x * (1.0 + erf_reference(x * std::f64::consts::FRAC_1_SQRT_2)),
            Self::GeluTanh => {
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * cubic).tanh())
            }
            Self::Silu => x / (1.0 + (-x).exp()),
            Self::Tanh => x.tanh(),
            // Not `max`, which loses NaN.
            Self::Relu => {
                if x < 0.0 {
                    0.0
                } else {
                    x
                }
            }
        }
    }
}

/// The error function in float64: its Taylor series, which converges everywhere and is exact to 1e-9 up to 4.5.
#[cfg(test)]
pub(crate) fn erf_reference(z: f64) -> f64 {
    if z.abs() > 4.5 {
        return z.signum();
    }
    let mut term = z;
    let mut sum = z;
    for n in 1..200 {
        term *= -z * z / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI
}
