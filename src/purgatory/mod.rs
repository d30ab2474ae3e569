//! `purgatory`
