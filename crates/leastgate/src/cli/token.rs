//! `leastgate token`: its words for making and finding tokens; those for the rest of their lives are in `life.rs`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::arguments::{network, rate};
use super::life::{TokenEdit, TokenGrant, TokenImport, TokenRestrict, TokenRevoke, TokenRotate};

/// `leastgate token`
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token and print its secret, once
    Create(TokenCreate),
    /// List tokens
    List(TokenList),
    /// Show one token
    Show {
        /// Its name or accessor; `-` reads a token from standard input
        token: String,
    },
    /// Make a successor with a new secret; the old one works on for a while, or not at all
    Rotate(TokenRotate),
    /// Revoke a token, or all that fit a filter, for good; the next request with it is refused
    Revoke(TokenRevoke),
    /// Disable a token until it is enabled again; by name, those in the grace of a rotation too
    Disable(TokenChange),
    /// Enable a disabled token, and no other with its name
    Enable(TokenChange),
    /// Give a token a scope for a while; it goes by itself
    Grant(TokenGrant),
    /// Take roles, scopes, networks or time from a token
    Restrict(TokenRestrict),
    /// Change who answers for a token, its note, end, roles, scopes or networks
    Edit(TokenEdit),
    /// Print the tokens in use for another gateway of this environment: digests, no secrets
    Export,
    /// Take tokens that another gateway of this environment exported
    Import(TokenImport),
    /// Show what a token was used for
    Usage {
        /// Its name or accessor; `-` reads a token from standard input
        token: String,
    },
}

/// `leastgate token create`
#[derive(Debug, Args)]
pub struct TokenCreate {
    /// Its name: the subject that upstreams and events see
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// A role; may be repeated
    #[arg(long = "role", value_name = "ROLE")]
    pub roles: Vec<String>,
    /// A scope; may be repeated
    #[arg(long = "scope", value_name = "SCOPE")]
    pub scopes: Vec<String>,
    /// Who answers for it
    #[arg(long, value_name = "OWNER")]
    pub owner: Option<String>,
    /// How long it lives: 15m, 12h, 30d
    #[arg(long, value_name = "TIME")]
    pub ttl: Option<String>,
    /// It may only be used from this network; may be repeated
    #[arg(long = "allow-cidr", value_name = "CIDR", value_parser = network)]
    pub allow_cidrs: Vec<String>,
    /// It may not be used before this date or time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub not_before: Option<String>,
    /// How many requests a second it may send: 50, or 50/s
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub rate: Option<u32>,
    /// How many of them may come at once [default: as many as the rate]
    #[arg(long, value_name = "N", requires = "rate", value_parser = clap::value_parser!(u32).range(1..))]
    pub burst: Option<u32>,
    /// How many requests it may have under way at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrent: Option<u32>,
    /// A word for people
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// Why; it is recorded [default: the note]
    #[arg(long, value_name = "TEXT", conflicts_with = "declare")]
    pub reason: Option<String>,
    /// Write the secret into this new file (mode 0600), not on the terminal
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub secret_file: Option<PathBuf>,
    /// Make so many, alike: NAME-1, NAME-2, …; a line with name and secret for each, written as they are made
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000), conflicts_with = "declare")]
    pub count: Option<u32>,
    /// Ask no gateway: draw the secret here and print the entry for a policy file's `tokens`
    #[arg(long)]
    pub declare: bool,
    /// A bait, to be left where only a thief finds it: it opens nothing, and any use of it is an alarm
    #[arg(long, conflicts_with_all = ["roles", "scopes", "declare"])]
    pub canary: bool,
}

/// `leastgate token list`
#[derive(Debug, Args)]
pub struct TokenList {
    /// Only those in this state
    #[arg(long, value_name = "STATE", value_enum)]
    pub state: Option<TokenStateName>,
    /// Only those of this owner
    #[arg(long, value_name = "OWNER")]
    pub owner: Option<String>,
    /// Only those that were neither used nor made since: 90d, or a date
    #[arg(long, value_name = "TIME")]
    pub unused_since: Option<String>,
    /// Only those made before: 90d, or a date
    #[arg(long, value_name = "TIME")]
    pub created_before: Option<String>,
    /// Only those made under this pepper
    #[arg(long, value_name = "PEPPER", value_enum)]
    pub pepper: Option<PepperName>,
}

/// A pepper that tokens are listed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PepperName {
    /// The one in use
    Current,
    /// The one before it: their next use brings them under the current one
    Previous,
    /// None that is configured: nobody can use them
    Unknown,
}

impl PepperName {
    /// Its name in the admin API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Previous => "previous",
            Self::Unknown => "unknown",
        }
    }
}

/// A state that tokens are listed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TokenStateName {
    /// In use
    Active,
    /// Replaced by a successor, in its grace
    Rotating,
    /// Past its end
    Expired,
    /// Switched off for now
    Disabled,
    /// Switched off for good
    Revoked,
}

impl TokenStateName {
    /// Its name in the admin API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Rotating => "rotating",
            Self::Expired => "expired",
            Self::Disabled => "disabled",
            Self::Revoked => "revoked",
        }
    }
}

/// `leastgate token disable|enable`
#[derive(Debug, Args)]
pub struct TokenChange {
    /// Its name or accessor; `-` reads a token from standard input
    pub token: String,
    /// Why; it is recorded
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}
