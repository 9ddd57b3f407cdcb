//! nats-server's configuration file, for a lone server and for one of a cluster. The examples in `nats/cluster/` are what
//! this renders, and a test holds them to it.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::{Account, Callout};
use crate::options::NatsUser;

/// Everything that a configuration says.
pub(crate) struct Configuration {
    /// Unique in its cluster; JetStream knows a server by it.
    pub(crate) server_name: String,
    /// The ports for clients and for monitoring; `None` lets the server take free ones and write them down.
    pub(crate) ports: Option<(u16, u16)>,
    /// Where its data and its list of ports are.
    pub(crate) folder: PathBuf,
    pub(crate) sync_always: bool,
    pub(crate) cluster: Option<Routes>,
    pub(crate) accounts: Vec<Account>,
    pub(crate) callout: Callout,
    pub(crate) sys_password: String,
}

/// The way to the other servers of a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Routes {
    pub(crate) cluster: String,
    pub(crate) port: u16,
    pub(crate) others: Vec<u16>,
    pub(crate) password: String,
    /// See [`crate::Options::nats_doors`].
    pub(crate) doors: Vec<String>,
}

/// Only servers know it, and only the ports of routes take it.
const ROUTE_USER: &str = "route";

impl Configuration {
    pub(crate) fn render(&self) -> String {
        let port = |port: Option<u16>| port.map_or("-1".to_owned(), |port| port.to_string());
        // Writing to a String cannot fail.
        let mut text = String::new();
        let _ = writeln!(text, "server_name: {}", quoted(&self.server_name));
        let _ = writeln!(text, "host: \"127.0.0.1\"");
        let _ = writeln!(text, "port: {}", port(self.ports.map(|ports| ports.0)));
        let _ = writeln!(text, "http: \"127.0.0.1:{}\"", port(self.ports.map(|ports| ports.1)));
        let _ = writeln!(text, "ports_file_dir: {}", quoted(&self.folder.join("ports").to_string_lossy()));
        if self.cluster.is_some() {
            // A server that is silent is dropped by the others after two of these; the default takes minutes.
            let _ = writeln!(text, "ping_interval: \"5s\"");
        }
        let _ = writeln!(text, "jetstream {{");
        // The server adds a folder `jetstream` of its own.
        let _ = writeln!(text, "  store_dir: {}", quoted(&self.folder.to_string_lossy()));
        if self.sync_always {
            let _ = writeln!(text, "  sync_interval: always");
        }
        if self.cluster.is_some() {
            // Left alone, each would think that three quarters of the machine's memory are its own. Ours needs next to none.
            let _ = writeln!(text, "  max_memory_store: 256MB");
        }
        let _ = writeln!(text, "}}");
        if let Some(routes) = &self.cluster {
            routes.render(&mut text);
        }
        let _ = writeln!(text, "system_account: SYS\naccounts {{");
        let _ = writeln!(text, "  SYS {{ users: [ {{ user: sys, password: \"{}\" }} ] }}", self.sys_password);
        let doors = self.cluster.as_ref().map(|routes| routes.doors(&self.server_name)).unwrap_or_default();
        for account in &self.accounts {
            render_account(account, if account.doors { &doors } else { &[] }, &mut text);
        }
        let Callout { account, user, password, issuer, .. } = &self.callout;
        let _ = writeln!(text, "  {account} {{ users: [ {{ user: \"{user}\", password: \"{password}\" }} ] }}\n}}");
        // Whoever is not one of these is not known here: the platform is asked, and says what they may do.
        let known: Vec<String> = self.known().map(quoted).collect();
        let _ = writeln!(text, "authorization {{\n  auth_callout {{\n    issuer: \"{issuer}\"\n    account: {account}");
        let _ = writeln!(text, "    auth_users: [{}]\n  }}\n}}", known.join(", "));
        text
    }

    /// The users of this file.
    fn known(&self) -> impl Iterator<Item = &str> {
        let of_accounts = self.accounts.iter().flat_map(|account| {
            std::iter::once(account.internal.0.as_str()).chain(account.users.iter().map(|(_, full, _)| full.as_str()))
        });
        ["sys", self.callout.user].into_iter().chain(of_accounts)
    }
}

impl Routes {
    fn render(&self, text: &mut String) {
        let _ = writeln!(text, "cluster {{\n  name: {}", quoted(&self.cluster));
        let _ = writeln!(text, "  listen: \"127.0.0.1:{}\"", self.port);
        let _ = writeln!(text, "  authorization {{ user: {ROUTE_USER}, password: \"{}\" }}", self.password);
        let _ = writeln!(text, "  routes: [");
        for other in &self.others {
            let _ = writeln!(text, "    \"nats://{ROUTE_USER}:{}@127.0.0.1:{other}\"", self.password);
        }
        let _ = writeln!(text, "  ]\n}}");
    }

    fn doors(&self, server_name: &str) -> Vec<String> {
        let mapped = |door: &String| format!("{}: {}", quoted(door), quoted(&format!("door.{server_name}.{door}")));
        self.doors.iter().map(mapped).collect()
    }
}

fn render_account(account: &Account, doors: &[String], text: &mut String) {
    let (user, password) = &account.internal;
    let _ = writeln!(text, "  {} {{", account.name);
    if account.jetstream {
        let _ = writeln!(text, "    jetstream: enabled");
    }
    if !doors.is_empty() {
        let _ = writeln!(text, "    mappings: {{ {} }}", doors.join(", "));
    }
    let _ = writeln!(text, "    users: [");
    let _ = writeln!(text, "      {{ user: \"{user}\", password: \"{password}\" }}");
    for (user, full, password) in &account.users {
        let _ = writeln!(
            text,
            "      {{ user: \"{full}\", password: \"{password}\", permissions: {{ publish: {}, subscribe: {} }} }}",
            permission(&user.publish),
            permission(&user.subscribe),
        );
    }
    let _ = writeln!(text, "    ]\n  }}");
}

/// An empty list of what is allowed would allow everything.
fn permission(subjects: &[String]) -> String {
    if subjects.is_empty() {
        return "{ deny: [\">\"] }".to_owned();
    }
    let quoted: Vec<String> = subjects.iter().map(|subject| quoted(subject)).collect();
    format!("{{ allow: [{}] }}", quoted.join(", "))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The configurations of three servers, as `airstream up --cluster 3` writes them, but with ports and folders that can be
/// remembered and passwords that have to be changed. `nats/cluster/` has them for people to read.
pub fn example_cluster(users: &[NatsUser], doors: &[String]) -> [String; 3] {
    let password = || "CHANGE-ME".to_owned();
    let accounts = super::own_accounts(users, |_| Ok(password())).unwrap_or_default();
    let callout = Callout::of("CHANGE-ME".to_owned(), String::new(), password());
    [1, 2, 3].map(|number| {
        let others = [1, 2, 3].into_iter().filter(|other| *other != number).map(|other| 6220 + other).collect();
        let configuration = Configuration {
            server_name: format!("airstream-{number}"),
            ports: Some((4220 + number, 8220 + number)),
            folder: format!("/var/lib/airstream/nats-{number}").into(),
            sync_always: true,
            cluster: Some(Routes {
                cluster: "airstream".to_owned(),
                port: 6220 + number,
                others,
                password: password(),
                doors: doors.to_vec(),
            }),
            accounts: accounts.clone(),
            callout: callout.clone(),
            sys_password: password(),
        };
        format!(
            "# Server {number} of 3, as `airstream up --cluster 3` would write it. README.md says what to change.\n{}",
            configuration.render()
        )
    })
}
