//! The server that `http` steps call. It writes down which key came for which run, and misbehaves as its path says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Requests as they came: idempotency key and run.
#[derive(Clone, Default)]
pub(crate) struct Hook {
    requests: Arc<Mutex<Vec<(String, String)>>>,
    tries: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Hook {
    /// Listens, and says where.
    pub(crate) async fn listen(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let hook = self.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let hook = hook.clone();
                tokio::spawn(async move { hook.serve(socket).await });
            }
        });
        url
    }

    pub(crate) fn requests(&self) -> Vec<(String, String)> {
        self.requests.lock().unwrap().clone()
    }

    /// One request per connection. Whoever is killed in the middle of one is no longer interesting.
    async fn serve(&self, socket: TcpStream) -> Option<()> {
        let mut socket = BufReader::new(socket);
        let (mut path, mut key, mut length) = (String::new(), String::new(), 0);
        loop {
            let mut line = String::new();
            socket.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if path.is_empty() {
                path = line.split(' ').nth(1)?.to_owned();
            } else if let Some((name, value)) = line.split_once(':') {
                match name.to_ascii_lowercase().as_str() {
                    "idempotency-key" => value.trim().clone_into(&mut key),
                    "content-length" => length = value.trim().parse().ok()?,
                    _ => {}
                }
            }
        }
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await.ok()?;
        let body: Value = serde_json::from_slice(&body).ok()?;
        let run = body["input"]["run"].as_str().unwrap_or_default().to_owned();
        self.requests.lock().unwrap().push((key.clone(), run));
        let tries = {
            let mut tries = self.tries.lock().unwrap();
            let tries = tries.entry(key).or_default();
            *tries += 1;
            *tries
        };
        let status = match path.as_str() {
            "/wrong" => "400 Bad Request",
            // The first two tries fail, the first without any answer.
            "/shaky" if tries == 1 => return None,
            "/shaky" if tries == 2 => "503 Service Unavailable",
            _ => "200 OK",
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"
        );
        socket.write_all(answer.as_bytes()).await.ok()?;
        socket.shutdown().await.ok()
    }
}
