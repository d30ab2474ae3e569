//! Files and directories are removed without a call that could hold the core.

use std::io::ErrorKind;
use std::path::PathBuf;

use ottla::base::CoreId;
use ottla::io::{Backend, CoreConfig, Operation, Rt, run_core};

#[test]
fn what_is_removed_is_removed_by_the_kernels_own_threads() {
    for backend in [Backend::Ring, Backend::Bare] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        for name in ["file", "log/a", "log/b"] {
            let file = path.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, vec![1; 1 << 20]).unwrap();
        }
        let config = CoreConfig {
            backend,
            ..CoreConfig::new(CoreId(0))
        };
        let core = run_core(config, |rt| async move { remove(&rt, path).await }).unwrap();
        core.join();
        let left = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(left, 0);
    }
}

async fn remove(rt: &Rt, path: PathBuf) {
    rt.remove_file(&path.join("file")).await.unwrap();
    let again = rt.remove_file(&path.join("file")).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::NotFound);
    rt.remove_dir_all(&path.join("log")).await.unwrap();
    rt.remove_dir_all(&path.join("log")).await.unwrap();
    // No call of the core's own removed anything, however long it took.
    let blocked = rt.blocked_calls();
    assert!(
        blocked
            .iter()
            .all(|call| call.operation != Operation::Remove),
        "{blocked:?}"
    );
}
