//! A core that listens.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use ottla::io::{CoreConfig, CoreHandle, IoStats, ListenOptions, Queue, Rt, Stream, run_core};

const PATIENCE: Duration = Duration::from_secs(60);

/// A core that serves every connection by `serve` until it is stopped; it returns its
/// counters of that moment.
pub fn server<F>(
    config: CoreConfig,
    options: ListenOptions,
    serve: F,
) -> (CoreHandle<IoStats>, SocketAddr)
where
    F: AsyncFn(Rt, Stream) + Clone + Send + 'static,
{
    let (tell, told) = mpsc::channel();
    let handle = run_core(config, move |rt| async move {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = rt.listen_with(any, &options).unwrap();
        tell.send(listener.local_addr()).unwrap();
        let acceptor = rt.clone();
        rt.spawn(Queue::Request, async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (rt, serve) = (acceptor.clone(), serve.clone());
                acceptor.spawn(Queue::Request, async move { serve(rt, stream).await });
            }
        });
        rt.stopping().await;
        rt.stats()
    })
    .unwrap();
    (handle, told.recv_timeout(PATIENCE).unwrap())
}
