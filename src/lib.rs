pub mod cli;
pub mod cluster;
pub mod config;
pub mod edge;
pub mod mail;
pub mod node;
pub mod push;
pub mod wire;
