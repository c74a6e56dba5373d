//! The doors: where clients come in. Thin loops around what the other rooms decide.

pub mod auth;
