//! `ottla random-uuid`.

use super::output;
use crate::base::{Rng, Uuid};

pub fn run() -> Result<(), String> {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|error| format!("no random bytes: {error}"))?;
    let id = Uuid::random(&mut Rng::new(u64::from_ne_bytes(seed)));
    output::print(&format!("{id}\n"))
}
