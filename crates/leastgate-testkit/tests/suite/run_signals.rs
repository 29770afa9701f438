//! Signals around `leastgate run`: each reaches the command as it would without us, and none keeps the token from its end.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use leastgate_testkit::deadline::{PATIENCE, until, until_true};
use leastgate_testkit::paths::program;
use leastgate_testkit::process::Process;
use rustix::process::{Pid, Signal, kill_process};

use crate::run_command::{LASTING, Runs, finished, given};

#[test]
fn signals_reach_the_command_and_the_token_ends_all_the_same() {
    let runs = Runs::start();
    for (name, signal) in [
        ("TERM", Signal::TERM),
        ("INT", Signal::INT),
        ("HUP", Signal::HUP),
        ("QUIT", Signal::QUIT),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
    ] {
        let script = format!("trap 'echo told; exit 3' {name}; echo ready; while :; do sleep 0.05; done");
        let mut process = runs.spawn(&[], &script);
        until_true("the command's start", PATIENCE * 3, || process.stdout() == "ready\n");
        process.signal(signal);
        let ended = finished(&mut process);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), "ready\ntold\n"), "{name}: {}", ended.stderr);
    }
    assert_eq!(runs.active(), "ci-bot\n");
}

#[test]
fn no_number_of_signals_keeps_the_token_from_its_end() {
    let runs = Runs::start();
    let mut process = runs.spawn(&[], &format!("trap 'echo told' TERM; {LASTING}"));
    let (secret, command) = given(&process);
    for count in 1..=2 {
        process.signal(Signal::TERM);
        until_true("a signal's arrival", PATIENCE, || process.stdout().matches("told").count() == count);
    }
    // It can't be revoked for now: signals come in the middle of that.
    runs.stored.gateway.signal(Signal::STOP);
    runs.release();
    until_true("the command's end", PATIENCE, || !Path::new(&format!("/proc/{command}")).exists());
    for signal in [Signal::TERM, Signal::INT, Signal::TERM, Signal::HUP] {
        process.signal(signal);
    }
    assert!(process.is_running());
    runs.stored.gateway.signal(Signal::CONT);
    let ended = finished(&mut process);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(runs.stored.ask(&secret, "/v1/orders").status, 401);
}

#[test]
fn what_nohup_ignores_the_command_ignores_too() {
    let runs = Runs::start();
    let inner = runs.script(&[], "kill -HUP $PPID $$; echo survived");
    let mut shell = Command::new(program("sh"));
    shell.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(inner.get_program()).args(inner.get_args());
    runs.surroundings(&mut shell);
    let ended = Process::run("sh", &mut shell, PATIENCE * 3);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "survived\n"), "{}", ended.stderr);
}

/// A terminal's Ctrl-C reaches the command by itself; passed on as well, it would come twice.
#[test]
fn what_a_terminal_sends_reaches_the_command_once() {
    // Writes each signal's number as it comes: two that come at once are two.
    const COUNTING: &str = "import os,signal,sys
r,w=os.pipe()
os.set_blocking(w,False)
signal.set_wakeup_fd(w)
for s in (signal.SIGINT,signal.SIGQUIT,signal.SIGTERM): signal.signal(s,lambda *_:None)
def say(line):
    with open(sys.argv[1],'a') as log: log.write(f'{line}\\n')
say(os.getppid())
while (number:=os.read(r,1)[0])!=signal.SIGTERM: say(number)
say('over')
";
    let runs = Runs::start();
    let log = runs.scratch.path().join("log");
    let (counting, path) = (runs.scratch.path().join("counting.py"), log.display().to_string());
    fs::write(&counting, COUNTING).unwrap();
    let words = ["--token", "ci-bot", "--", "python3", &counting.display().to_string(), &path];
    let inner = runs.command(&words);
    let line: Vec<String> = std::iter::once(inner.get_program())
        .chain(inner.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let mut terminal = Command::new(program("script"));
    terminal.args(["-qec", &format!("exec {}", line.join(" ")), "/dev/null"]);
    runs.surroundings(&mut terminal);
    let mut terminal = terminal.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let written = || fs::read_to_string(&log).unwrap_or_default();
    let lines =
        |count: usize| until("lines of the log", PATIENCE * 3, || (written().lines().count() >= count).then_some(()));
    lines(1);
    let keys = terminal.stdin.as_mut().unwrap();
    for (count, key) in [(2, b"\x03"), (3, b"\x1c")] {
        keys.write_all(key).unwrap();
        keys.flush().unwrap();
        lines(count);
    }
    let own: i32 = written().lines().next().unwrap().parse().unwrap();
    // It takes the way that the others would have taken, behind them.
    kill_process(Pid::from_raw(own).unwrap(), Signal::TERM).unwrap();
    let status = until("the end", PATIENCE * 3, || terminal.try_wait().unwrap());
    assert_eq!((status.code(), written()), (Some(0), format!("{own}\n2\n3\nover\n")));
    assert_eq!(runs.active(), "ci-bot\n");
}

/// A signal that comes before there is a command: there will be none, and its token ends.
#[test]
fn a_signal_before_the_command_keeps_it_from_starting() {
    let runs = Runs::start();
    runs.stored.gateway.signal(Signal::STOP);
    let mut process = runs.spawn(&[], "echo started");
    // While it waits for the gateway's answer, its thread for signals waits for those.
    let before = until("the thread for signals", PATIENCE, || waits(process.id()));
    process.signal(Signal::TERM);
    until_true("the signal's arrival", PATIENCE, || waits(process.id()).is_some_and(|count| count > before));
    runs.stored.gateway.signal(Signal::CONT);
    let ended = finished(&mut process);
    assert_eq!((ended.code, ended.stdout.as_str()), (None, ""), "{}", ended.stderr);
    assert_eq!(runs.active(), "ci-bot\n");
}

/// How often the thread for signals of a process has begun to wait; `None` while it does something else.
fn waits(process: u32) -> Option<u64> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).ok()?.flatten();
    let mut texts = threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    let text = texts.find(|text| text.starts_with("Name:\tsignals\n") && text.contains("\nState:\tS"))?;
    text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:\t"))?.parse().ok()
}
