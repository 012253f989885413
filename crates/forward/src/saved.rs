//! Saved messages, found and read again: those of [`Saver`](crate::Saver), and those that gosmee
//! has saved.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hookbot_protocol::event::{Event, HeaderText};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::message::Message;
use crate::save::{Facts, sha256};

/// A message in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The file with what is known of it, or with its body where gosmee has saved it.
    file: PathBuf,
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// `.json` has what is known, `.body` the bytes.
    Hookbot,
    /// `.json` has the bytes, and the headers are in a curl or `HTTPie` command in `.sh`.
    Gosmee,
}

/// Finds what is saved in folders and files, in the order of these and in each folder in order of
/// arrival. Any file of a saved message stands for it; several of one are taken as one.
///
/// # Errors
///
/// When one of them can't be read, or a file is not of a saved message. What else is in a folder
/// is passed over.
pub fn find(paths: impl IntoIterator<Item = impl AsRef<Path>>) -> Result<Vec<Saved>, SavedError> {
    let mut found = Vec::new();
    for path in paths {
        let path = path.as_ref();
        let unread = |source| SavedError::Read {
            file: path.to_owned(),
            source,
        };
        if fs::metadata(path).map_err(unread)?.is_dir() {
            let mut saved = Vec::new();
            for entry in fs::read_dir(path).map_err(unread)? {
                let file = entry.map_err(unread)?.path();
                if file.extension() == Some(OsStr::new("json")) {
                    saved.extend(Saved::of(&file));
                }
            }
            saved.sort_by_cached_key(Saved::arrival);
            found.extend(saved);
        } else {
            let saved = Saved::of(path).ok_or_else(|| SavedError::Stranger(path.to_owned()))?;
            if found.last() != Some(&saved) {
                found.push(saved);
            }
        }
    }
    Ok(found)
}

impl Saved {
    /// The saved message that this file belongs to.
    fn of(file: &Path) -> Option<Self> {
        let is_there = |extension| file.with_extension(extension).is_file();
        let is_one_of_it = ["json", "body", "sh"].map(OsStr::new);
        let is_known = file
            .extension()
            .is_some_and(|own| is_one_of_it.contains(&own));
        let format = match (is_there("body"), is_there("sh")) {
            (true, _) => Format::Hookbot,
            (false, true) => Format::Gosmee,
            (false, false) => return None,
        };
        (is_known && is_there("json")).then(|| Self {
            file: file.with_extension("json"),
            format,
        })
    }

    /// The name of the file that it is read from.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// When a file can't be read, or does not hold what it should.
    pub fn read(&self) -> Result<Message, SavedError> {
        match self.format {
            Format::Hookbot => self.read_own(),
            Format::Gosmee => self.read_gosmees(),
        }
    }

    fn read_own(&self) -> Result<Message, SavedError> {
        let facts: Facts =
            serde_json::from_slice(&load(&self.file)?).map_err(|source| SavedError::Facts {
                file: self.file.clone(),
                source,
            })?;
        let file = self.file.with_extension("body");
        let payload = load(&file)?;
        if sha256(&payload) != facts.sha256 {
            return Err(SavedError::Changed(file));
        }
        Ok(Message {
            event: facts.event,
            payload: payload.into(),
        })
    }

    /// The headers are in no certain order there, and some are missing that gosmee has no use for.
    fn read_gosmees(&self) -> Result<Message, SavedError> {
        let file = self.file.with_extension("sh");
        let script = load(&file)?;
        let headers = command_headers(&script).ok_or(SavedError::Script(file))?;
        let time = self.minute().map(|minute| format!("{minute:.3}"));
        Ok(Message {
            event: Event {
                cursor: String::new(),
                topic: String::new(),
                time: time.unwrap_or_default(),
                method: "POST".to_owned(),
                query: String::new(),
                address: String::new(),
                headers,
                attributes: std::collections::BTreeMap::new(),
            },
            payload: load(&self.file)?.into(),
        })
    }

    /// What sorts messages in one folder as they came.
    fn arrival(&self) -> (Option<Timestamp>, Option<SystemTime>, PathBuf) {
        let changed = || fs::metadata(&self.file).ok()?.modified().ok();
        match self.format {
            Format::Hookbot => (None, None, self.file.clone()),
            Format::Gosmee => (self.minute(), changed(), self.file.clone()),
        }
    }

    /// When gosmee has got it: `push-2026-01-31T12.30.01.007`, where the seconds are the month
    /// once more, so that nobody knows them.
    fn minute(&self) -> Option<Timestamp> {
        let name = self.file.file_stem()?.to_str()?;
        let start = name.len().checked_sub("2026-01-31T12.30.01.007".len())?;
        let text = name.get(start..start + "2026-01-31T12.30".len())?;
        let time = DateTime::strptime("%Y-%m-%dT%H.%M", text).ok()?;
        TimeZone::UTC.to_timestamp(time).ok()
    }
}

/// The headers of the one command in a script that sends something.
fn command_headers(script: &[u8]) -> Option<Vec<(String, HeaderText)>> {
    let lines = script.split(|byte| *byte == b'\n');
    let mut commands =
        lines.filter(|line| line.starts_with(b"curl ") || line.starts_with(b"http "));
    let (command, None) = (commands.next()?, commands.next()) else {
        return None;
    };
    let mut lexer = shlex::bytes::Shlex::new(command);
    let words: Vec<_> = lexer.by_ref().collect();
    if lexer.had_error {
        return None;
    }
    let is_curls = command.starts_with(b"curl ");
    let mut headers: Vec<(String, HeaderText)> = Vec::new();
    for (before, word) in words.iter().zip(&words[1..]) {
        let Some(colon) = word.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = str::from_utf8(&word[..colon]).unwrap_or_default();
        let Ok(name) = name.parse::<http::HeaderName>() else {
            continue;
        };
        if is_curls && before != b"-H" {
            continue;
        }
        let header = (name.to_string(), word[colon + 1..].trim_ascii().into());
        // The content type is written twice.
        if !headers.contains(&header) {
            headers.push(header);
        }
    }
    Some(headers)
}

fn load(file: &Path) -> Result<Vec<u8>, SavedError> {
    fs::read(file).map_err(|source| SavedError::Read {
        file: file.to_owned(),
        source,
    })
}

/// Why a saved message can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SavedError {
    /// A file can't be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file is none that was saved, or the others of its message are gone.
    #[error("{} is no saved message, or not all of its files are there", .0.display())]
    Stranger(PathBuf),
    /// A file does not say what is known of the message.
    #[error("{} does not hold what is known of a message", file.display())]
    Facts {
        /// Which.
        file: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A body is not the one that was saved.
    #[error("{} was changed since it was saved: its SHA-256 is another", .0.display())]
    Changed(PathBuf),
    /// The headers can't be told from a script.
    #[error("{} has no command that the headers can be read from", .0.display())]
    Script(PathBuf),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::test_message;
    use crate::save::Saver;
    use crate::script::ScriptOptions;

    #[tokio::test]
    async fn what_was_saved_is_read_as_it_was_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let saver = Saver::new(folder.path(), ScriptOptions::default()).unwrap();
        let bodies = [&b"\0\xff\r\n"[..], b"", b"@x", b"", b"{\"a\": 1}\n"];
        let mut messages = Vec::new();
        for body in bodies {
            let mut message = test_message(&[("x-a", "1"), ("x-b", "'"), ("x-a", "2")], body);
            message.event.headers[1].1 = (&b"\xff"[..]).into();
            message
                .event
                .attributes
                .insert("sha256".to_owned(), "x".into());
            saver.save(&message).await.unwrap();
            messages.push(message);
        }
        fs::write(folder.path().join("notes.json"), "{}").unwrap();
        fs::write(folder.path().join("half.body"), "").unwrap();

        let read = |saved: Vec<Saved>| -> Vec<Message> {
            saved.iter().map(|one| one.read().unwrap()).collect()
        };
        assert_eq!(read(find([folder.path()]).unwrap()), messages);

        // As a shell names them: three files each.
        let mut files: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.retain(|file| !file.ends_with("notes.json") && !file.ends_with("half.body"));
        files.sort();
        assert_eq!(read(find(&files).unwrap()), messages);
        // Who names one twice wants it twice.
        let twice = find([&files[0], &files[3], &files[0]]).unwrap();
        assert_eq!(read(twice)[2], messages[0]);
    }

    #[tokio::test]
    async fn a_body_that_was_changed_and_a_file_of_no_message_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let saver = Saver::new(folder.path(), ScriptOptions::default()).unwrap();
        let body = saver.save(&test_message(&[], b"x")).await.unwrap();
        let saved = find([&body]).unwrap();
        fs::write(&body, "y").unwrap();
        assert!(matches!(saved[0].read(), Err(SavedError::Changed(_))));
        fs::write(body.with_extension("json"), "{}").unwrap();
        assert!(matches!(saved[0].read(), Err(SavedError::Facts { .. })));

        fs::remove_file(body.with_extension("json")).unwrap();
        assert!(matches!(find([&body]), Err(SavedError::Stranger(_))));
        let gone = folder.path().join("gone");
        assert!(matches!(find([gone]), Err(SavedError::Read { .. })));
    }

    #[test]
    fn what_gosmee_has_saved_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let save = |name: &str, body: &str, script: &str| {
            fs::write(folder.path().join(format!("{name}.json")), body).unwrap();
            fs::write(folder.path().join(format!("{name}.sh")), script).unwrap();
        };
        save(
            "push-2026-01-31T12.31.01.000",
            "{\"n\":2}",
            "#!/usr/bin/env bash\nset -eu\n\n\
             curl -sSi -H \"Content-Type: application/json\" -H 'X-Github-Event: push' \
             -H 'X-Quote: it'\\''s' -H 'Content-Type: application/json'  -X POST \
             -d @./push-2026-01-31T12.31.01.000.json ${targetURL}\n",
        );
        save(
            "ping-2026-01-31T12.30.01.999",
            "{\"n\":1}",
            "#!/bin/sh\nhttp -F $http_flags POST \"${targetURL}\" Content-Type:application/json \
             \"X-Github-Event\":\"ping\"  < ./x.json\n",
        );
        let saved = find([folder.path()]).unwrap();
        let messages: Vec<_> = saved.iter().map(|one| one.read().unwrap()).collect();
        let shown: Vec<_> = messages
            .iter()
            .map(|message| {
                (
                    &*message.payload,
                    &*message.event.time,
                    message.event_type(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                (
                    &b"{\"n\":1}"[..],
                    "2026-01-31T12:30:00.000Z",
                    Some("ping".to_owned())
                ),
                (
                    &b"{\"n\":2}"[..],
                    "2026-01-31T12:31:00.000Z",
                    Some("push".to_owned())
                ),
            ]
        );
        let headers = &messages[1].event.headers;
        let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().into());
        assert_eq!(
            *headers,
            [
                header("content-type", "application/json"),
                header("x-github-event", "push"),
                header("x-quote", "it's"),
            ]
        );

        // A quote that nobody closed, as older ones write it, is not guessed at.
        save(
            "x-2026-01-31T12.31.01.000",
            "{}",
            "curl -H 'X: it's' -X POST\n",
        );
        let broken = find([folder.path().join("x-2026-01-31T12.31.01.000.sh")]).unwrap();
        assert!(matches!(broken[0].read(), Err(SavedError::Script(_))));
    }
}
