//! The addresses behind the names of endpoints. One worker asks the system's resolver for all of them, again and again;
//! no request waits for it once there has been an answer.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use leastgate_config::Upstream;
use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use crate::complaints::Throttle;

/// How old an answer may become. The system's resolver tells no TTL.
const REFRESH: Duration = Duration::from_secs(5);

/// After a failure.
const RETRY: Duration = Duration::from_millis(500);

/// Most addresses of a name that are used.
const MOST_ADDRESSES: usize = 64;

/// What is known of a name.
#[derive(Clone, Debug, Default)]
pub(crate) enum Answer {
    #[default]
    Unknown,
    /// There never was an address.
    Failed(Arc<io::Error>),
    /// Sorted. A failure after it changes nothing: who is reachable under the old addresses stays so.
    Addresses(Arc<[IpAddr]>),
}

/// All names of all upstreams.
#[derive(Debug)]
pub(crate) struct Names {
    names: Vec<(String, watch::Sender<Answer>)>,
    is_claimed: AtomicBool,
}

impl Names {
    /// Of these hosts the ones that are no addresses.
    pub(crate) fn new<'a>(hosts: impl Iterator<Item = &'a str>) -> Arc<Self> {
        let mut names: Vec<_> = hosts.filter(|host| host.parse::<IpAddr>().is_err()).map(str::to_owned).collect();
        names.sort_unstable();
        names.dedup();
        let names = names.into_iter().map(|name| (name, watch::Sender::default())).collect();
        Arc::new(Self { names, is_claimed: AtomicBool::new(false) })
    }

    pub(crate) fn of(upstreams: &[Upstream]) -> Arc<Self> {
        Self::new(upstreams.iter().flat_map(|upstream| &upstream.endpoints).map(super::forward::host))
    }

    /// The answers for a name that was there from the beginning.
    pub(crate) fn follow(&self, host: &str) -> Option<watch::Receiver<Answer>> {
        self.names.iter().find(|(name, _)| name == host).map(|(_, answers)| answers.subscribe())
    }

    /// Keeps asking for every name, if no other worker does so already.
    pub(crate) fn resolve(self: &Arc<Self>) {
        if self.is_claimed.swap(true, Ordering::Relaxed) {
            return;
        }
        for index in 0..self.names.len() {
            spawn_local(Arc::clone(self).keep_asking(index));
        }
    }

    async fn keep_asking(self: Arc<Self>, index: usize) {
        let (name, answers) = &self.names[index];
        let (began, failures) = (Instant::now(), Throttle::default());
        loop {
            let found = lookup_host((name.as_str(), 0)).await;
            let was_found = found.is_ok();
            let unused = publish(name, answers, found.map(|found| found.map(|address| address.ip()).collect()));
            if let Some(error) = unused
                && let Some(unlogged) = failures.record(name, began.elapsed())
            {
                tracing::warn!(name, %error, unlogged, "an upstream's name is not found; its old addresses are used on");
            }
            sleep(if was_found { REFRESH } else { RETRY }).await;
        }
    }
}

/// Tells the workers what has changed. A failure that changes nothing is given back: no request will tell of it.
fn publish(name: &str, answers: &watch::Sender<Answer>, found: io::Result<Vec<IpAddr>>) -> Option<io::Error> {
    let found = found.and_then(|addresses| match sorted(addresses) {
        none if none.is_empty() => Err(io::Error::other("the answer is empty")),
        some => Ok(some),
    });
    let mut unused = None;
    answers.send_if_modified(|known| match (found, &known) {
        (Ok(addresses), Answer::Addresses(same)) if **same == *addresses => false,
        (Ok(addresses), _) => {
            tracing::info!(name, ?addresses, "an upstream's name has addresses");
            *known = Answer::Addresses(addresses.into());
            true
        }
        (Err(error), Answer::Addresses(_)) => {
            unused = Some(error);
            false
        }
        (Err(error), _) => {
            *known = Answer::Failed(Arc::new(error));
            true
        }
    });
    unused
}

fn sorted(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(MOST_ADDRESSES);
    addresses
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    impl Names {
        /// Answers in the resolver's place.
        pub(crate) fn answer(&self, host: &str, found: io::Result<Vec<IpAddr>>) {
            let (name, answers) = self.names.iter().find(|(name, _)| name == host).unwrap();
            drop(publish(name, answers, found));
        }
    }

    #[test]
    fn addresses_are_no_names_and_each_name_is_asked_for_once() {
        let names = Names::new(["10.0.0.1", "::1", "a.internal", "b.internal", "a.internal"].into_iter());
        let known: Vec<_> = names.names.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(known, ["a.internal", "b.internal"]);
    }

    #[test]
    fn only_a_change_is_told_and_a_failure_takes_nothing_away() {
        let names = Names::new(["a"].into_iter());
        let mut answers = names.follow("a").unwrap();
        let failure = || Err(io::Error::other("no such name"));
        let mut told = |found: io::Result<Vec<&str>>| {
            names.answer("a", found.map(|list| list.into_iter().map(|address| address.parse().unwrap()).collect()));
            let told = answers.has_changed().unwrap();
            answers.mark_unchanged();
            told
        };
        assert!(told(failure()));
        assert!(told(Ok(vec!["10.0.0.2", "10.0.0.1", "10.0.0.1"])));
        assert!(!told(Ok(vec!["10.0.0.1", "10.0.0.2"])), "the order is the resolver's whim");
        assert!(!told(failure()) && !told(Ok(Vec::new())));
        assert!(told(Ok(vec!["10.0.0.1"])));
    }

    #[test]
    fn a_failure_that_no_request_will_tell_of_is_given_back() {
        let (answers, _followed) = watch::channel(Answer::Unknown);
        let publish = |found| publish("a", &answers, found).map(|error| error.to_string());
        assert_eq!(publish(Err(io::Error::other("no such name"))), None, "requests fail, and are told why");
        assert_eq!(publish(Ok(vec![IpAddr::from([10, 0, 0, 1])])), None);
        assert_eq!(publish(Err(io::Error::other("no such name"))).as_deref(), Some("no such name"));
        assert_eq!(publish(Ok(Vec::new())).as_deref(), Some("the answer is empty"));
    }

    #[tokio::test]
    async fn the_systems_resolver_answers() {
        let names = Names::new(["localhost", "nowhere.invalid"].into_iter());
        let test = async {
            names.resolve();
            let [mut here, mut nowhere] = ["localhost", "nowhere.invalid"].map(|name| names.follow(name).unwrap());
            let found = here.wait_for(|answer| !matches!(answer, Answer::Unknown)).await.unwrap().clone();
            assert!(matches!(found, Answer::Addresses(found) if found.iter().all(IpAddr::is_loopback)));
            let found = nowhere.wait_for(|answer| !matches!(answer, Answer::Unknown)).await.unwrap().clone();
            assert!(matches!(found, Answer::Failed(_)));
        };
        let set = tokio::task::LocalSet::new();
        tokio::time::timeout(Duration::from_secs(30), set.run_until(test)).await.unwrap();
    }
}
