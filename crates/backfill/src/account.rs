//! Whose webhooks are meant, and where the provider's API has them.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// A provider that keeps what it has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// <https://docs.github.com/en/rest/repos/webhooks>
    Github,
    /// <https://docs.gitlab.com/api/project_webhooks/>
    Gitlab,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Github => "GitHub",
            Self::Gitlab => "GitLab",
        })
    }
}

/// Whose webhooks: what has them in its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Account {
    /// A repository on GitHub.
    Repository {
        /// The user or the organisation that it belongs to.
        owner: String,
        /// Its name.
        name: String,
    },
    /// An organisation on GitHub.
    Organisation(String),
    /// A GitHub App, which has one webhook; which app is said by whose key signs.
    App,
    /// A project on GitLab, by its number or its path.
    Project(String),
    /// A group on GitLab, by its number or its path.
    Group(String),
}

impl Account {
    /// Reads `OWNER` or `OWNER/REPO`, as GitHub's own URLs have it.
    #[must_use]
    pub fn on_github(text: &str) -> Option<Self> {
        let is_name = |text: &str| !text.is_empty() && !text.contains(['/', '?', '#', ' ']);
        match text.split_once('/') {
            Some((owner, name)) if is_name(owner) && is_name(name) => Some(Self::Repository {
                owner: owner.to_owned(),
                name: name.to_owned(),
            }),
            None if is_name(text) => Some(Self::Organisation(text.to_owned())),
            _ => None,
        }
    }

    /// Whose API knows it.
    #[must_use]
    pub fn provider(&self) -> Provider {
        match self {
            Self::Repository { .. } | Self::Organisation(_) | Self::App => Provider::Github,
            Self::Project(_) | Self::Group(_) => Provider::Gitlab,
        }
    }

    /// Where its webhooks are listed.
    pub(crate) fn hooks(&self) -> String {
        match self {
            Self::Repository { owner, name } => {
                format!("/repos/{}/{}/hooks", segment(owner), segment(name))
            }
            Self::Organisation(name) => format!("/orgs/{}/hooks", segment(name)),
            Self::App => "/app/hook/config".to_owned(),
            Self::Project(path) => format!("/projects/{}/hooks", segment(path)),
            Self::Group(path) => format!("/groups/{}/hooks", segment(path)),
        }
    }

    /// Where one webhook's deliveries are listed; an app has one webhook, without a number.
    pub(crate) fn deliveries(&self, hook: Option<u64>) -> String {
        let hook = hook.map(|hook| format!("/{hook}")).unwrap_or_default();
        match self {
            Self::App => "/app/hook/deliveries".to_owned(),
            account => {
                let name = match account.provider() {
                    Provider::Github => "deliveries",
                    Provider::Gitlab => "events",
                };
                format!("{}{hook}/{name}", account.hooks())
            }
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repository { owner, name } => write!(f, "{owner}/{name}"),
            Self::Organisation(name) | Self::Project(name) | Self::Group(name) => f.write_str(name),
            Self::App => f.write_str("the app"),
        }
    }
}

/// A name as one segment of a path.
fn segment(text: &str) -> impl fmt::Display {
    utf8_percent_encode(text, SEGMENT)
}

const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_where_its_provider_has_it() {
        let repository = Account::on_github("acme/site").unwrap();
        let organisation = Account::on_github("acme").unwrap();
        let project = Account::Project("acme/web/site".into());
        for (account, hooks, deliveries) in [
            (
                repository,
                "/repos/acme/site/hooks",
                "/repos/acme/site/hooks/7/deliveries",
            ),
            (
                organisation,
                "/orgs/acme/hooks",
                "/orgs/acme/hooks/7/deliveries",
            ),
            (Account::App, "/app/hook/config", "/app/hook/deliveries"),
            (
                project,
                "/projects/acme%2Fweb%2Fsite/hooks",
                "/projects/acme%2Fweb%2Fsite/hooks/7/events",
            ),
            (
                Account::Group("42".into()),
                "/groups/42/hooks",
                "/groups/42/hooks/7/events",
            ),
        ] {
            assert_eq!(account.hooks(), hooks);
            assert_eq!(account.deliveries(Some(7)), deliveries);
        }
        for wrong in [
            "",
            "/",
            "acme/",
            "/site",
            "a/b/c",
            "a b",
            "https://github.com/a/b",
        ] {
            assert_eq!(Account::on_github(wrong), None, "{wrong:?}");
        }
    }
}
