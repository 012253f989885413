//! The URL shapes of the servers that are compared.

use std::fmt;

use clap::ValueEnum;

/// Whose URLs, and whose way to subscribe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// POST /pub/TOPIC and WebSocket /sub/TOPIC, with tokens.
    Hookbot,
    /// POST /pub/ID and WebSocket /sub/ID, as nchan.conf sets it up.
    Nchan,
    /// POST /CHANNEL and an event stream at /events/CHANNEL.
    Gosmee,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hookbot => "hookbot",
            Self::Nchan => "nchan",
            Self::Gosmee => "gosmee",
        })
    }
}

impl Shape {
    /// Where a run's topic of this number is published.
    pub(crate) fn publish_path(self, run: u16, topic: u32) -> String {
        match self {
            Self::Hookbot => format!("/pub/load/{run:04x}-{topic}"),
            Self::Nchan => format!("/pub/load-{run:04x}-{topic}"),
            Self::Gosmee => format!("/{}", Self::channel(run, topic)),
        }
    }

    /// Where it is subscribed to.
    pub(crate) fn subscribe_path(self, run: u16, topic: u32) -> String {
        match self {
            Self::Hookbot => format!("/sub/load/{run:04x}-{topic}"),
            Self::Nchan => format!("/sub/load-{run:04x}-{topic}"),
            Self::Gosmee => format!("/events/{}", Self::channel(run, topic)),
        }
    }

    /// Gosmee wants at least twelve letters and digits.
    fn channel(run: u16, topic: u32) -> String {
        format!("hookbotload{run:04x}{topic:05x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_has_its_own_paths() {
        let table = [
            (Shape::Hookbot, "/pub/load/00ab-12", "/sub/load/00ab-12"),
            (Shape::Nchan, "/pub/load-00ab-12", "/sub/load-00ab-12"),
            (
                Shape::Gosmee,
                "/hookbotload00ab0000c",
                "/events/hookbotload00ab0000c",
            ),
        ];
        for (shape, publish, subscribe) in table {
            assert_eq!(shape.publish_path(0xab, 12), publish);
            assert_eq!(shape.subscribe_path(0xab, 12), subscribe);
        }
    }
}
