//! `mesh`
