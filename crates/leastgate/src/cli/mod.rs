//! The command line: its words, and nothing of what they do. What is not built is not here.

mod arguments;
mod life;
mod run;
mod store;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueHint};

pub use self::arguments::parse;
pub use self::life::{TokenEdit, TokenGrant, TokenImport, TokenRestrict, TokenRevoke, TokenRotate};
pub use self::run::Run;
pub(crate) use self::run::is_administrators;
pub use self::store::{Store, StoreRestore};
use crate::output::Format;

/// A reverse proxy that enforces what each API token may do.
#[derive(Debug, Parser)]
#[command(name = "leastgate", version, disable_help_subcommand = true, max_term_width = 100)]
#[command(after_help = "Start with `leastgate demo`. Every command says more with --help.")]
pub struct Cli {
    /// What all commands share.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What all commands share.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// The gateway's file [default: ./leastgate.yaml, then /etc/leastgate/leastgate.yaml]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Where the admin API is: unix:PATH, http://127.0.0.1:PORT or https://HOST:PORT [default: the local gateway's admin.sock]
    #[arg(long, global = true, value_name = "URL", env = "LEASTGATE_ADMIN_URL", hide_env_values = true)]
    pub admin_url: Option<String>,
    /// A file with the admin credential (or LEASTGATE_ADMIN_TOKEN holds it); it goes to --admin-url, and needs one
    #[arg(long, global = true, value_name = "FILE", env = "LEASTGATE_ADMIN_TOKEN_FILE", hide_env_values = true, value_hint = ValueHint::FilePath)]
    pub admin_token_file: Option<PathBuf>,
    /// PEM file of the authorities that sign the certificate of an https:// --admin-url [default: the system's]
    #[arg(long, global = true, value_name = "FILE", env = "LEASTGATE_ADMIN_CA", hide_env_values = true, value_hint = ValueHint::FilePath)]
    pub admin_ca: Option<PathBuf>,
    /// PEM file of the certificate to show there
    #[arg(long, global = true, value_name = "FILE", env = "LEASTGATE_ADMIN_CERT", hide_env_values = true, value_hint = ValueHint::FilePath)]
    pub admin_cert: Option<PathBuf>,
    /// PEM file of that certificate's key
    #[arg(long, global = true, value_name = "FILE", env = "LEASTGATE_ADMIN_KEY", hide_env_values = true, value_hint = ValueHint::FilePath)]
    pub admin_key: Option<PathBuf>,
    /// Longest wait for the gateway's answer, in seconds
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// How results are printed
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: Format,
    /// Results only, no messages
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more; twice: everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// No colours; NO_COLOR does the same
    #[arg(long, global = true)]
    pub no_color: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Try it: a gateway, an API behind it and tokens, all in this process
    Demo(Demo),
    /// Run the gateway
    Serve(Serve),
    /// Write a first leastgate.yaml and policy.yaml
    Init(Init),
    /// Ask whether the local gateway is alive
    Health(Health),
    /// Make, list, show and revoke tokens
    #[command(subcommand)]
    Token(Token),
    /// Make, list and revoke administrators
    #[command(subcommand)]
    Admin(Admin),
    /// Say why a token may do something, or why not, and what to do about it
    Check(Check),
    /// Run a command with a short-lived token of its own, revoked when it ends
    Run(Run),
    /// Examine policy files
    #[command(subcommand)]
    Policy(Policy),
    /// Back up, restore and check the store
    #[command(subcommand)]
    Store(Store),
    /// Show and check the gateway's file
    #[command(subcommand)]
    Config(Config),
    /// Print a completion script
    Completion {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for each command into a folder
    Man {
        /// Write all pages into this folder
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
    /// Print the version
    Version,
}

/// `leastgate demo`
#[derive(Debug, Args)]
pub struct Demo {
    /// Where the demo's gateway listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub address: SocketAddr,
    /// Where its ops listener is: health and metrics
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    pub ops: SocketAddr,
    /// Where its admin API is
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9902")]
    pub admin: SocketAddr,
    /// Write the listeners' addresses into this file once all are bound
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ready_file: Option<PathBuf>,
    /// No traffic of its own
    #[arg(long)]
    pub no_traffic: bool,
}

/// `leastgate serve`
#[derive(Debug, Args)]
pub struct Serve {
    /// Write the listeners' addresses into this file once all are bound
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ready_file: Option<PathBuf>,
    /// If there is no administrator yet, make one named root and write its credential into this new file (mode 0600)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub bootstrap_admin: Option<PathBuf>,
    /// The same with a credential that `admin create --declare` has drawn, from this file (or LEASTGATE_BOOTSTRAP_ADMIN holds it)
    #[arg(long, value_name = "FILE", conflicts_with = "bootstrap_admin", value_hint = ValueHint::FilePath)]
    pub bootstrap_admin_from: Option<PathBuf>,
    /// Worker threads, in place of the file's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub workers: Option<u32>,
}

/// `leastgate init`
#[derive(Debug, Args)]
pub struct Init {
    /// The API to stand in front of, such as http://127.0.0.1:8081
    #[arg(long, value_name = "URL")]
    pub upstream: String,
    /// The environment's name
    #[arg(long, value_name = "NAME", default_value = "prod")]
    pub environment: String,
    /// Where the files go
    #[arg(long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
}

/// `leastgate health`
#[derive(Debug, Args)]
pub struct Health {
    /// Ask for readiness, not liveness
    #[arg(long)]
    pub ready: bool,
    /// The ops listener [default: the gateway's file says]
    #[arg(long, value_name = "ADDRESS")]
    pub ops: Option<SocketAddr>,
}

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
    /// Disable a token until it is enabled again
    Disable(TokenChange),
    /// Enable a disabled token
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
    #[arg(long = "allow-cidr", value_name = "CIDR", value_parser = arguments::network)]
    pub allow_cidrs: Vec<String>,
    /// It may not be used before this date or time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub not_before: Option<String>,
    /// How many requests a second it may send: 50, or 50/s
    #[arg(long, value_name = "RATE", value_parser = arguments::rate)]
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
    /// Write the secret into this new file (mode 0600), not on the terminal
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub secret_file: Option<PathBuf>,
    /// Make so many, alike: NAME-1, NAME-2, …; a line with name and secret for each
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

/// `leastgate check`
#[derive(Debug, Args)]
pub struct Check {
    /// The token's name or accessor; `-` reads a token from standard input
    pub token: String,
    /// The request's method
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub method: String,
    /// The request's URL, or its path where one api has any host
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub url: String,
    /// A request header, `Name: value`; may be repeated
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub headers: Vec<String>,
    /// The caller's address [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    pub source_ip: Option<IpAddr>,
}

/// `leastgate policy`
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// Check policy files: everything wrong with them, with places
    Lint {
        /// The files [default: those of the gateway's file]
        #[arg(value_hint = ValueHint::FilePath)]
        files: Vec<PathBuf>,
        /// The environment to judge them for [default: the gateway's file says, else the first they name]
        #[arg(long, value_name = "NAME")]
        environment: Option<String>,
    },
    /// Print the JSON Schema of policy files
    Schema,
}

/// `leastgate config`
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Print the configuration in force, defaults included
    Show {
        /// Say where each value comes from
        #[arg(long)]
        origin: bool,
    },
    /// Check the gateway's file, its secrets and its policy
    Validate,
    /// Print the JSON Schema of the gateway's file
    Schema,
}

/// The command line's description, for completions and manual pages.
#[must_use]
pub fn description() -> clap::Command {
    Cli::command()
}
