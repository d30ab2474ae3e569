//! The floor under every figure: what the kernel gives ([`kernel`]), and the least that can
//! stand where a broker stands ([`serve`]). Called by `cli::bench`.

mod answers;
pub mod kernel;
pub mod serve;
mod store;
