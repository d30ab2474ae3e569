//! One GET of the node's numbers. Bounded: [`PATIENCE`] for each step, [`BODY_MAX`] bytes.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use super::text::Scrape;

const PATIENCE: Duration = Duration::from_secs(5);
const HEAD_MAX: usize = 16 * 1024;
const BODY_MAX: usize = 256 << 20;
const HEADERS_MAX: usize = 64;

/// The error is for the person who asked, and says what to do.
pub fn scrape(address: &str) -> Result<Scrape, String> {
    let answer = get(address).map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => format!(
            "nothing listens on {address}: start the node with \
             ottla.metrics.listen={address}, or say with --metrics where it listens"
        ),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            format!("{address} doesn't answer")
        }
        io::ErrorKind::InvalidInput => {
            format!("{address} is no address: expected HOST:PORT, as in ottla.metrics.listen")
        }
        _ => format!("can't read metrics from {address}: {error}"),
    })?;
    if answer.is_empty() {
        return Err(format!(
            "{address} closed the connection: too many scrapes at once, or it isn't what \
             ottla.metrics.listen names"
        ));
    }
    let other =
        |what: &str| format!("{address} is not where ottla.metrics.listen of a node is: {what}");
    let body = body(&answer).map_err(|what| other(&what))?;
    let found = Scrape::parse(body).map_err(|what| other(&what))?;
    if found.samples("ottla_build_info").is_empty() {
        return Err(other("its metrics are of another program"));
    }
    Ok(found)
}

fn get(address: &str) -> io::Result<Vec<u8>> {
    let mut last = io::ErrorKind::InvalidInput.into();
    for resolved in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&resolved, PATIENCE) {
            Ok(stream) => return ask(stream, address),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn ask(mut stream: TcpStream, address: &str) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let max = (HEAD_MAX + BODY_MAX) as u64;
    match stream.take(max).read_to_end(&mut answer) {
        // Closed at once by a node that has enough scrapers.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Vec::new()),
        Err(error) => Err(error),
        Ok(_) => Ok(answer),
    }
}

/// The body of an HTTP answer that went well.
fn body(answer: &[u8]) -> Result<&str, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let start = match response.parse(answer) {
        Ok(httparse::Status::Complete(start)) => start,
        Ok(httparse::Status::Partial) | Err(_) => return Err("it doesn't speak HTTP".to_owned()),
    };
    match response.code {
        Some(200) => {}
        code => return Err(format!("HTTP status {}", code.unwrap_or(0))),
    }
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok());
    let body = &answer[start..];
    if length.is_some_and(|length: usize| length != body.len()) {
        return Err("the answer is cut off".to_owned());
    }
    std::str::from_utf8(body).map_err(|_| "the answer is no text".to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// What is said of a server that answers so.
    fn outcome(answer: &'static [u8]) -> Result<Scrape, String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).unwrap() > 0);
            stream.write_all(answer).unwrap();
        });
        let outcome = scrape(&address);
        serving.join().unwrap();
        outcome.map_err(|error| error.replace(&address, "X"))
    }

    #[test]
    fn each_failure_says_what_to_do() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let nothing = scrape(&address).unwrap_err();
        let wanted = format!(
            "nothing listens on {address}: start the node with ottla.metrics.listen={address}, \
             or say with --metrics where it listens"
        );
        assert_eq!(nothing, wanted);
        assert!(scrape("nonsense").unwrap_err().contains("HOST:PORT"));
        for (answer, wanted) in [
            (
                &b"SSH-2.0-x\r\n"[..],
                "X is not where ottla.metrics.listen of a node is: it doesn't speak HTTP",
            ),
            (b"HTTP/1.1 404 Not Found\r\n\r\n", "HTTP status 404"),
            (b"HTTP/1.1 200 OK\r\n\r\n<html>", "not a metric"),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na 1\n",
                "cut off",
            ),
            (b"HTTP/1.1 200 OK\r\n\r\na 1\n", "of another program"),
            (b"HTTP/1.1 200 OK\r\n\r\n\xff", "no text"),
            (b"", "X closed the connection"),
        ] {
            let error = outcome(answer).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
        let found = outcome(b"HTTP/1.1 200 OK\r\n\r\nottla_build_info{version=\"1\"} 1\n");
        assert!(found.is_ok());
    }
}
