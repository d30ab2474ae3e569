//! `metadata`
