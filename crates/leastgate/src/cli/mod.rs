//! The command line: its words, and nothing of what they do. What is not built is not here.

mod admin;
mod arguments;
mod life;
mod run;
mod store;
mod token;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueHint};

pub use self::admin::{Admin, AdminCreate, AdminRole};
pub use self::arguments::parse;
pub use self::life::{TokenEdit, TokenGrant, TokenImport, TokenRestrict, TokenRevoke, TokenRotate};
pub use self::run::Run;
pub(crate) use self::run::is_administrators;
pub use self::store::{Store, StoreRestore};
pub use self::token::{PepperName, Token, TokenChange, TokenCreate, TokenList, TokenStateName};
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
    /// Results and warnings only, no other messages
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
    /// If there is no administrator yet, make one named root and write its credential into this new file (mode 0600); needs a state_dir
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
