//! The `ottla` binary: everything it does is in [`ottla::cli`].

fn main() {}
