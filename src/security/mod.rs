//! `security`
