//! Service rules: what the kernel does with packets to ClusterIPs, external addresses and node ports.

pub(crate) mod apply;
pub(crate) mod compile;
pub(crate) mod foreign;
pub(crate) mod model;
