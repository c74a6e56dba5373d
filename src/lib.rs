pub mod cli;
pub mod cluster;
pub mod config;
pub mod edge;
pub mod mail;
