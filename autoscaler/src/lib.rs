//! The control plane's parts that stand by themselves: the scaling policy, and its simulator.

pub mod policy;
pub mod simulate;
