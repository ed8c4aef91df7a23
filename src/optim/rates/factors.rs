//! A learning rate and the factors that it is made of.

/// A model's learning rate and the factors that it is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// The base rate.
    pub base: f64,
    /// Warm-up and decay.
    pub schedule: f64,
    /// From the model's losses.
    pub adaptive: f64,
    /// From the model's weight.
    pub scale: f64,
    /// The published second multiplier; 1 elsewhere.
    pub multiplier: f64,
    /// The product, or what the host's callback made of it.
    pub effective: f64,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            base: 0.0,
            schedule: 1.0,
            adaptive: 1.0,
            scale: 1.0,
            multiplier: 1.0,
            effective: 0.0,
        }
    }
}
