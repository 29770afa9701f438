//! The words of `leastgate token` for what a token goes through between its making and its end.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::arguments;

/// `leastgate token rotate`
#[derive(Debug, Args)]
pub struct TokenRotate {
    /// Its name or accessor; `-` reads a token from standard input
    pub token: String,
    /// How long the old secret works on: 30m, 48h [default: 24h]
    #[arg(long, value_name = "TIME", conflicts_with_all = ["now", "status"])]
    pub grace: Option<String>,
    /// The old secret has leaked: revoke it at once
    #[arg(long, conflicts_with = "status")]
    pub now: bool,
    /// Change nothing: show whether the old secret is still used, when last and from where
    #[arg(long)]
    pub status: bool,
    /// Why; it is recorded
    #[arg(long, value_name = "TEXT", required_unless_present = "status")]
    pub reason: Option<String>,
    /// Write the new secret into this new file (mode 0600), not on the terminal
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "status")]
    pub secret_file: Option<PathBuf>,
}

/// `leastgate token grant`
#[derive(Debug, Args)]
pub struct TokenGrant {
    /// Its name or accessor; `-` reads a token from standard input
    pub token: String,
    /// The scope
    pub scope: String,
    /// How long the token holds it: 15m, 1h [default: to the token's end, if the policy permits that]
    #[arg(long = "for", value_name = "TIME")]
    pub ttl: Option<String>,
    /// Why; it is recorded
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// `leastgate token restrict`
#[derive(Debug, Args)]
pub struct TokenRestrict {
    /// Its name, for those in the grace of a rotation too; its accessor, for it alone; `-` reads a token from standard input
    pub token: String,
    /// Take this role away; may be repeated
    #[arg(long = "remove-role", value_name = "ROLE")]
    pub roles: Vec<String>,
    /// Take this scope away; may be repeated
    #[arg(long = "remove-scope", value_name = "SCOPE")]
    pub scopes: Vec<String>,
    /// End its life at this date or time (RFC 3339), if that is earlier
    #[arg(long, value_name = "TIME")]
    pub expires: Option<String>,
    /// It may only be used from this network, within those it may be used from now; may be repeated
    #[arg(long = "allow-cidr", value_name = "CIDR", value_parser = arguments::network)]
    pub allow_cidrs: Vec<String>,
    /// Why; it is recorded
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// `leastgate token edit`
#[derive(Debug, Args)]
pub struct TokenEdit {
    /// Its name or accessor; `-` reads a token from standard input
    pub token: String,
    /// Who answers for it; empty: nobody
    #[arg(long, value_name = "OWNER")]
    pub owner: Option<String>,
    /// A word for people; empty: none
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// When its life ends: a date or time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub expires: Option<String>,
    /// Its roles, in place of those it has; may be repeated
    #[arg(long = "role", value_name = "ROLE")]
    pub roles: Option<Vec<String>>,
    /// Its scopes, in place of those it has; may be repeated
    #[arg(long = "scope", value_name = "SCOPE")]
    pub scopes: Option<Vec<String>>,
    /// The networks it may be used from, in place of those it has; may be repeated
    #[arg(long = "allow-cidr", value_name = "CIDR", value_parser = arguments::network)]
    pub allow_cidrs: Option<Vec<String>>,
    /// Why; it is recorded
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}

/// `leastgate token revoke`
#[derive(Debug, Args)]
pub struct TokenRevoke {
    /// Its name, for those in the grace of a rotation too; its accessor, for it alone; `-` reads a token from standard input. Or
    /// say which by the filters: what fits all of them
    #[arg(required_unless_present_any = ["owner", "role", "scope", "unused_since", "created_before"])]
    pub token: Option<String>,
    /// All tokens of this owner
    #[arg(long, value_name = "OWNER", conflicts_with = "token")]
    pub owner: Option<String>,
    /// All tokens that have this role by name
    #[arg(long, value_name = "ROLE", conflicts_with = "token")]
    pub role: Option<String>,
    /// All tokens that hold this scope, by name or through a role
    #[arg(long, value_name = "SCOPE", conflicts_with = "token")]
    pub scope: Option<String>,
    /// All tokens that were neither used nor made since: 90d, or a date
    #[arg(long, value_name = "TIME", conflicts_with = "token")]
    pub unused_since: Option<String>,
    /// All tokens made before: 90d, or a date
    #[arg(long, value_name = "TIME", conflicts_with = "token")]
    pub created_before: Option<String>,
    /// Change nothing: say which it would be
    #[arg(long, conflicts_with = "token")]
    pub dry_run: bool,
    /// Why; it is recorded
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// `leastgate token import`
#[derive(Debug, Args)]
pub struct TokenImport {
    /// What `leastgate token export` of the other gateway printed; `-`: standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Why; it is recorded
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}
