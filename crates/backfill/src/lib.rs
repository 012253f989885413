//! What a provider has sent lately, asked of its API.
