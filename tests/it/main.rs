//! The integration tests, in one binary so that they link once.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

#[macro_use]
mod backends;
mod attention;
mod fixtures;
mod masks;
mod multi_head;
mod naive;
