//! The command's token: made, renewed and revoked over the admin API, and what is known of its life.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use leastgate_admin::api::{CreateChild, Moment, SecretText, TokenView};
use leastgate_admin::client::{Answered, Client, ClientError};
use leastgate_policy::Timestamp;

use crate::commands::client::warn_unless;
use crate::exit::Failure;
use crate::output::warn;

/// How long a gateway that can't be reached is asked to revoke, a call of it, and the pause between two.
const REVOKING: Duration = Duration::from_secs(5);
const REVOKING_CALL: Duration = Duration::from_secs(2);
const REVOKING_PAUSE: Duration = Duration::from_millis(250);

/// A token that stands in for another one.
#[derive(Debug)]
pub(super) struct ChildToken {
    /// Its name.
    pub(super) name: String,
    /// The token it stands in for, as the user named it.
    pub(super) parent: String,
    accessor: String,
    asked: CreateChild,
    client: Client,
    life: Mutex<Life>,
}

/// A life by the gateway's clock, and how far it is by ours: the two need not agree on the time of day.
#[derive(Clone, Copy, Debug)]
struct Life {
    begun: Instant,
    created: Timestamp,
    end: Moment,
}

/// What came of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewed {
    /// It lives longer.
    Longer,
    /// Its end stays where it was.
    AsBefore,
}

impl ChildToken {
    /// Makes one; the secret is for the command alone.
    pub(super) fn create(client: Client, parent: &str, asked: CreateChild) -> Result<(Self, SecretText), Failure> {
        let begun = Instant::now();
        let issued = client.create_child(parent, &asked)?;
        let life = Life::of(&issued.token, begun)?;
        let child = Self {
            name: issued.token.name,
            parent: parent.to_owned(),
            accessor: issued.token.accessor,
            client,
            life: Mutex::new(life),
            asked,
        };
        if life.length() < child.ttl() {
            warn(format_args!("{parent} ends at {}, and the command's token with it", life.end));
        }
        Ok((child, issued.secret))
    }

    /// Between two renewals.
    pub(super) fn interval(&self) -> Duration {
        self.ttl() / 3
    }

    /// Until when it lives, as far as is known.
    pub(super) fn end(&self) -> Moment {
        self.life().end
    }

    /// Whether its life has ended.
    pub(super) fn is_over(&self) -> bool {
        self.life().left().is_zero()
    }

    /// Prolongs its life.
    pub(super) fn renew(&self) -> Answered<Renewed> {
        let client = self.client.clone().with_timeout(self.client.timeout().min(self.interval()));
        let edited = client.renew_child(&self.accessor, &self.asked)?;
        let before = self.life();
        let life = Life::of(&edited.token, before.begun)?;
        *self.life.lock().unwrap_or_else(PoisonError::into_inner) = life;
        Ok(if before.end < life.end { Renewed::Longer } else { Renewed::AsBefore })
    }

    /// Ends it. A gateway that can't be reached is asked again for a few seconds; then it is said until when it lives.
    pub(super) fn revoke(&self, reason: &str) {
        let until = Instant::now() + REVOKING;
        let client = self.client.clone().with_timeout(self.client.timeout().min(REVOKING_CALL));
        loop {
            match client.revoke_token(&self.accessor, reason) {
                Ok(changed) => return warn_unless(changed.durable),
                Err(error) if is_gone(&error) => return,
                Err(error) if may_pass(&error) && Instant::now() < until => thread::sleep(REVOKING_PAUSE),
                Err(_) if self.is_over() => return,
                Err(error) => {
                    let (name, end) = (&self.name, self.end());
                    return warn(format_args!("{name} could not be revoked and lives until {end}: {error}"));
                }
            }
        }
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(self.asked.ttl.seconds())
    }

    fn life(&self) -> Life {
        *self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Life {
    fn of(token: &TokenView, begun: Instant) -> Answered<Self> {
        let endless =
            || ClientError::Protocol { detail: "a token that stands in for another one has an end".to_owned() };
        let (created, end) = token.created.zip(token.expires).ok_or_else(endless)?;
        Ok(Self { begun, created: created.0, end })
    }

    fn length(&self) -> Duration {
        Duration::from_secs(self.end.0.since(self.created))
    }

    fn left(&self) -> Duration {
        self.length().saturating_sub(self.begun.elapsed())
    }
}

/// Whether the next try may do better: nobody answered, or who did could not do it now.
pub(super) fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Connect { .. }
        | ClientError::Timeout { .. }
        | ClientError::Protocol { .. }
        | ClientError::Tls { .. }
        | ClientError::Runtime(_) => true,
        ClientError::NotPermitted { .. }
        | ClientError::NotHttp { .. }
        | ClientError::DataListener { .. }
        | ClientError::InvalidId => false,
        ClientError::Unauthorized(problem) | ClientError::Refused(problem) => {
            problem.status >= 500 || matches!(problem.status, 408 | 412 | 429)
        }
    }
}

/// Whether there is nothing left to revoke: it has ended with the one it stood in for.
fn is_gone(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused(problem) if matches!(problem.status, 404 | 409))
}

#[cfg(test)]
mod tests {
    use leastgate_admin::api::ProblemView;

    use super::*;

    fn refused(status: u16) -> ClientError {
        let [kind, title, detail] = ["about:blank", "t", "d"].map(str::to_owned);
        ClientError::Refused(ProblemView { kind, title, status, detail, hint: None })
    }

    #[test]
    fn a_refusal_is_final_and_a_gateway_in_trouble_is_asked_again() {
        for status in [408, 412, 429, 500, 503, 507] {
            assert!(may_pass(&refused(status)), "{status}");
        }
        for status in [401, 403, 404, 409, 422] {
            assert!(!may_pass(&refused(status)), "{status}");
        }
    }

    #[test]
    fn a_life_is_measured_by_one_clock_at_a_time() {
        let end = |at: u64| Moment(Timestamp(at));
        let now = Instant::now();
        let life = Life { begun: now, created: Timestamp(1_000), end: end(1_900) };
        assert_eq!(life.length(), Duration::from_secs(900));
        assert!(life.left() > Duration::from_secs(800));
        let over = Life { begun: now, created: Timestamp(1_000), end: end(1_000) };
        assert!(over.left().is_zero());
    }
}
