//! `leastgate admin`: its words.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

/// `leastgate admin`
#[derive(Debug, Subcommand)]
pub enum Admin {
    /// Make an administrator and print the credential, once
    Create(AdminCreate),
    /// List administrators
    List,
    /// Revoke an administrator
    Revoke {
        /// The administrator's name or id
        admin: String,
        /// Why; it is recorded
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// `leastgate admin create`
#[derive(Debug, Args)]
pub struct AdminCreate {
    /// A name
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present = "declare",
        default_value = "",
        hide_default_value = true
    )]
    pub name: String,
    /// What it may do
    #[arg(long, value_name = "ROLE", value_enum, default_value_t)]
    pub role: AdminRole,
    /// A role that its tokens may have; may be repeated
    #[arg(long = "may-grant-role", value_name = "ROLE", conflicts_with = "unlimited")]
    pub may_grant_roles: Vec<String>,
    /// A scope that its tokens may have; may be repeated
    #[arg(long = "may-grant-scope", value_name = "SCOPE", conflicts_with = "unlimited")]
    pub may_grant_scopes: Vec<String>,
    /// Its tokens may have every role and scope
    #[arg(long)]
    pub unlimited: bool,
    /// The longest life of its tokens: 15m, 12h, 30d [default: as the policy says]
    #[arg(long, value_name = "TIME")]
    pub max_ttl: Option<String>,
    /// Why; it is recorded
    #[arg(long, value_name = "TEXT", conflicts_with = "declare")]
    pub reason: Option<String>,
    /// Write the credential into this new file (mode 0600), not on the terminal
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub secret_file: Option<PathBuf>,
    /// Ask no gateway: draw the credential that `serve --bootstrap-admin-from` gives to the first administrator
    #[arg(
        long,
        requires = "environment",
        conflicts_with_all = ["name", "role", "may_grant_roles", "may_grant_scopes", "unlimited", "max_ttl"]
    )]
    pub declare: bool,
    /// With --declare: the environment of the gateways that it is for
    #[arg(long, value_name = "NAME", requires = "declare")]
    pub environment: Option<String>,
}

/// What an administrator may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum AdminRole {
    /// Reads
    Viewer,
    /// Manages tokens too
    #[default]
    Operator,
    /// Manages administrators too
    Admin,
}

impl AdminRole {
    /// Its name in the admin API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}
