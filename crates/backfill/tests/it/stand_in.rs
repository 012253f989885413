//! A stand-in for the APIs of GitHub and GitLab, as far as they document what they say of webhooks.
//!
//! It is as strict as they are: it wants its token, GitHub's wants a user agent, and refuses a
//! query it does not know. GitHub's pages are named by opaque cursors, which stay where they are
//! when something new comes; GitLab's by number, and move.

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What the stand-in takes, and what nobody else may see.
pub(crate) const TOKEN: &str = "ghp_canary0123456789";

/// An API on a port of its own; it is gone when dropped.
pub(crate) struct StandIn {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    serving: JoinHandle<()>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Something that happens after a page was made, to what the next one is made of.
type Meanwhile = Box<dyn FnMut(&mut Vec<Sent>) + Send>;

#[derive(Default)]
pub(crate) struct State {
    /// The path that everything is below.
    pub(crate) prefix: String,
    /// Oldest first.
    pub(crate) sent: Vec<Sent>,
    /// Listed, and not there when asked for.
    pub(crate) gone: HashSet<u64>,
    /// Not delivered again.
    pub(crate) too_old: HashSet<u64>,
    pub(crate) hooks: Vec<Value>,
    /// Answers to the next requests, instead of the right ones.
    pub(crate) faults: VecDeque<Fault>,
    /// Headers of every right answer.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// Scheme and host of links, where they are not this server's.
    pub(crate) link_origin: Option<String>,
    pub(crate) meanwhile: Option<Meanwhile>,
    /// What was asked for.
    pub(crate) asked: Vec<Asked>,
    /// Any token is good, and somebody else looks at it.
    pub(crate) takes_any_token: bool,
}

/// One attempt.
#[derive(Clone)]
pub(crate) struct Sent {
    pub(crate) id: u64,
    pub(crate) delivery: String,
    /// RFC 3339.
    pub(crate) at: String,
    pub(crate) event: &'static str,
    pub(crate) status: u16,
    pub(crate) is_repeated: bool,
    pub(crate) headers: Vec<(String, String)>,
    /// As JSON text.
    pub(crate) payload: String,
}

impl Sent {
    /// One that succeeded, in this second of a day.
    pub(crate) fn new(id: u64, delivery: &str, second: u64) -> Self {
        let (hour, minute) = (second / 3_600, second / 60 % 60);
        Self {
            id,
            delivery: delivery.to_owned(),
            at: format!("2026-01-31T{hour:02}:{minute:02}:{:02}Z", second % 60),
            event: "push",
            status: 200,
            is_repeated: false,
            headers: Vec::new(),
            payload: format!(r#"{{"n":{id},"text":"<&>"}}"#),
        }
    }
}

pub(crate) enum Fault {
    Answer(u16, Vec<(&'static str, String)>, String),
    /// A refusal that repeats the request's own token.
    Echo,
    /// Nothing is ever said; somebody is told that it was asked.
    Silence(tokio::sync::oneshot::Sender<()>),
}

impl Fault {
    pub(crate) fn status(status: u16) -> Self {
        Self::Answer(status, Vec::new(), "{}".to_owned())
    }
}

#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// With the query.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
}

impl StandIn {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let own = state.clone();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = own.clone();
                let service = service_fn(move |request| answer(state.clone(), address, request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self {
            address,
            state,
            serving,
        }
    }

    /// The URL of the API.
    pub(crate) fn url(&self) -> String {
        format!("http://{}{}", self.address, self.state().prefix)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The targets that were asked for.
    pub(crate) fn targets(&self) -> Vec<String> {
        let state = self.state();
        state
            .asked
            .iter()
            .map(|asked| asked.target.clone())
            .collect()
    }
}

async fn answer(
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let fault = {
        let mut state = state.lock().unwrap();
        state.asked.push(Asked {
            method: request.method().clone(),
            target: request.uri().to_string(),
            headers: request.headers().clone(),
        });
        state.faults.pop_front()
    };
    match fault {
        None => Ok(state.lock().unwrap().answer(address, &request)),
        Some(Fault::Answer(status, headers, body)) => Ok(reply(status, &headers, body)),
        Some(Fault::Echo) => {
            let token = request.headers()["authorization"].to_str().unwrap();
            Ok(refuse(401, &format!("not with {token}\u{1b}[31m")))
        }
        Some(Fault::Silence(asked)) => {
            let _ = asked.send(());
            std::future::pending().await
        }
    }
}

fn reply(status: u16, headers: &[(&'static str, String)], body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    response
}

fn refuse(status: u16, message: &str) -> Response<Full<Bytes>> {
    reply(status, &[], json!({ "message": message }).to_string())
}

impl State {
    fn answer(
        &mut self,
        address: SocketAddr,
        request: &Request<Incoming>,
    ) -> Response<Full<Bytes>> {
        let headers = request.headers();
        let text = |name: &str| {
            headers
                .get(name)
                .map_or("", |value| value.to_str().unwrap())
        };
        if !self.takes_any_token && text("authorization") != format!("Bearer {TOKEN}") {
            return refuse(401, "Bad credentials");
        }
        let Some(path) = request.uri().path().strip_prefix(&self.prefix) else {
            return refuse(404, "Not Found");
        };
        let query = request.uri().query().unwrap_or_default();
        let query: HashMap<String, String> = form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let is_github = !matches!(segments[0], "projects" | "groups");
        if is_github && text("user-agent").is_empty() {
            return refuse(403, "Request forbidden by administrative rules.");
        }
        let rest = match &segments[..] {
            ["repos", "acme", "site", "hooks", rest @ ..]
            | ["orgs", "acme", "hooks", rest @ ..]
            | ["projects", "acme%2Fweb%2Fsite", "hooks", rest @ ..]
            | ["groups", "acme", "hooks", rest @ ..] => rest,
            ["app", "hook", "config"] => {
                return self.right(
                    json!({ "content_type": "json", "url": "https://hooks.example.com/app" })
                        .to_string(),
                );
            }
            ["app", "hook", rest @ ..] => &[&["7"][..], rest].concat(),
            _ => return refuse(404, "Not Found"),
        };
        match (request.method().as_str(), rest) {
            ("GET", []) => self.right(Value::from(self.hooks.clone()).to_string()),
            ("GET", ["7", "deliveries"]) => self.deliveries(address, path, &query),
            ("GET", ["7", "events"]) => self.events(address, path, &query),
            ("GET", ["7", "deliveries", id]) => self.detail(id.parse().unwrap()),
            ("POST", ["7", "deliveries", id, "attempts"]) => {
                if self.too_old.contains(&id.parse().unwrap()) {
                    return refuse(422, "Delivery is too old to be redelivered");
                }
                reply(202, &[], "{}".to_owned())
            }
            ("POST", ["7", "events", _, "resend"]) => {
                reply(201, &[], r#"{"response_status":200}"#.to_owned())
            }
            _ => refuse(404, "Not Found"),
        }
    }

    fn right(&self, body: String) -> Response<Full<Bytes>> {
        reply(200, &self.headers, body)
    }

    /// GitHub's list: from behind a cursor, newest first.
    fn deliveries(
        &mut self,
        address: SocketAddr,
        path: &str,
        query: &HashMap<String, String>,
    ) -> Response<Full<Bytes>> {
        if let Some(other) = query
            .keys()
            .find(|name| !["per_page", "cursor"].contains(&&***name))
        {
            return refuse(
                422,
                &format!("Invalid request.\n\n\"{other}\" is not a permitted key."),
            );
        }
        let per_page: usize = query
            .get("per_page")
            .map_or(30, |text| text.parse().unwrap());
        assert!(per_page <= 100, "at most 100 on a page");
        let below = query.get("cursor").map_or(u64::MAX, |cursor| {
            let id = cursor.strip_prefix("v1_").expect("one of our cursors");
            u64::from_str_radix(id, 36).unwrap()
        });
        let mut behind = self.sent.iter().rev().filter(|sent| sent.id < below);
        let page: Vec<_> = behind.by_ref().take(per_page).cloned().collect();
        let mut headers = self.headers.clone();
        if behind.next().is_some() {
            let origin = self.link_origin(address);
            let cursor = base_36(page.last().unwrap().id);
            let link = format!(
                r#"<{origin}{}{path}?per_page={per_page}&cursor=v1_{cursor}>; rel="next""#,
                self.prefix
            );
            headers.push(("link", link));
        }
        let items: Vec<_> = page.iter().map(item).collect();
        if let Some(meanwhile) = &mut self.meanwhile {
            meanwhile(&mut self.sent);
        }
        reply(200, &headers, Value::from(items).to_string())
    }

    fn detail(&self, id: u64) -> Response<Full<Bytes>> {
        let sent = self.sent.iter().find(|sent| sent.id == id);
        let Some(sent) = sent.filter(|_| !self.gone.contains(&id)) else {
            return refuse(404, "Not Found");
        };
        let mut headers = vec![
            ("Accept".to_owned(), "*/*".to_owned()),
            ("Content-Type".to_owned(), "application/json".to_owned()),
            (
                "User-Agent".to_owned(),
                "GitHub-Hookshot/044aadd".to_owned(),
            ),
            ("X-GitHub-Delivery".to_owned(), sent.delivery.clone()),
            ("X-GitHub-Event".to_owned(), sent.event.to_owned()),
        ];
        headers.extend(sent.headers.clone());
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{}: {}", json!(name), json!(value)))
            .collect();
        // As GitHub does it for people: with line breaks, and the payload's text as it is.
        let payload = sent.payload.replace(",\"", ",\n  \"");
        self.right(format!(
            "{{\n  \"id\": {id},\n  \"guid\": {},\n  \"url\": \"https://hooks.example.com/\",\n  \
             \"request\": {{\n \"headers\": {{ {} }},\n \"payload\": {payload}\n }},\n  \
             \"response\": {{ \"headers\": {{}}, \"payload\": \"OK\" }}\n}}",
            json!(sent.delivery),
            headers.join(", "),
        ))
    }

    /// GitLab's list: by number of page, newest first.
    fn events(
        &mut self,
        address: SocketAddr,
        path: &str,
        query: &HashMap<String, String>,
    ) -> Response<Full<Bytes>> {
        let number =
            |name: &str, usual| query.get(name).map_or(usual, |text| text.parse().unwrap());
        let (page, per_page) = (number("page", 1), number("per_page", 20));
        if per_page > 20 {
            return reply(
                400,
                &[],
                r#"{"error":"per_page does not have a valid value"}"#.to_owned(),
            );
        }
        let newest_first = self.sent.iter().rev();
        let items: Vec<_> = newest_first
            .skip((page - 1) * per_page)
            .take(per_page)
            .map(event)
            .collect();
        let mut headers = self.headers.clone();
        if self.sent.len() > page * per_page {
            let next = page + 1;
            headers.push(("x-next-page", next.to_string()));
            let origin = self.link_origin(address);
            let link = format!(
                r#"<{origin}{path}?page={next}&per_page={per_page}>; rel="next", <{origin}{path}?page=1>; rel="first""#
            );
            headers.push(("link", link));
        }
        if let Some(meanwhile) = &mut self.meanwhile {
            meanwhile(&mut self.sent);
        }
        reply(200, &headers, format!("[{}]", items.join(",")))
    }

    fn link_origin(&self, address: SocketAddr) -> String {
        let own = || format!("http://{address}");
        self.link_origin.clone().unwrap_or_else(own)
    }
}

fn base_36(mut number: u64) -> String {
    let mut digits = Vec::new();
    while number > 0 {
        digits.push(char::from_digit((number % 36) as u32, 36).unwrap());
        number /= 36;
    }
    digits.iter().rev().collect()
}

/// An item of GitHub's list.
fn item(sent: &Sent) -> Value {
    json!({
        "id": sent.id,
        "guid": sent.delivery,
        "delivered_at": sent.at,
        "redelivery": sent.is_repeated,
        "duration": 0.27,
        "status": if sent.status == 200 { "OK" } else { "Invalid HTTP Response" },
        "status_code": sent.status,
        "event": sent.event,
        "action": null,
        "installation_id": null,
        "repository_id": 123,
        "throttled_at": null,
    })
}

/// An item of GitLab's list.
fn event(sent: &Sent) -> String {
    let mut headers = json!({
        "Content-Type": "application/json",
        "Idempotency-Key": sent.delivery,
        "X-Gitlab-Event": "Push Hook",
        "X-Gitlab-Token": "[REDACTED]",
    });
    for (name, value) in &sent.headers {
        headers[name] = json!(value);
    }
    let created = match &*sent.at {
        "" => json!(null),
        at => json!(at),
    };
    format!(
        r#"{{"id":{},"url":"https://hooks.example.com/","trigger":"push_hooks","request_headers":{headers},"request_data":{},"response_headers":{{"Date":"Thu, 26 Nov 2026 09:00:00 GMT"}},"response_body":"OK","execution_duration":1.09,"response_status":"{}","created_at":{created}}}"#,
        sent.id, sent.payload, sent.status
    )
}
