//! Why a request was refused, and how the client is told.

use std::time::Duration;

use hookbot_log::{AppendError, ReadError};
use hookbot_protocol::{PathError, TopicError};
use hookbot_signatures::Refusal;
use http::StatusCode;
use http::header::{
    ALLOW, CONNECTION, HeaderName, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE,
    WWW_AUTHENTICATE,
};

use super::channels::BadResponse;
use super::head::Flaw;
use super::reply::{Reply, line};

/// Why a request was refused. The text is sent to the client, so it names no secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("{0}")]
    Head(#[from] Flaw),
    #[error("a request must have exactly one Host header")]
    Host,
    #[error("{0}")]
    Path(#[from] PathError),
    #[error("")]
    Unauthorized,
    #[error("{0}")]
    Signature(Refusal),
    #[error("your address is not admitted here")]
    Address,
    #[error("too many requests {whose}")]
    Rate {
        whose: &'static str,
        reason: &'static str,
        wait: Duration,
    },
    #[error("bodies here must be of one of these types: {0}")]
    ContentType(String),
    #[error("what came here cannot be published where it belongs: {0}")]
    Promotion(TopicError),
    #[error("there are as many connections as there may be")]
    Connections,
    #[error("there are as many connections from your address as there may be")]
    ConnectionsOfAddress,
    #[error("there are as many subscribers as there may be")]
    Subscribers,
    #[error("there are as many subscribers with this token or on this channel as there may be")]
    SubscribersOfToken,
    #[error("there are as many channels in use as there may be")]
    Channels,
    #[error("nobody has been given such a channel")]
    NoChannel,
    #[error("the channel already has a client")]
    ChannelTaken,
    #[error("Client not connected")]
    NoClient,
    #[error("the client has gone, or could not take the request")]
    ClientGone,
    #[error("the client's answer is no response: {0}")]
    BadAnswer(#[from] BadResponse),
    #[error("channels for encrypted events are not offered here")]
    Encrypted,
    #[error("the server has no memory to spare")]
    Memory,
    #[error("too many wrong tokens or signatures came from your address")]
    TooManyFailures(Duration),
    #[error("a page on another host must not use this browser's password; see --origin")]
    Origin,
    #[error("X-Hookbot-Unsafe-Is-Ok header required.")]
    UnsafeHeader,
    #[error("nothing is here")]
    NotFound,
    #[error("use {0}")]
    Method(&'static str),
    #[error("subscribe with a WebSocket client, at {0}, or accept text/event-stream")]
    NotWebSocket(String),
    #[error("only version 13 of the WebSocket protocol is spoken here")]
    WebSocketVersion,
    #[error("{0}")]
    Handshake(String),
    #[error("bad {name}, expected {expected}")]
    Query {
        name: &'static str,
        expected: &'static str,
    },
    #[error("messages you asked for are no longer kept; with ?gap=skip you get the rest")]
    Gone,
    #[error("{0}")]
    NotRead(#[from] ReadError),
    #[error("the body must not be larger than {limit} bytes")]
    BodyTooLarge { limit: usize },
    #[error("{0}")]
    NotKept(#[from] AppendError),
    #[error("the body took longer than {} s", .0.as_secs_f32())]
    BodyTimeout(Duration),
    #[error("the body ended early or is malformed")]
    BodyBroken,
    #[error("too many messages without a token")]
    TooMany(Duration),
    #[error("the log takes no messages")]
    NotReady,
    #[error("the server has as much to do as it can hold; try again")]
    Busy,
    #[error("no responder is connected to answer this")]
    NoResponder,
    #[error("the responders have as many calls as they take; try again")]
    RespondersBusy,
    #[error("the responder did not answer within {} s", .0.as_secs_f32())]
    NoAnswer(Duration),
    #[error("the responder has taken nothing of the body for {} s", .0.as_secs_f32())]
    ResponderStalled(Duration),
    #[error("nothing of the body has come from you for {} s", .0.as_secs_f32())]
    BodyStalled(Duration),
    #[error("the responder was lost before it answered, or could not pass the answer on")]
    ResponderLost,
    #[error("the responder does not take WebSockets and other upgrades")]
    NoUpgrades,
}

impl HttpError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized | Self::Signature(_) => StatusCode::UNAUTHORIZED,
            Self::Origin | Self::Address => StatusCode::FORBIDDEN,
            Self::ContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NotFound | Self::NoChannel | Self::NoClient => StatusCode::NOT_FOUND,
            Self::ChannelTaken => StatusCode::CONFLICT,
            Self::ClientGone | Self::BadAnswer(_) => StatusCode::BAD_GATEWAY,
            Self::Gone => StatusCode::GONE,
            Self::NotRead(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout(_) | Self::BodyStalled(_) => StatusCode::REQUEST_TIMEOUT,
            Self::NoResponder | Self::ResponderLost | Self::NoUpgrades => StatusCode::BAD_GATEWAY,
            Self::NoAnswer(_) | Self::ResponderStalled(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::BodyTooLarge { .. } | Self::NotKept(AppendError::TooLarge { .. }) => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::NotWebSocket(_) | Self::WebSocketVersion => StatusCode::UPGRADE_REQUIRED,
            Self::TooMany(_)
            | Self::TooManyFailures(_)
            | Self::Rate { .. }
            | Self::ConnectionsOfAddress
            | Self::SubscribersOfToken => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy
            | Self::Memory
            | Self::Connections
            | Self::Subscribers
            | Self::Channels
            | Self::NotReady
            | Self::NotKept(_)
            | Self::RespondersBusy => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// A word for it, to count by.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Head(_) | Self::Host | Self::Handshake(_) | Self::WebSocketVersion => "malformed",
            Self::Path(_) => "path",
            Self::Unauthorized => "token",
            Self::TooManyFailures(_) => "failures",
            Self::Signature(_) => "signature",
            Self::Address => "address",
            Self::Rate { reason, .. } => reason,
            Self::ContentType(_) => "content_type",
            Self::Promotion(_) => "promotion",
            Self::Connections => "connections",
            Self::ConnectionsOfAddress => "connections_of_address",
            Self::Subscribers | Self::SubscribersOfToken => "subscribers",
            Self::Channels => "channels",
            Self::NoChannel | Self::Encrypted => "channel",
            Self::ChannelTaken => "channel_taken",
            Self::NoClient => "no_client",
            Self::ClientGone => "client_gone",
            Self::BadAnswer(_) => "bad_answer",
            Self::Memory => "memory",
            Self::Origin => "origin",
            Self::UnsafeHeader => "unsafe_header",
            Self::NotFound => "not_found",
            Self::Method(_) => "method",
            Self::NotWebSocket(_) => "not_websocket",
            Self::Query { .. } => "query",
            Self::Gone => "gone",
            Self::BodyTooLarge { .. } | Self::NotKept(AppendError::TooLarge { .. }) => "too_large",
            Self::BodyTimeout(_) | Self::BodyStalled(_) => "body_timeout",
            Self::NoResponder => "no_responder",
            Self::RespondersBusy => "responders_busy",
            Self::NoAnswer(_) | Self::ResponderStalled(_) => "no_answer",
            Self::ResponderLost | Self::NoUpgrades => "responder_failed",
            Self::BodyBroken => "body_broken",
            Self::TooMany(_) => "unsafe_rate",
            Self::Busy => "busy",
            Self::NotKept(AppendError::Full) => "log_full",
            Self::NotKept(_) | Self::NotRead(_) => "log_failed",
            Self::NotReady => "not_ready",
        }
    }

    /// The headers that belong to the status.
    fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let text = HeaderValue::from_static;
        match self {
            Self::Unauthorized | Self::Signature(_) => {
                vec![(WWW_AUTHENTICATE, text("Basic realm=\"hookbot\""))]
            }
            Self::Method(allowed) => vec![(ALLOW, text(allowed))],
            Self::NotWebSocket(_) => {
                vec![(UPGRADE, text("websocket")), (CONNECTION, text("upgrade"))]
            }
            Self::WebSocketVersion => vec![(SEC_WEBSOCKET_VERSION, text("13"))],
            Self::TooMany(wait) | Self::TooManyFailures(wait) | Self::Rate { wait, .. } => {
                vec![(RETRY_AFTER, (wait.as_secs() + 1).into())]
            }
            Self::NotKept(AppendError::TooLarge { .. }) => Vec::new(),
            Self::Busy
            | Self::RespondersBusy
            | Self::Memory
            | Self::Connections
            | Self::ConnectionsOfAddress
            | Self::Subscribers
            | Self::SubscribersOfToken
            | Self::Channels
            | Self::NotKept(_) => vec![(RETRY_AFTER, text("1"))],
            _ => Vec::new(),
        }
    }

    /// One line that says what was wrong.
    pub(super) fn reply(&self) -> Reply {
        let status = self.status();
        let reason = match self {
            // These two the Go program's clients know by heart.
            Self::Unauthorized => format!("{status}\n"),
            Self::UnsafeHeader => format!("{status}. {self}\n"),
            _ => format!("{status}: {self}\n"),
        };
        let mut reply = line(status, reason);
        reply.headers_mut().extend(self.headers());
        reply
    }
}
