//! Which port the HTTP door gets. Asked before anything is started, so that the answer comes at once.
//!
//! The port is only looked at and bound later; somebody may take it in between, and then binding says so.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::failure::{Exit, Failure, Outcome};

/// How many ports after the wanted one are tried.
const TRIES: u16 = 100;

/// Exactly the wanted address, or a sentence why not.
pub(crate) fn exactly(bind: &str) -> Outcome<SocketAddr> {
    let wanted = parse(bind)?;
    TcpListener::bind(wanted).map(|_| wanted).map_err(|error| refused(wanted, &error))
}

/// The wanted address, or the next one with a free port.
pub(crate) fn next_free(bind: &str) -> Outcome<SocketAddr> {
    let wanted = parse(bind)?;
    let mut address = wanted;
    for _ in 0..TRIES {
        match TcpListener::bind(address) {
            Ok(_) => return Ok(address),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => match address.port().checked_add(1) {
                Some(port) => address.set_port(port),
                None => break,
            },
            Err(error) => return Err(refused(address, &error)),
        }
    }
    let message = format!("port {} and the {TRIES} after it are taken", wanted.port());
    Err(Failure::new(Exit::Failed, message).hint("choose one with --port, or any with --port 0"))
}

/// The same address with another port, for `--port`.
pub(crate) fn with_port(bind: &str, port: u16) -> Outcome<String> {
    let mut address = parse(bind)?;
    address.set_port(port);
    Ok(address.to_string())
}

fn parse(bind: &str) -> Outcome<SocketAddr> {
    bind.parse().map_err(|_| {
        Failure::usage(format!("http.bind is an IP address and a port such as 127.0.0.1:8787, not '{bind}'"))
    })
}

fn refused(address: SocketAddr, error: &io::Error) -> Failure {
    let port = address.port();
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "find out by whom with `ss -ltnp 'sport = :{port}'`, or choose another port (`up --port`, http.bind)"
            )
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 belong to root: set http.bind to a higher one".to_owned(),
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have that address: set http.bind to one it has".to_owned()
        }
        _ => "set http.bind to another address".to_owned(),
    };
    let what = if error.kind() == io::ErrorKind::AddrInUse { "it is taken".to_owned() } else { error.to_string() };
    Failure::new(Exit::Failed, format!("could not listen on {address}: {what}")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_refused_or_passed_over() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let failure = exactly(&address.to_string()).unwrap_err();
        assert!(failure.message.contains("it is taken"), "{}", failure.message);
        let free = next_free(&address.to_string()).unwrap();
        assert_ne!(free, address);
        assert_eq!(free.ip(), address.ip());
        assert_eq!(with_port("127.0.0.1:1", 2).unwrap(), "127.0.0.1:2");
        assert!(with_port("nowhere", 2).is_err());
    }
}
