//! What a target's URL means.

use std::net::IpAddr;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hookbot_listen::dial::{Proxy, host_and_port};
use http::Uri;
use http::header::HeaderValue;
use http::uri::PathAndQuery;
use hyper_util::client::proxy::matcher::Matcher;
use percent_encoding::percent_decode_str;

use crate::connector::Way;
use crate::target::TargetSettings;
use crate::tls::TlsError;

/// A target's URL in its parts.
pub(crate) struct Url {
    /// Scheme and authority, without credentials.
    pub(crate) origin: String,
    /// Path and query, as given.
    pub(crate) target: PathAndQuery,
    pub(crate) host: HeaderValue,
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) proxy_authorization: Option<HeaderValue>,
    pub(crate) shown: String,
    pub(crate) name: String,
}

/// Why a URL is no target.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// It is no URL that can be used. It is not repeated here, as it may hold a password.
    #[error("not a usable target: {0}")]
    Url(&'static str),
    /// The proxy that the environment asks for can't be used.
    #[error(transparent)]
    Proxy(#[from] hookbot_listen::Error),
    /// TLS can't be spoken as asked.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

pub(crate) fn tcp(url: &str, settings: &TargetSettings) -> Result<(Url, Way), TargetError> {
    const SCHEMES: &str = "it must begin with http://, https:// or unix:/";
    let parsed: Uri = url.parse().map_err(|_| match url.contains("://") {
        true => TargetError::Url("it does not parse; percent-encode what is unusual in it"),
        false => TargetError::Url(SCHEMES),
    })?;
    let scheme = parsed.scheme_str().map(str::to_ascii_lowercase);
    let tls = match scheme.as_deref() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(TargetError::Url(SCHEMES)),
    };
    let parts = parsed.into_parts();
    let (Some(authority), Some(scheme)) = (parts.authority, scheme) else {
        return Err(TargetError::Url("it names no host"));
    };
    let (user_info, address) = match authority.as_str().rsplit_once('@') {
        Some((user_info, address)) => (Some(user_info), address),
        None => (None, authority.as_str()),
    };
    let bracketed = authority.host();
    let host = bracketed.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(TargetError::Url("it names no host"));
    }
    let port = match address.strip_prefix(bracketed) {
        Some("") if tls => 443,
        Some("") => 80,
        rest => rest
            .and_then(|rest| rest.strip_prefix(':')?.parse().ok())
            .ok_or(TargetError::Url("its port is not a number below 65536"))?,
    };

    let origin = format!("{scheme}://{address}");
    let proxy = (settings.proxies && !is_loopback(host) && settings.guard.is_none())
        .then(|| {
            format!("{scheme}://{}/", host_and_port(host, port))
                .parse()
                .ok()
        })
        .flatten()
        .and_then(|uri| Matcher::from_env().intercept(&uri))
        .map(|proxy| Proxy::new(&proxy))
        .transpose()?;
    let slash = || PathAndQuery::from_static("/");
    let target = parts.path_and_query.unwrap_or_else(slash);
    let credentials = user_info.map_or("", |_| "***@");
    let url = Url {
        host: HeaderValue::try_from(address)
            .map_err(|_| TargetError::Url("its host can't be sent"))?,
        authorization: user_info.map(basic).transpose()?,
        proxy_authorization: proxy
            .as_ref()
            .filter(|_| !tls)
            .and_then(|proxy| proxy.authorization.clone()),
        shown: masked(&format!("{scheme}://{credentials}{address}{target}")),
        name: format!("{origin}{target}"),
        origin,
        target,
    };
    let host = host.to_owned();
    let way = Way::Tcp {
        host,
        port,
        tls,
        proxy,
    };
    Ok((url, way))
}

pub(crate) fn unix(rest: &str) -> Result<(Url, Way), TargetError> {
    let (path, target) = match rest.split_once(":/") {
        Some((path, target)) => (path, format!("/{target}")),
        None => (rest, "/".to_owned()),
    };
    if !path.starts_with('/') {
        return Err(TargetError::Url("a socket's path begins with a slash"));
    }
    let target: PathAndQuery = target
        .parse()
        .map_err(|_| TargetError::Url("the path behind the socket does not parse"))?;
    let url = Url {
        origin: "http://localhost".to_owned(),
        host: HeaderValue::from_static("localhost"),
        authorization: None,
        proxy_authorization: None,
        shown: masked(&format!("unix:{path}:{target}")),
        name: format!("unix:{path}:{target}"),
        target,
    };
    Ok((url, Way::Unix(PathBuf::from(path))))
}

/// Whether a host is the machine itself.
pub(crate) fn is_loopback(host: &str) -> bool {
    let ip = host.parse().map(|ip: IpAddr| ip.to_canonical());
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

/// The `Authorization` header (RFC 7617) of what is before the `@`.
fn basic(user_info: &str) -> Result<HeaderValue, TargetError> {
    let mut credentials: Vec<u8> = percent_decode_str(user_info).collect();
    if !user_info.contains(':') {
        credentials.push(b':');
    }
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(credentials)))
        .map_err(|_| TargetError::Url("its credentials can't be sent"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A target's [name](crate::Target::name) as it may be shown to anybody: with `***` for each value in its
/// query, which may be a key. Any other text is left alone.
#[must_use]
pub fn masked(name: &str) -> String {
    let is_url = ["http://", "https://", "unix:"];
    let is_url = is_url.iter().any(|begin| name.starts_with(begin));
    match name.split_once('?').filter(|_| is_url) {
        None => name.to_owned(),
        Some((path, query)) => {
            let pairs = query.split('&').map(|pair| match pair.split_once('=') {
                Some((name, _)) => format!("{name}=***"),
                None => pair.to_owned(),
            });
            format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"))
        }
    }
}
