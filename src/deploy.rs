//! Putting Cairn onto machines: what is written where, decided by pure functions.

pub mod systemd;
