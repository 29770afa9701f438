//! Many tokens at once: `token create --count`, `export`, `import`, and `revoke` by a filter.

use std::fmt;
use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use leastgate_admin::api::{
    CreateToken, CreateTokens, ExportedToken, ImportTokens, ImportedTokens, IssuedOfMany, RevokeTokens, RevokedTokens,
};
use leastgate_admin::client::{Client, ClientError};
use zeroize::Zeroizing;

use crate::cli::{Global, TokenImport, TokenRevoke};
use crate::commands::client::{self, Handover};
use crate::commands::interrupt::Interrupt;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format};

/// Tokens of one call.
const BATCH: u32 = 10_000;

/// Each batch is with its owner before the next one is asked for: whatever ends the command, a secret that nobody has is
/// one of a batch, and those are named.
pub(super) fn create(
    global: &Global,
    token: &CreateToken,
    count: u32,
    secret_file: Option<&Path>,
) -> Result<(), Failure> {
    let client = client::connect(global)?;
    let mut handover = Handover::prepare(global, secret_file, String::new())?;
    let interrupt = Interrupt::take()?;
    let progress = progress(count.into(), "tokens");
    let mut made = 0;
    let ended = loop {
        if made == count {
            break Ok(());
        }
        if interrupt.has_come() {
            let said = if made == 0 { "interrupted: no token was made" } else { "interrupted" };
            break Err(Failure::new(Exit::Interrupted, said));
        }
        let batch = Batch { name: &token.name, first: made + 1, last: made.saturating_add(BATCH).min(count) };
        match batch.make(global, &client, token, &mut handover) {
            Ok(()) => made = batch.last,
            Err(failure) => break Err(failure),
        }
        progress.set_position(made.into());
    };
    progress.finish_and_clear();
    if let Some(path) = handover.path().filter(|_| made > 0) {
        output::note(format_args!("the secrets are in {}", path.display()));
    }
    if made > 0 && ended.is_err() {
        output::warn(format_args!("{made} of {count} tokens were made, and their secrets are handed over"));
    }
    ended
}

/// Tokens of one call, by the numbers behind their name.
struct Batch<'a> {
    name: &'a str,
    first: u32,
    last: u32,
}

impl Batch<'_> {
    fn make(
        &self,
        global: &Global,
        client: &Client,
        token: &CreateToken,
        handover: &mut Handover,
    ) -> Result<(), Failure> {
        let (count, first) = (self.last - self.first + 1, Some(self.first));
        let made = client.create_tokens(&CreateTokens { token: token.clone(), count, first }).map_err(|error| {
            // Nobody knows what became of a call whose answer did not come.
            let is_unknown = matches!(error, ClientError::Timeout { .. } | ClientError::Protocol { .. });
            if is_unknown {
                output::warn(format_args!(
                    "{self} may have been made, and nobody has their secrets: {}",
                    self.remedy()
                ));
            }
            Failure::from(error)
        })?;
        handover.add(&lines(global, &made.items)).map_err(|error| {
            let message =
                format!("the secrets of {self} could not be written ({error}) and are lost: {}", self.remedy());
            Failure::new(Exit::Failed, message)
        })
    }

    /// Exactly these, for their owner may have others.
    fn remedy(&self) -> String {
        let Self { name, first, last } = self;
        format!(
            "revoke them with `for n in $(seq {first} {last}); do leastgate token revoke {name}-$n --reason lost --yes; done`"
        )
    }
}

impl fmt::Display for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, first, last } = self;
        write!(f, "{name}-{first} to {name}-{last}")
    }
}

fn lines(global: &Global, issued: &[IssuedOfMany]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(issued.len() * 320));
    let as_json = global.output == Format::Json;
    for one in issued {
        if as_json {
            let public = serde_json::json!({ "accessor": one.accessor, "name": one.name }).to_string();
            text.push_str(public.trim_end_matches('}'));
            text.push_str(",\"secret\":\"");
            text.push_str(one.secret.expose());
            text.push_str("\"}\n");
        } else {
            text.push_str(&one.name);
            text.push(' ');
            text.push_str(one.secret.expose());
            text.push('\n');
        }
    }
    text
}

pub(super) fn export(global: &Global) -> Result<(), Failure> {
    let client = client::connect(global)?;
    let mut all: Vec<ExportedToken> = Vec::new();
    let mut cursor = None;
    loop {
        let page = client.export_tokens(&cursor)?;
        all.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    output::note(format_args!(
        "{} tokens; `leastgate token import` of another gateway of this environment takes them",
        all.len()
    ));
    output::json(&all)
}

pub(super) fn import(global: &Global, arguments: &TokenImport) -> Result<(), Failure> {
    let tokens = read(arguments)?;
    let client = client::connect(global)?;
    let progress = progress(tokens.len() as u64, "tokens");
    let mut done = ImportedTokens { imported: 0, unchanged: 0 };
    for batch in tokens.chunks(BATCH as usize) {
        let asked = ImportTokens { tokens: batch.to_vec(), reason: arguments.reason.clone() };
        let taken = client.import_tokens(&asked).inspect_err(|_| {
            if done.imported > 0 {
                output::warn(format_args!(
                    "{} tokens were taken before; a second import goes on from there",
                    done.imported
                ));
            }
        })?;
        done.imported += taken.imported;
        done.unchanged += taken.unchanged;
        progress.inc(batch.len() as u64);
    }
    progress.finish_and_clear();
    match global.output {
        Format::Json => output::json(&done)?,
        Format::Name | Format::Table => {
            output::data(format_args!("{} tokens imported, {} were here already", done.imported, done.unchanged));
        }
    }
    Ok(())
}

fn read(arguments: &TokenImport) -> Result<Vec<ExportedToken>, Failure> {
    let shown = arguments.file.display();
    let failed = |error: &dyn fmt::Display| Failure::new(Exit::Failed, format!("{shown} can't be read: {error}"));
    let mut text = String::new();
    if arguments.file.as_os_str() == "-" {
        std::io::stdin().lock().read_to_string(&mut text).map_err(|error| failed(&error))?;
    } else {
        text = std::fs::read_to_string(&arguments.file).map_err(|error| failed(&error))?;
    }
    serde_json::from_str(&text).map_err(|error| {
        Failure::new(Exit::Invalid, format!("{shown}: {error}"))
            .help("it must be what `leastgate token export` prints: a JSON list of tokens")
    })
}

/// By a filter: what fits is shown before anybody is asked.
pub(super) fn revoke(global: &Global, arguments: &TokenRevoke) -> Result<(), Failure> {
    if global.output == Format::Name {
        // A script that works until there are more of them than the answer names would be worse than none.
        let message = "-o name has no list of all that a filter fits, for the gateway names a few of them: -o json says how \
                       many there are, and `leastgate token list -o name` names every one of an owner, or made or used since";
        return Err(Failure::new(Exit::Usage, message));
    }
    let filter = RevokeTokens {
        owner: arguments.owner.clone(),
        role: arguments.role.clone(),
        scope: arguments.scope.clone(),
        unused_since: arguments.unused_since.as_deref().map(|text| client::past("--unused-since", text)).transpose()?,
        created_before: arguments
            .created_before
            .as_deref()
            .map(|text| client::past("--created-before", text))
            .transpose()?,
        dry_run: true,
        reason: arguments.reason.clone(),
    };
    let client = client::connect(global)?;
    if !arguments.dry_run && arguments.yes {
        return told(global, &client.revoke_tokens(&RevokeTokens { dry_run: false, ..filter })?);
    }
    let found = client.revoke_tokens(&filter)?;
    if arguments.dry_run {
        return told(global, &found);
    }
    sample(&found);
    if found.matched == 0 {
        return told(global, &found);
    }
    client::confirm(&format!("Revoke {} tokens for good?", found.matched), false)?;
    told(global, &revoke_found(&client, &filter)?)
}

fn revoke_found(client: &Client, filter: &RevokeTokens) -> Result<RevokedTokens, Failure> {
    Ok(client.revoke_tokens(&RevokeTokens { dry_run: false, ..filter.clone() })?)
}

fn sample(found: &RevokedTokens) {
    for token in &found.sample {
        output::note(format_args!("  {} ({}) {}", token.name, token.accessor, token.owner.as_deref().unwrap_or("-")));
    }
    let more = found.matched.saturating_sub(found.sample.len() as u64);
    if more > 0 {
        output::note(format_args!("  and {more} more"));
    }
}

fn told(global: &Global, answer: &RevokedTokens) -> Result<(), Failure> {
    match global.output {
        Format::Json => output::json(answer)?,
        Format::Table if answer.dry_run => {
            sample(answer);
            output::data(format_args!("{} tokens would be revoked", answer.matched));
        }
        Format::Name | Format::Table => output::data(format_args!("{} tokens are revoked", answer.revoked)),
    }
    client::warn_unless(answer.durable);
    Ok(())
}

/// A bar for whoever watches; nothing where nobody does.
fn progress(total: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(total);
    if !std::io::stderr().is_terminal() || output::is_quiet() || total <= u64::from(BATCH) {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(what.to_owned());
    bar
}
