//! One webhook: what its provider has sent by it.

use std::collections::HashSet;

use bytes::Bytes;
use http::Response;
use serde::Deserialize;

use crate::account::{Account, Provider};
use crate::api::{Api, is_gone};
use crate::delivery::{Attempt, Content, Delivery};
use crate::error::Error;
use crate::link::next_query;
use crate::{github, gitlab};

/// A webhook, as its provider lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookEntry {
    /// Its number; an app has one webhook, without a number.
    pub id: Option<u64>,
    /// Where it posts to. This may hold a token.
    pub url: String,
    /// What it is sent; everything where this is `*`.
    pub events: Vec<String>,
    /// Whether it is sent anything at present.
    pub is_active: bool,
}

/// A webhook, and whom to ask about it.
#[derive(Debug)]
pub struct Hook {
    api: Api,
    account: Account,
    id: Option<u64>,
}

impl Hook {
    /// The webhook of this number; for an app no number is needed.
    ///
    /// # Panics
    ///
    /// When the account is not of the provider whose API it is.
    #[must_use]
    pub fn new(api: Api, account: Account, id: Option<u64>) -> Self {
        assert_eq!(api.provider(), account.provider(), "another provider's API");
        Self { api, account, id }
    }

    /// Whose it is.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> Option<u64> {
        self.id
    }

    /// Means another webhook of the same account.
    pub fn choose(&mut self, id: Option<u64>) {
        self.id = id;
    }

    /// All webhooks of the account.
    ///
    /// # Errors
    ///
    /// When the provider does not say.
    pub async fn siblings(&mut self) -> Result<Vec<HookEntry>, Error> {
        let mut hooks = Vec::new();
        let path = self.account.hooks();
        if self.account == Account::App {
            let response = self.api.get(&path).await?;
            let config: github::HookConfig = self.read(&path, response.body())?;
            return Ok(vec![HookEntry {
                id: None,
                url: config.url,
                events: Vec::new(),
                is_active: true,
            }]);
        }
        let mut pages = Pages::new(path, github::PER_PAGE);
        while let Some(response) = pages.next(&mut self.api).await? {
            let (path, body) = (&pages.path, response.body());
            match self.account.provider() {
                Provider::Github => {
                    let page: Vec<github::Hook> = self.read(path, body)?;
                    hooks.extend(page.into_iter().map(|hook| HookEntry {
                        id: Some(hook.id),
                        url: hook.config.url,
                        events: hook.events,
                        is_active: hook.active,
                    }));
                }
                Provider::Gitlab => {
                    let page: Vec<gitlab::Hook> = self.read(path, body)?;
                    hooks.extend(page.into_iter().map(|hook| HookEntry {
                        id: Some(hook.id),
                        events: hook.events(),
                        is_active: hook.is_active(),
                        url: hook.url,
                    }));
                }
            }
        }
        Ok(hooks)
    }

    /// The attempts that the provider remembers, newest first and each once, up to the first page
    /// of which all are `old`.
    ///
    /// New ones may come while pages are read; then what is seen twice counts once, and what came
    /// after the first page is for the next time.
    ///
    /// # Errors
    ///
    /// When the provider does not say.
    pub async fn attempts(
        &mut self,
        mut old: impl FnMut(&Attempt) -> bool,
    ) -> Result<Vec<Attempt>, Error> {
        let per_page = match self.account.provider() {
            Provider::Github => github::PER_PAGE,
            Provider::Gitlab => gitlab::PER_PAGE,
        };
        let mut pages = Pages::new(self.account.deliveries(self.id), per_page);
        let (mut seen, mut attempts) = (HashSet::new(), Vec::<Attempt>::new());
        let mut newest = None;
        while let Some(response) = pages.next(&mut self.api).await? {
            let page = self.page(&pages.path, response.body())?;
            let is_empty = page.is_empty();
            newest = newest.or_else(|| page.iter().filter_map(|attempt| attempt.at).max());
            let mut young = page.into_iter().filter(|one| !old(one)).peekable();
            if young.peek().is_none() && !is_empty {
                break;
            }
            // What came meanwhile has moved the pages on, and has others before it that were not
            // seen: it would be taken for the end of what is new the next time.
            let in_time = |one: &Attempt| one.at.is_none() || one.at <= newest;
            attempts.extend(young.filter(|one| in_time(one) && seen.insert(one.id)));
        }
        Ok(attempts)
    }

    fn page(&self, path: &str, body: &Bytes) -> Result<Vec<Attempt>, Error> {
        Ok(match self.account.provider() {
            Provider::Github => {
                let page: Vec<github::Item> = self.read(path, body)?;
                page.into_iter().map(Attempt::from).collect()
            }
            Provider::Gitlab => {
                let page: Vec<gitlab::Item> = self.read(path, body)?;
                page.into_iter().map(|item| item.attempt(body)).collect()
            }
        })
    }

    /// What was sent with a delivery: by its newest attempt that succeeded, or else the newest
    /// that the provider still has.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] when it has none of them, though it lists them; or when it does not say.
    pub async fn content(&mut self, delivery: &Delivery) -> Result<Content, Error> {
        if self.account.provider() == Provider::Gitlab {
            let mut candidates = delivery.candidates();
            let found = candidates.find_map(|attempt| attempt.content.clone());
            return found.ok_or(Error::Lost("GitLab has not kept its payload"));
        }
        let mut lost = Error::Lost("GitHub no longer has it");
        for attempt in delivery.candidates() {
            let path = self.path_of(attempt);
            let response = match self.api.get(&path).await {
                Ok(response) => response,
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(error),
            };
            let detail: github::Detail = self.read(&path, response.body())?;
            match detail.content(response.body()) {
                Ok(content) => return Ok(content),
                Err(error) => lost = error,
            }
        }
        Err(lost)
    }

    /// Has the provider itself send a delivery again, signed by it, to wherever the webhook posts.
    ///
    /// It is sent once, also where whether it was can't be told.
    ///
    /// # Errors
    ///
    /// When the provider does not say that it will.
    pub async fn redeliver(&mut self, delivery: &Delivery) -> Result<(), Error> {
        let verb = match self.account.provider() {
            Provider::Github => "attempts",
            Provider::Gitlab => "resend",
        };
        let path = format!("{}/{verb}", self.path_of(delivery.last()));
        self.api.post(&path).await.map(drop)
    }

    fn path_of(&self, attempt: &Attempt) -> String {
        format!("{}/{}", self.account.deliveries(self.id), attempt.id)
    }

    fn read<'a, T: Deserialize<'a>>(&self, path: &str, body: &'a Bytes) -> Result<T, Error> {
        serde_json::from_slice(body).map_err(|error| Error::Malformed {
            provider: self.account.provider(),
            target: path.to_owned(),
            reason: error.to_string(),
        })
    }
}

/// The pages of a list.
struct Pages {
    path: String,
    /// The query of the next page; `None` behind the last.
    query: Option<String>,
    read: usize,
}

impl Pages {
    fn new(path: String, per_page: u32) -> Self {
        Self {
            path,
            query: Some(format!("per_page={per_page}")),
            read: 0,
        }
    }

    async fn next(&mut self, api: &mut Api) -> Result<Option<Response<Bytes>>, Error> {
        let Some(query) = self.query.take() else {
            return Ok(None);
        };
        let response = api.get(&format!("{}?{query}", self.path)).await?;
        self.read += 1;
        let next = next_query(response.headers());
        if self.read >= MAX_PAGES || next.as_ref() == Some(&query) {
            return Err(Error::Malformed {
                provider: api.provider(),
                target: self.path.clone(),
                reason: "its pages have no end".to_owned(),
            });
        }
        self.query = next;
        Ok(Some(response))
    }
}

/// A million deliveries: more than a provider keeps of one webhook.
const MAX_PAGES: usize = 10_000;
