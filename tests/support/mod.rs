#![allow(dead_code, reason = "each test binary uses a part of the support")]

pub mod fixtures;
pub mod kafka;
