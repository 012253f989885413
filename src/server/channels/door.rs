//! Which of other systems' doors a path leads to.

use hookbot_protocol::Keys;

use super::channel_id::{ChannelId, Kind};

/// A path of another system, with the id that was in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) enum Door {
    /// `/smee/new`: a channel of smee or gosmee.
    NewSmee,
    /// `/smee/version`, which gosmee asks for.
    Version,
    /// `/smee/<id>`: senders post here, smee's clients listen.
    Smee(ChannelId),
    /// `/smee/events/<id>`: gosmee's clients listen.
    Events(ChannelId),
    /// `/smee/replay/<id>`: a message is sent again.
    Replay(ChannelId),
    /// `/new`: a channel of webhook-over-websocket.
    New,
    /// `/ws/<id>`: its client connects.
    Socket(ChannelId),
    /// `/webhook/<id>` and everything below it: senders call.
    Webhook(ChannelId),
    /// `/traefik-config`: all channels with a client, for Traefik.
    Traefik,
    /// `/internal/channels`: the same for other servers.
    Channels,
}

/// There is no such door, or nobody has been given that id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Closed;

impl Door {
    /// Whether this path, decoded, is one of the doors' at all.
    pub(in crate::server) fn is_door(path: &str) -> bool {
        let first = path[1..].split('/').next().unwrap_or_default();
        ["smee", "new", "ws", "webhook", "traefik-config", "internal"].contains(&first)
    }

    /// The channel that it leads to.
    pub(super) fn id(&self) -> Option<&ChannelId> {
        match self {
            Self::Smee(id)
            | Self::Events(id)
            | Self::Replay(id)
            | Self::Socket(id)
            | Self::Webhook(id) => Some(id),
            Self::NewSmee | Self::Version | Self::New | Self::Traefik | Self::Channels => None,
        }
    }

    /// The door that a decoded path leads to, whose id must be by one of these keys.
    pub(super) fn parse(path: &str, keys: &Keys) -> Result<Self, Closed> {
        let smee = |id| ChannelId::parse(id, keys, Kind::Smee).ok_or(Closed);
        let websocket = |id| ChannelId::parse(id, keys, Kind::Websocket).ok_or(Closed);
        let segments: Vec<_> = path[1..].split('/').collect();
        match segments[..] {
            ["smee", "new"] => Ok(Self::NewSmee),
            ["smee", "version"] => Ok(Self::Version),
            ["smee", id] => smee(id).map(Self::Smee),
            ["smee", "events", id] => smee(id).map(Self::Events),
            ["smee", "replay", id] => smee(id).map(Self::Replay),
            ["new"] => Ok(Self::New),
            ["ws", id] => websocket(id).map(Self::Socket),
            ["webhook", id, ..] => websocket(id).map(Self::Webhook),
            ["traefik-config"] => Ok(Self::Traefik),
            ["internal", "channels"] => Ok(Self::Channels),
            _ => Err(Closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookbot_protocol::{Key, Path};

    #[test]
    fn a_path_leads_to_the_door_that_it_names() {
        let keys = Keys::new(Key::new(b"k").unwrap());
        let smee = ChannelId::mint(&keys, Kind::Smee).unwrap();
        let ws = ChannelId::mint(&keys, Kind::Websocket).unwrap();
        let (s, w) = (smee.expose(), ws.expose());
        for (path, door) in [
            ("/smee/new", Ok(Door::NewSmee)),
            ("/smee/version", Ok(Door::Version)),
            (&format!("/smee/{s}"), Ok(Door::Smee(smee.clone()))),
            (&format!("/smee/events/{s}"), Ok(Door::Events(smee.clone()))),
            (&format!("/smee/replay/{s}"), Ok(Door::Replay(smee.clone()))),
            ("/new", Ok(Door::New)),
            (&format!("/ws/{w}"), Ok(Door::Socket(ws.clone()))),
            (&format!("/webhook/{w}"), Ok(Door::Webhook(ws.clone()))),
            (&format!("/webhook/{w}/"), Ok(Door::Webhook(ws.clone()))),
            (&format!("/webhook/{w}/a/b"), Ok(Door::Webhook(ws.clone()))),
            ("/traefik-config", Ok(Door::Traefik)),
            ("/internal/channels", Ok(Door::Channels)),
            // An id is good behind its own doors alone.
            (&format!("/smee/{w}"), Err(Closed)),
            (&format!("/ws/{s}"), Err(Closed)),
            (&format!("/webhook/{s}"), Err(Closed)),
            (&format!("/smee/{s}/"), Err(Closed)),
            (&format!("/smee/{s}/a"), Err(Closed)),
            (&format!("/ws/{w}/a"), Err(Closed)),
            ("/smee", Err(Closed)),
            ("/smee/made-up-by-somebody", Err(Closed)),
            ("/webhook", Err(Closed)),
            ("/internal", Err(Closed)),
            ("/new/", Err(Closed)),
        ] {
            let parsed = Path::parse(path).unwrap();
            assert!(Door::is_door(parsed.as_str()), "{path}");
            assert_eq!(Door::parse(parsed.as_str(), &keys), door, "{path}");
        }
        for path in ["/", "/status", "/version", "/call/a", "/unsafe/a"] {
            assert!(!Door::is_door(path), "{path}");
        }
    }
}
