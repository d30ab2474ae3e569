//! `controller`
