//! `coordinator`
