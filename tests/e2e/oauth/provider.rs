//! A certified OpenID provider, in Google's place.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use stories::guests::{Killed, node_modules};

/// What the providers know us by.
pub(crate) const SECRET: &str = "a secret: with/odd characters&=";

pub(crate) struct Provider {
    _process: Killed,
    pub(crate) issuer: String,
}

impl Provider {
    /// With accounts of Ann, Bob and Eve, whose addresses are `<name>@example.org`.
    pub(crate) fn start(redirect_uri: &str) -> Self {
        let person = |name: &str| json!({ "email": format!("{name}@example.org"), "email_verified": true });
        let mut ann = person("ann");
        ann["name"] = "Ann Bee".into();
        let accounts = json!({ "ann": ann, "bob": person("bob"), "eve": person("eve") });
        let arguments = json!({ "redirect_uri": redirect_uri, "accounts": accounts }).to_string();
        let mut node = Command::new("node");
        node.env("NODE_MODULES", node_modules(&["oidc-provider@9.13.3"]));
        node.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/e2e/oauth/provider.mjs")).arg(arguments);
        let mut process = node.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("node is needed");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let issuer = lines.find_map(|line| serde_json::from_str::<Value>(&line).ok());
        // It goes on talking, and ends when nobody listens.
        std::thread::spawn(move || lines.for_each(drop));
        let issuer = issuer.expect("a provider that starts")["issuer"].as_str().unwrap().to_owned();
        Self { _process: Killed(process), issuer }
    }

    /// What it lies about from here on.
    pub(crate) async fn lie(&self, lie: Value) {
        let told = reqwest::Client::new().post(format!("{}/lie", self.issuer)).body(lie.to_string()).send().await;
        assert!(told.unwrap().status().is_success());
    }
}
