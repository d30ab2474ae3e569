//! `replica`
