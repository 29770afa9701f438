//! The command line: its words, and nothing of what they do. What is not built is not here.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueHint};

use crate::exit::{Exit, Failure};
use crate::output::{self, Format};

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
    /// Where the admin API is: unix:PATH or http://127.0.0.1:PORT [default: the local gateway's admin.sock]
    #[arg(long, global = true, value_name = "URL", env = "LEASTGATE_ADMIN_URL")]
    pub admin_url: Option<String>,
    /// A file with the admin credential (or LEASTGATE_ADMIN_TOKEN holds it); not needed on the local socket
    #[arg(long, global = true, value_name = "FILE", env = "LEASTGATE_ADMIN_TOKEN_FILE", value_hint = ValueHint::FilePath)]
    pub admin_token_file: Option<PathBuf>,
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
    /// Examine policy files
    #[command(subcommand)]
    Policy(Policy),
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
    /// Worker threads, in place of the file's
    #[arg(long, value_name = "N")]
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
        /// Its name or accessor
        token: String,
    },
    /// Revoke a token for good; the next request with it is refused
    Revoke(TokenChange),
    /// Disable a token until it is enabled again
    Disable(TokenChange),
    /// Enable a disabled token
    Enable(TokenChange),
    /// Show what a token was used for
    Usage {
        /// Its name or accessor
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
    #[arg(long = "allow-cidr", value_name = "CIDR")]
    pub allow_cidrs: Vec<String>,
    /// It may not be used before this date or time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub not_before: Option<String>,
    /// A word for people
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// Write the secret into this new file (mode 0600), not on the terminal
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub secret_file: Option<PathBuf>,
    /// Ask no gateway: draw the secret here and print the entry for a policy file's `tokens`
    #[arg(long)]
    pub declare: bool,
}

/// `leastgate token list`
#[derive(Debug, Args)]
pub struct TokenList {
    /// Only those in this state: active, expired, disabled, revoked, rotating
    #[arg(long, value_name = "STATE")]
    pub state: Option<String>,
    /// Only those of this owner
    #[arg(long, value_name = "OWNER")]
    pub owner: Option<String>,
}

/// `leastgate token revoke|disable|enable`
#[derive(Debug, Args)]
pub struct TokenChange {
    /// Its name or accessor
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
    Create {
        /// A name
        #[arg(long, value_name = "NAME")]
        name: String,
        /// viewer reads, operator manages tokens, admin also manages admins
        #[arg(long, value_name = "ROLE", default_value = "operator")]
        role: String,
        /// Write the credential into this new file (mode 0600), not on the terminal
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        secret_file: Option<PathBuf>,
    },
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

/// `leastgate check`
#[derive(Debug, Args)]
pub struct Check {
    /// The token's name or accessor; `-` reads a token from standard input
    pub token: String,
    /// The request's method
    pub method: String,
    /// The request's URL, or its path where one api has any host
    pub url: String,
    /// A request header, `Name: value`; may be repeated
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub headers: Vec<String>,
    /// The caller's address
    #[arg(long, value_name = "IP")]
    pub source_ip: Option<String>,
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

/// Reads the process's arguments.
///
/// # Errors
/// A usage error (64); help and version are printed and end with 0.
pub fn parse() -> Result<Cli, Failure> {
    match Cli::try_parse() {
        Ok(cli) => {
            output::set_quiet(cli.global.quiet);
            output::set_color(!cli.global.no_color);
            Ok(cli)
        }
        Err(error) if error.use_stderr() => {
            Err(Failure::new(Exit::Usage, error.render().ansi().to_string().trim_end()))
        }
        Err(help) => {
            output::data(help.render().ansi().to_string().trim_end());
            Err(Failure::silent_success())
        }
    }
}

/// The command line's description, for completions and manual pages.
#[must_use]
pub fn description() -> clap::Command {
    Cli::command()
}
