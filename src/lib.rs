pub mod cluster;
pub mod config;
pub mod edge;
pub mod mail;
pub mod push;
pub mod wire;
