pub mod fixtures;
pub mod zookeeper;
