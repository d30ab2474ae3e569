//! What keeps a node from starting or makes it stop. Each is one line for the person who
//! started it: what is wrong, where, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::base::{BrokerId, CoreId};
use crate::config::ConfigError;
use crate::log::manager::LogDirError;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address can't be had: in use, not this machine's, not allowed.
    #[error("{}", bind_text(.listener, .address, .source))]
    Bind {
        listener: String,
        /// `host:port`, as configured.
        address: String,
        source: io::Error,
    },
    #[error("can't accept connections: {0}")]
    Listen(#[source] io::Error),
    #[error("{}", directory_text(.path, .source))]
    Directory { path: PathBuf, source: io::Error },
    #[error("the directory {} is in use by another process (its .lock is held)", path.display())]
    Locked { path: PathBuf },
    /// `meta.properties` is broken or contradicts another directory or the config.
    #[error("the directory {}: {what}", path.display())]
    Identity { path: PathBuf, what: String },
    #[error(
        "the directory {} belongs to node {found}, but node.id is {configured}",
        path.display()
    )]
    NodeId {
        path: PathBuf,
        found: BrokerId,
        configured: BrokerId,
    },
    #[error(
        "the directory {} is not formatted; run `ottla format --cluster-id $(ottla random-uuid) --config FILE` first",
        path.display()
    )]
    NotFormatted { path: PathBuf },
    #[error("Linux {found} is too old: 6.1 or newer is needed")]
    Kernel { found: String },
    #[error(
        "the limit of {limit} open files is too low: {cores} event loops and {files} files of \
         {partitions} partitions need {needed}; raise it in this shell with \
         `sudo prlimit --pid $$ --nofile={advised}` (RLIMIT_NOFILE; `LimitNOFILE=` in a systemd \
         unit)"
    )]
    OpenFiles {
        limit: u64,
        cores: usize,
        files: u64,
        partitions: u64,
        needed: u64,
        advised: u64,
    },
    /// The event loop's own report.
    #[error("{source}")]
    Core {
        core: CoreId,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("a partition's log can't be opened: {0}")]
    Log(String),
    #[error("the controller can't start: {0}")]
    Controller(String),
    #[error("{0}")]
    System(#[from] io::Error),
}

impl StartError {
    pub fn core(core: CoreId, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        StartError::Core {
            core,
            source: Box::new(source),
        }
    }

    /// For `map_err` around what a data directory refuses.
    pub fn directory(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| StartError::Directory {
            path: path.to_owned(),
            source,
        }
    }
}

impl From<LogDirError> for StartError {
    fn from(error: LogDirError) -> Self {
        match error {
            LogDirError::Io { path, source } => StartError::Directory { path, source },
            LogDirError::Locked { path } => StartError::Locked { path },
            LogDirError::Foreign { path } => StartError::Identity {
                path,
                what: "it is not a partition's, and nothing else may stand among them".to_owned(),
            },
            LogDirError::Meta { path, source } => StartError::Identity {
                path,
                what: source.to_string(),
            },
            LogDirError::Checkpoint(error) => StartError::Log(error.to_string()),
        }
    }
}

fn bind_text(listener: &str, address: &str, source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            format!("the address {address} of listener {listener} is in use by another process")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("the address {address} of listener {listener} is not one of this machine's")
        }
        io::ErrorKind::PermissionDenied => format!(
            "listening on {address} ({listener}) is not permitted; ports below 1024 need privileges"
        ),
        _ => format!("can't listen on {address} ({listener}): {source}"),
    }
}

fn directory_text(path: &Path, source: &io::Error) -> String {
    let path = path.display();
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            format!("the directory {path} is not writable for this user: {source}")
        }
        io::ErrorKind::StorageFull => format!("the directory {path}: the disk is full"),
        _ => format!("the directory {path} can't be used: {source}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_one_line() {
        let bind = |kind: io::ErrorKind| {
            StartError::Bind {
                listener: "PLAINTEXT".to_owned(),
                address: "127.0.0.1:9092".to_owned(),
                source: kind.into(),
            }
            .to_string()
        };
        assert_eq!(
            bind(io::ErrorKind::AddrInUse),
            "the address 127.0.0.1:9092 of listener PLAINTEXT is in use by another process"
        );
        assert!(bind(io::ErrorKind::PermissionDenied).contains("below 1024"));
        assert!(bind(io::ErrorKind::AddrNotAvailable).contains("not one of this machine's"));
        let unwritable =
            StartError::directory(Path::new("/d"))(io::ErrorKind::PermissionDenied.into());
        assert_eq!(
            unwritable.to_string(),
            "the directory /d is not writable for this user: permission denied"
        );
        let core = StartError::core(CoreId(1), io::Error::other("no ring"));
        assert_eq!(core.to_string(), "no ring");
        for error in [unwritable, core, StartError::Locked { path: "/d".into() }] {
            assert!(!error.to_string().contains('\n'));
        }
    }
}
