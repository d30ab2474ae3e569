//! `io`

pub mod chunk;
pub mod disk;

pub use chunk::Chunk;
pub use disk::{Disk, File, OpenMode, RealDisk};
