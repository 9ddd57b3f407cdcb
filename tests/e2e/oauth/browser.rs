//! A browser: it goes where it is sent, and keeps cookies.

use std::collections::BTreeMap;

use reqwest::Url;
use serde_json::Value;

use crate::people::Person;

/// One person's browser.
pub(crate) struct Browser {
    client: reqwest::Client,
    /// By host and port, as real ones do not, so that two servers of one machine do not share any.
    cookies: BTreeMap<(String, String), String>,
    /// Where something says to be, and where that is.
    public: (String, String),
}

/// A page.
pub(crate) struct Page {
    pub(crate) status: u16,
    location: Option<String>,
    pub(crate) body: String,
}

impl Page {
    pub(crate) fn location(&self) -> String {
        self.location.clone().unwrap_or_else(|| panic!("it leads nowhere: {} {}", self.status, self.body))
    }
}

/// A parameter of an address, as it stands there.
pub(crate) fn parameter(url: &str, name: &str) -> String {
    let pairs = url.split_once('?').map_or("", |(_, query)| query).split('&');
    let found = pairs.filter_map(|pair| pair.split_once('=')).find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("{url} has no {name}")).1.to_owned()
}

fn host(url: &str) -> String {
    let url: Url = url.parse().unwrap();
    format!("{}:{}", url.host_str().unwrap(), url.port_or_known_default().unwrap())
}

impl Browser {
    /// `public` is where something says to be, and `there` where it is.
    pub(crate) fn new(public: &str, there: &str) -> Self {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { client, cookies: BTreeMap::new(), public: (public.to_owned(), there.to_owned()) }
    }

    pub(crate) async fn get(&mut self, url: &str) -> Page {
        self.ask("GET", url, None).await
    }

    async fn ask(&mut self, method: &str, url: &str, token: Option<&str>) -> Page {
        let host = host(url);
        let own = self.cookies.iter().filter(|((at, _), _)| *at == host);
        let cookies: Vec<String> = own.map(|((_, name), value)| format!("{name}={value}")).collect();
        let there = url.replacen(&self.public.0, &self.public.1, 1);
        let mut request = self.client.request(method.parse().unwrap(), there).header("cookie", cookies.join("; "));
        if let Some(token) = token {
            request = request.bearer_auth(token).header("content-type", "application/json").body("{}");
        }
        let response = request.send().await.unwrap();
        for line in response.headers().get_all("set-cookie") {
            let pair = line.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.insert((host.clone(), name.to_owned()), value.to_owned());
        }
        let location = response.headers().get("location").map(|location| location.to_str().unwrap().to_owned());
        let location = location.map(|to| url.parse::<Url>().unwrap().join(&to).unwrap().to_string());
        Page { status: response.status().as_u16(), location, body: response.text().await.unwrap() }
    }

    /// Follows a provider's pages, signing in there as somebody, until it sends back.
    pub(crate) async fn through(&mut self, url: &str, who: &str) -> String {
        let mut url = format!("{url}&login_hint={who}");
        for _ in 0..10 {
            url = self.get(&url).await.location();
            if url.starts_with(&self.public.0) {
                return url;
            }
        }
        panic!("the provider sends them around: {url}");
    }

    /// A page of JSON with this status.
    pub(crate) async fn json(&mut self, url: &str, expected: u16) -> Value {
        let page = self.get(url).await;
        assert_eq!(page.status, expected, "{url}: {}", page.body);
        serde_json::from_str(&page.body).unwrap()
    }

    /// Begins to link, as a page would that has somebody's token.
    pub(crate) async fn begin_link(&mut self, person: &Person, provider: &str) -> String {
        let url = format!("{}/v1/me/links/{provider}", self.public.0);
        let page = self.ask("POST", &url, person.http.token.as_deref()).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let answer: Value = serde_json::from_str(&page.body).unwrap();
        assert_eq!(answer["expires_in"], 600);
        answer["authorization_url"].as_str().unwrap().to_owned()
    }
}
