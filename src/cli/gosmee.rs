//! What gosmee's users have in their environment, for the commands that take its place.
//!
//! A variable of gosmee's counts where its argument is not typed and ours is not set.

use std::env;

use clap::Command;

/// Has commands read gosmee's variables where nothing else is said.
pub(super) fn heed(mut command: Command) -> Command {
    for (name, variables) in [("forward", FORWARD), ("replay", REPLAY)] {
        for &(argument, ours, theirs) in variables {
            if is_set(theirs) && !is_set(ours) {
                command = command.mut_subcommand(name, |command| {
                    command.mut_arg(argument, |argument| argument.env(theirs).hide_env(true))
                });
            }
        }
    }
    command
}

/// Those that are set, ask for something, and get nothing from a command that does this.
pub(super) fn unheeded(what: &str) -> impl Iterator<Item = &'static str> {
    let number = match what {
        "forward" => 1,
        "replay" => 3,
        "backfill" => UNHEEDED.len(),
        _ => 0,
    };
    let variables = UNHEEDED.into_iter().take(number);
    variables.filter(|name| is_set(name))
}

/// An empty one is none, as for gosmee.
fn is_set(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// Arguments, our variable for each, and gosmee's.
type Variables = &'static [(&'static str, &'static str, &'static str)];

const FORWARD: Variables = &[
    ("source", "", "GOSMEE_URL"),
    ("targets", "", "GOSMEE_TARGET_URL"),
    ("encryption_key_file", "", "GOSMEE_ENCRYPTION_KEY_FILE"),
    ("exec", "HOOKBOT_EXEC", "GOSMEE_EXEC"),
    ("exec_env", "HOOKBOT_EXEC_ENV", "GOSMEE_EXEC_ENV_VARS"),
    ("health_port", "", "GOSMEE_HEALTH_PORT"),
    ("log_level", "", "GOSMEE_LOG_LEVEL"),
    ("resume_state_file", "", "GOSMEE_RESUME_STATE_FILE"),
    ("retries", "HOOKBOT_RETRIES", "GOSMEE_TARGET_RETRIES"),
    ("save", "", "GOSMEE_SAVEDIR"),
    ("sse_buffer_size", "", "GOSMEE_SSE_BUFFER_SIZE"),
    ("timeout", "", "GOSMEE_TARGET_TIMEOUT"),
];

const REPLAY: Variables = &[
    ("retries", "", "GOSMEE_TARGET_RETRIES"),
    ("timeout", "", "GOSMEE_TARGET_TIMEOUT"),
];

/// What some commands do not heed: those that do more, fewer of them.
const UNHEEDED: [&str; 5] = [
    "GOSMEE_CONFIG",
    "GOSMEE_EXEC",
    "GOSMEE_SAVEDIR",
    "GOSMEE_TARGET_RETRIES",
    "GOSMEE_TARGET_TIMEOUT",
];

/// What to do about gosmee's file.
pub(super) const CONFIG_HINT: &str = "give what is in it as arguments or variables, \
     see docs/moving.md";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_is_in_the_page_for_those_who_move() {
        let page = include_str!("../../docs/moving.md");
        let heeded = FORWARD.iter().chain(REPLAY).map(|(.., theirs)| *theirs);
        for variable in heeded.chain(UNHEEDED) {
            assert!(page.contains(&format!("`{variable}`")), "{variable}");
        }
    }
}
