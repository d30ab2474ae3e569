//! What lies on the disk only is looked up without holding the core.

use std::rc::Rc;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use ottla::base::CoreId;
use ottla::io::{Backend, CoreConfig, OpenMode, Rt, run_core};

const FILE_BYTES: u64 = 4 << 20;
/// Farther apart than the kernel reads ahead.
const STRIDE: u64 = 1 << 20;

#[test]
fn a_lookup_starts_over_until_all_its_bytes_are_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("segment");
    let bytes: Vec<u8> = (0..FILE_BYTES).map(|i| (i / 7) as u8).collect();
    std::fs::write(&path, &bytes).unwrap();
    for backend in [Backend::Ring, Backend::Bare] {
        // Clean pages can be dropped.
        let file = std::fs::File::open(&path).unwrap();
        file.sync_all().unwrap();
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
        let config = CoreConfig {
            backend,
            ..CoreConfig::new(CoreId(0))
        };
        let path = path.clone();
        let core = run_core(config, move |rt| async move { look_up(&rt, &path).await }).unwrap();
        let (was_cached, found, fetched) = core.join();
        let expected: Vec<u8> = (0..FILE_BYTES)
            .step_by(STRIDE as usize)
            .flat_map(|at| bytes[at as usize..][..100].to_vec())
            .collect();
        assert_eq!(found, expected);
        if was_cached {
            println!(
                "{}: its file system keeps all in memory",
                directory.path().display()
            );
        } else {
            assert!((1..=4).contains(&fetched), "{fetched} reads were fetched");
        }
    }
}

async fn look_up(rt: &Rt, path: &std::path::Path) -> (bool, Vec<u8>, u64) {
    let file = rt.disk().open(path, OpenMode::Read).unwrap();
    let read = |found: &mut Vec<u8>| -> std::io::Result<()> {
        for at in (0..FILE_BYTES).step_by(STRIDE as usize) {
            let mut piece = [0; 100];
            file.read_exact_at(&mut piece, at)?;
            found.extend(piece);
        }
        Ok(())
    };
    let was_cached = rt.if_cached(|| read(&mut Vec::new())).is_some();
    let calls = Rc::new(std::cell::Cell::new(0));
    let found = rt
        .without_waiting(|| {
            calls.set(calls.get() + 1);
            let mut found = Vec::new();
            read(&mut found).map(|()| found)
        })
        .await
        .unwrap();
    let fetched = rt.stats().reads_fetched;
    assert_eq!(calls.get(), fetched + 1);
    assert!(rt.if_cached(|| read(&mut Vec::new())).is_some());
    (was_cached, found, fetched)
}
