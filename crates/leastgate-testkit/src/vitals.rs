//! What a process takes while something is done to it: its memory, looked at again and again from outside.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::param::page_size;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// From one look to the next.
const PAUSE: Duration = Duration::from_millis(5);

/// Resident memory of a process in bytes; 0 once it has ended.
#[must_use]
pub fn resident(process: u32) -> u64 {
    let pages = fs::read_to_string(format!("/proc/{process}/statm")).ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * page_size() as u64
}

/// How many connections of this machine the kernel has reset because TCP has all the memory it may take
/// (`TCPAbortOnMemory` of `/proc/net/netstat`, its limit is the last of `net.ipv4.tcp_mem`): answers that were sent are lost
/// so, and nobody's program has part in it.
#[must_use]
pub fn reset_for_memory() -> u64 {
    counter(&fs::read_to_string("/proc/net/netstat").unwrap_or_default(), "TCPAbortOnMemory")
}

/// The file has a line of names, and below it one of values, for each group.
fn counter(netstat: &str, name: &str) -> u64 {
    let mut lines = netstat.lines();
    let place = lines.by_ref().find_map(|names| names.split(' ').position(|candidate| candidate == name));
    place.and_then(|place| lines.next()?.split(' ').nth(place)?.parse().ok()).unwrap_or(0)
}

/// Raises the limit of this process, and of what it starts, to as many files as the system lets it have open. Gives
/// whether `wanted` are among them.
#[must_use]
pub fn may_open(wanted: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // What is not to be had shows in the answer.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.is_none_or(|current| current >= wanted)
}

/// A process whose memory is looked at until the value is dropped.
#[derive(Debug)]
pub struct Watch {
    process: u32,
    before: u64,
    peak: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    looking: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins: what it takes now is what growth is counted from.
    #[must_use]
    pub fn of(process: u32) -> Self {
        let before = resident(process);
        let (peak, ended) = (Arc::new(AtomicU64::new(before)), Arc::new(AtomicBool::new(false)));
        let (highest, is_over) = (Arc::clone(&peak), Arc::clone(&ended));
        let looking = thread::spawn(move || {
            while !is_over.load(Ordering::SeqCst) {
                highest.fetch_max(resident(process), Ordering::SeqCst);
                thread::sleep(PAUSE);
            }
        });
        Self { process, before, peak, ended, looking: Some(looking) }
    }

    /// The most it has taken since, over what it took in the beginning, in bytes.
    #[must_use]
    pub fn growth(&self) -> u64 {
        let now = self.peak.fetch_max(resident(self.process), Ordering::SeqCst);
        now.max(resident(self.process)).saturating_sub(self.before)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        if let Some(looking) = self.looking.take() {
            // It only reads a file; and the test that drops this may be failing already.
            let _ = looking.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_files_can_be_raised() {
        assert!(may_open(64));
        assert!(getrlimit(Resource::Nofile).current == getrlimit(Resource::Nofile).maximum);
    }

    #[test]
    fn a_counter_stands_below_its_name() {
        let netstat = "TcpExt: SyncookiesSent TCPAbortOnMemory\nTcpExt: 3 37\nIpExt: InNoRoutes\nIpExt: 5\n";
        assert_eq!(counter(netstat, "TCPAbortOnMemory"), 37);
        assert_eq!(counter(netstat, "InNoRoutes"), 5);
        let here = fs::read_to_string("/proc/net/netstat").unwrap();
        assert!(here.contains(" TCPAbortOnMemory "), "{here}");
    }

    #[test]
    fn growth_is_the_peak_and_not_what_is_left() {
        let watch = Watch::of(std::process::id());
        let taken = vec![1_u8; 64 << 20];
        assert!(watch.growth() > 48 << 20, "{} bytes", watch.growth());
        drop(taken);
        assert!(watch.growth() > 48 << 20, "{} bytes", watch.growth());
    }
}
