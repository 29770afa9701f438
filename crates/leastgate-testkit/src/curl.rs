//! The real curl, as the client nobody here wrote.

use std::process::Command;

use crate::deadline::PATIENCE;
use crate::paths::program;
use crate::process::Process;

/// What curl got.
#[derive(Debug)]
pub struct Fetched {
    /// The status code; 0 when there was no answer.
    pub status: u16,
    /// The final head, lower-cased names as curl prints them.
    pub head: String,
    /// The body.
    pub body: String,
    /// curl's own exit code.
    pub code: i32,
}

/// Runs curl with `arguments`, silent, the head before the body.
#[must_use]
pub fn curl(arguments: &[&str]) -> Fetched {
    let mut command = Command::new(program("curl"));
    // -q first: a curlrc of this machine is not part of the test.
    command.args(["-q", "-sS", "--noproxy", "*", "--max-time", "20", "-i", "-w", "\n%{http_code}"]).args(arguments);
    let ended = Process::run("curl", &mut command, PATIENCE * 3);
    let (answer, status) = ended.stdout.rsplit_once('\n').unwrap_or(("", "0"));
    let (head, body) = final_answer(answer);
    Fetched {
        status: status.trim().parse().unwrap_or(0),
        head: head.to_owned(),
        body: body.to_owned(),
        code: ended.code.unwrap_or(-1),
    }
}

/// `-i` prints interim heads too: the final one is the last that is followed by a body.
fn final_answer(mut text: &str) -> (&str, &str) {
    loop {
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return (text, "") };
        if !head.starts_with("HTTP/1.1 1") {
            return (head, body);
        }
        text = body;
    }
}

impl Fetched {
    /// The value of a field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::RecorderUpstream;

    #[test]
    fn it_fetches() {
        let upstream = RecorderUpstream::start();
        let got = curl(&["-H", "X-Probe: 7", &format!("{}/a", upstream.url())]);
        assert_eq!((got.status, got.field("X-Echo"), got.code), (200, Some("7"), 0));
        assert!(got.body.contains("\"/a\""), "{}", got.body);
    }
}
