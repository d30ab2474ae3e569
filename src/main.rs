//! The `ottla` binary: everything it does is in [`ottla::cli`].

fn main() -> std::process::ExitCode {
    ottla::cli::main()
}
