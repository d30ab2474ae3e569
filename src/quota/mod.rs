//! `quota`
