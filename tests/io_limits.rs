//! What happens at the process's limits; alone in its process, because it changes them.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ottla::base::CoreId;
use ottla::io::{Backend, CoreConfig, Queue, SendQueue, run_core};
use socket2::{Domain, Socket, Type};

const PATIENCE: Duration = Duration::from_secs(20);

const CHILD: &str = "OTTLA_TEST_PANIC_ON_CORE";

/// All of it changes or ends the whole process, so it is one test.
#[test]
fn limits() {
    if let Ok(backend) = std::env::var(CHILD) {
        panic_on_a_core(&backend);
    }
    for backend in ["ring", "bare"] {
        a_panic_on_a_core_aborts_the_process(backend);
    }
    a_listener_outlives_a_lack_of_descriptors();
}

fn panic_on_a_core(backend: &str) -> ! {
    let mut config = CoreConfig::new(CoreId(0));
    if backend == "bare" {
        config.backend = Backend::Bare;
    }
    let core = run_core(config, |rt| async move {
        rt.spawn(Queue::Background, async {
            panic!("on purpose");
        });
        rt.sleep(Duration::from_secs(60)).await;
    });
    core.unwrap().join();
    unreachable!("the process was aborted")
}

fn a_panic_on_a_core_aborts_the_process(backend: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "limits", "--nocapture"])
        .env(CHILD, backend)
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("on purpose"));
}

fn a_listener_outlives_a_lack_of_descriptors() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 256, hard).unwrap();
    let (tell, told) = mpsc::channel();
    let (tell_error, error) = mpsc::channel();
    let core = run_core(CoreConfig::new(CoreId(0)), move |rt| async move {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = rt.listen(any).unwrap();
        tell.send(listener.local_addr()).unwrap();
        let watcher = rt.clone();
        rt.spawn(Queue::Background, async move {
            while watcher.stats().accept_errors == 0 {
                watcher.sleep(Duration::from_millis(5)).await;
            }
            tell_error.send(()).unwrap();
        });
        let mut out = SendQueue::new();
        out.push_bytes(&b"x"[..]);
        let (stream, _) = listener.accept().await.unwrap();
        stream.send(&mut out).await.unwrap();
    })
    .unwrap();
    let at = told.recv_timeout(PATIENCE).unwrap();
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let mut fillers = Vec::new();
    while let Ok(filler) = std::fs::File::open("/dev/null") {
        fillers.push(filler);
    }
    client.connect(&at.into()).unwrap();
    error.recv_timeout(PATIENCE).unwrap();
    drop(fillers);
    let mut client = TcpStream::from(client);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.read_exact(&mut [0]).unwrap();
    core.join();
}
