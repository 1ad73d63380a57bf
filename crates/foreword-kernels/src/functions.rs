//! Activation functions and their derivatives.

use crate::backend::Function;
use crate::rows::Element;

/// √(2/π), of the tanh approximation of GELU (Hendrycks & Gimpel 2016).
pub(crate) const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
/// Cubic coefficient of the same.
pub(crate) const GELU_CUBIC: f64 = 0.044_715;

impl Function {
    /// f(x).
    #[must_use]
    pub fn value<T: Element>(self, x: T) -> T {
        let of = T::of_f64;
        match self {
            Self::Silu => x * sigmoid(x),
            Self::Gelu => x * normal_distribution(x),
            Self::GeluTanh => {
                let inner = of(SQRT_2_OVER_PI) * (x + of(GELU_CUBIC) * x * x * x);
                of(0.5) * x * (T::one() + inner.tanh())
            }
            Self::Relu => x.max(T::zero()),
        }
    }

    /// f′(x).
    #[must_use]
    pub fn derivative<T: Element>(self, x: T) -> T {
        let of = T::of_f64;
        match self {
            Self::Silu => {
                let s = sigmoid(x);
                s * (T::one() + x * (T::one() - s))
            }
            Self::Gelu => {
                let density = of(0.5 * SQRT_2_OVER_PI) * (-(x * x) * of(0.5)).exp();
                normal_distribution(x) + x * density
            }
            Self::GeluTanh => {
                let t = (of(SQRT_2_OVER_PI) * (x + of(GELU_CUBIC) * x * x * x)).tanh();
                let d_inner = of(SQRT_2_OVER_PI) * (T::one() + of(3.0 * GELU_CUBIC) * x * x);
                of(0.5) * (T::one() + t) + of(0.5) * x * (T::one() - t * t) * d_inner
            }
            Self::Relu => {
                if x > T::zero() {
                    T::one()
                } else {
                    T::zero()
                }
            }
        }
    }
}

fn sigmoid<T: Element>(x: T) -> T {
    T::one() / (T::one() + (-x).exp())
}

/// Φ(x), through erfc in double precision so that the lower tail keeps its digits.
fn normal_distribution<T: Element>(x: T) -> T {
    T::of_f64(0.5 * libm::erfc(-x.as_f64() * std::f64::consts::FRAC_1_SQRT_2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_are_those_of_the_values() {
        for function in [Function::Silu, Function::Gelu, Function::GeluTanh, Function::Relu] {
            for i in -40..40 {
                let x = f64::from(i) * 0.17 + 0.03;
                let h = 1e-5;
                let difference = (function.value(x + h) - function.value(x - h)) / (2.0 * h);
                assert!((difference - function.derivative(x)).abs() < 1e-8, "{function:?} at {x}");
            }
        }
    }
}
