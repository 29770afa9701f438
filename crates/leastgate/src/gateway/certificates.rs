//! Every certificate that comes from a file, towards clients, administrators and upstreams: read at a start, and again when what
//! the files hold changes.

use std::collections::BTreeMap;
use std::fmt;

use leastgate_config::{LoadedGateway, Upstream};
use leastgate_policy::Timestamp;
use leastgate_proxy::UpstreamTls;
use leastgate_proxy::tls::{CertificateView, ServerCertificates, ServerTls};
use leastgate_telemetry::Telemetry;

use super::listener_tls::{self, ListenerFiles};
use super::upstream_tls::{self, UpstreamFiles};
use super::watched::{CertificateFault, Now, Watched};
use crate::exit::Failure;

/// The certificates in force, and the files they come from.
#[derive(Debug, Default)]
pub struct Certificates {
    listener: Option<Watched<ListenerFiles>>,
    admin: Option<Watched<ListenerFiles>>,
    upstreams: Vec<Watched<UpstreamFiles>>,
}

/// Whose certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Clients,
    Admins,
    /// By its name.
    Upstream(String),
}

impl fmt::Display for Side {
    /// The key under which the files are named.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clients => f.write_str("listeners.data.tls"),
            Self::Admins => f.write_str("listeners.admin.tls"),
            Self::Upstream(name) => write!(f, "upstreams.{name}.tls"),
        }
    }
}

/// Files that were taken or refused.
pub(super) type Change = (Side, Result<(), CertificateFault>);

impl Certificates {
    /// Those that the gateway's file names.
    ///
    /// # Errors
    /// A file that can't be read or used (3).
    pub fn first(loaded: &LoadedGateway) -> Result<Self, Failure> {
        let hint = "paths are relative to the file that names them";
        let fault = |path: &[&str], fault: &CertificateFault| loaded.fault(path, &fault.to_string(), hint);
        let of = |listener| move |error: CertificateFault| fault(&["listeners", listener, "tls"], &error);
        let listener = listener_tls::data(&loaded.config).map_err(of("data"))?;
        let admin = listener_tls::admin(&loaded.config).map_err(of("admin"))?;
        let first = |upstream: &Upstream| {
            upstream_tls::first(upstream).map_err(|error| fault(&["upstreams", &upstream.name, "tls"], &error))
        };
        let upstreams = loaded.config.upstreams.iter().filter(|upstream| upstream.is_https()).map(first);
        Ok(Self { listener, admin, upstreams: upstreams.collect::<Result<_, _>>()? })
    }

    /// TLS towards clients, if there is any.
    #[must_use]
    pub fn listener(&self) -> Option<ServerTls> {
        self.listener.as_ref().map(|watched| watched.source.tls.clone())
    }

    /// TLS towards administrators, if there is any.
    #[must_use]
    pub fn admin(&self) -> Option<ServerTls> {
        self.admin.as_ref().map(|watched| watched.source.tls.clone())
    }

    /// What each upstream with https endpoints is met with.
    pub(super) fn upstreams(&self) -> BTreeMap<String, UpstreamTls> {
        let tls = |watched: &Watched<UpstreamFiles>| (watched.source.name.clone(), watched.source.tls.clone());
        self.upstreams.iter().map(tls).collect()
    }

    /// Tells the metrics about them.
    pub(super) fn show(&self, telemetry: &Telemetry) {
        if let Some(tls) = self.listener() {
            telemetry.set_certificates(ends(&tls.certificates()));
        }
        if let Some(tls) = self.admin() {
            telemetry.set_admin_certificates(ends(&tls.certificates()));
        }
        for UpstreamFiles { name, tls, .. } in self.upstreams.iter().map(|watched| &watched.source) {
            let certificates = tls.certificates();
            let views = certificates.authorities.iter().chain(&certificates.identity);
            telemetry.set_upstream_certificates(name, views.map(|view| (view.origin.as_str(), view.expires)));
        }
    }

    /// Certificates that can't be read, and those that peers do not accept any more, or soon will not, one line each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let shown_to = |whom| move |view| Term { what: "the certificate", refused_by: Some(whom), view };
        // What an authority has signed is judged by its own time alone, so nobody refuses it for that.
        let judged_by = |view| Term { what: "an authority", refused_by: None, view };
        let mut terms = Vec::new();
        for (tls, refused_by) in
            [(self.listener(), "clients refuse it"), (self.admin(), "administrators' clients refuse it")]
        {
            let Some(certificates) = tls.as_ref().map(ServerTls::certificates) else { continue };
            terms.extend(certificates.shown.into_iter().map(shown_to(refused_by)));
            terms.extend(certificates.authorities.map(judged_by));
        }
        for watched in &self.upstreams {
            let certificates = watched.source.tls.certificates();
            terms.extend(certificates.identity.map(shown_to("upstreams refuse it")));
            terms.extend(certificates.authorities.map(judged_by));
        }
        let now = Now::read().wall;
        let unread = self.upstreams.iter().filter_map(|watched| watched.source.warning());
        unread.chain(terms.iter().filter_map(|term| term.tell(now))).collect()
    }

    /// Takes what the files hold where that is new, or where it was too early for it.
    pub(super) fn poll(&mut self, now: Now) -> Vec<Change> {
        let mut changes = Vec::new();
        for (side, watched) in [(Side::Clients, &mut self.listener), (Side::Admins, &mut self.admin)] {
            changes.extend(watched.as_mut().and_then(|watched| watched.poll(now)).map(|outcome| (side, outcome)));
        }
        for watched in &mut self.upstreams {
            changes.extend(watched.poll(now).map(|outcome| (Side::Upstream(watched.source.name.clone()), outcome)));
        }
        changes
    }

    /// Takes what the files hold, new or not.
    pub(super) fn reload(&mut self, now: Now) -> Vec<Change> {
        let data = self.listener.iter_mut().map(|watched| (Side::Clients, watched.reload(now)));
        let admin = self.admin.iter_mut().map(|watched| (Side::Admins, watched.reload(now)));
        let upstreams = self.upstreams.iter_mut().map(|watched| {
            let outcome = watched.reload(now);
            (Side::Upstream(watched.source.name.clone()), outcome)
        });
        data.chain(admin).chain(upstreams).collect()
    }
}

/// When what a listener shows ends, and the authorities of its clients.
fn ends(certificates: &ServerCertificates) -> impl Iterator<Item = (&str, Timestamp)> {
    let views = certificates.shown.iter().chain(&certificates.authorities);
    views.filter_map(|view| Some((view.origin.as_str(), view.expires?)))
}

/// From when until when a certificate is valid, and who minds.
struct Term {
    what: &'static str,
    refused_by: Option<&'static str>,
    view: CertificateView,
}

impl Term {
    /// Renewals come a month before the end at the latest; one that has not come a week before is late.
    const SOON: u64 = 7 * 86_400;

    fn tell(&self, now: Timestamp) -> Option<String> {
        let and = self.refused_by.map(|refused_by| format!(", and {refused_by}")).unwrap_or_default();
        if self.view.begins.is_some_and(|begin| now < begin) {
            return Some(format!("{self}: it is not valid yet by this machine's clock{and}"));
        }
        match self.view.expires?.0.saturating_sub(now.0) {
            0 => Some(format!("{self}: it has expired{and}")),
            left @ 1..=Self::SOON => Some(format!("{self}: it expires in {} hours", left / 3600)),
            _ => None,
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.what, self.view.origin)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::{Duration, Instant};

    use leastgate_config::parse_gateway;
    use leastgate_proxy::tls::TlsError;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair as Key};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A certificate for this name in `web.pem`, valid in these years; gives its key.
    fn write(dir: &Path, name: &str, years: (i32, i32)) -> String {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let key = Key::generate().unwrap();
        fs::write(dir.join("web.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        key.serialize_pem()
    }

    fn write_both(dir: &Path, name: &str, years: (i32, i32)) {
        let key = write(dir, name, years);
        fs::write(dir.join("web.key"), key).unwrap();
    }

    fn write_authority(dir: &Path, until: i32) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let authority = CertifiedIssuer::self_signed(params, Key::generate().unwrap()).unwrap();
        fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    }

    /// Whose `web.pem` and `web.key` are.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Shown {
        ToClients,
        ToUpstreams,
    }

    fn loaded(dir: &Path, shown: Shown) -> LoadedGateway {
        let files = "cert: web.pem, key: web.key";
        let (upstream, listener) = match shown {
            Shown::ToClients => {
                ("\"http://h\" ]".to_owned(), format!("listeners: {{ data: {{ tls: {{ {files} }} }} }}\n"))
            }
            Shown::ToUpstreams => (format!("\"https://h\" ], tls: {{ ca: ca.pem, {files} }}"), String::new()),
        };
        let text = format!(
            "environment: prod\nstate_dir: .\nupstreams: {{ a: {{ endpoints: [ {upstream} }} }}\n\
             pepper: {{ current: {{ file: pepper }} }}\npolicy: {{ files: [ p ] }}\n{listener}"
        );
        parse_gateway(&dir.join("leastgate.yaml").display().to_string(), &text).unwrap()
    }

    fn names(certificates: &Certificates) -> Vec<String> {
        match certificates.listener() {
            Some(tls) => tls.certificates().shown.remove(0).names,
            None => certificates.upstreams()["a"].certificates().identity.unwrap().names,
        }
    }

    /// Looks so many times at this moment; what came of it.
    fn poll(certificates: &mut Certificates, times: usize, now: Now) -> Vec<Result<(), CertificateFault>> {
        (0..times).flat_map(|_| certificates.poll(now)).map(|(_, outcome)| outcome).collect()
    }

    #[test]
    fn a_pair_is_taken_when_both_of_its_files_are_there_and_one_that_is_broken_is_told_once() {
        for shown in [Shown::ToClients, Shown::ToUpstreams] {
            let dir = tempfile::tempdir().unwrap();
            write_authority(dir.path(), 2040);
            write_both(dir.path(), "one.test", (2020, 2040));
            let mut certificates = Certificates::first(&loaded(dir.path(), shown)).unwrap();
            let mut look = |times| (poll(&mut certificates, times, Now::read()), names(&certificates).remove(0));
            assert_eq!(look(1), (vec![], "one.test".to_owned()));

            let key = write(dir.path(), "two.test", (2020, 2040));
            assert_eq!(look(1).0, [], "the key is still the old one");
            fs::write(dir.path().join("web.key"), key).unwrap();
            assert_eq!(look(1).0, [], "new, and perhaps not all of it");
            assert_eq!(look(1), (vec![Ok(())], "two.test".to_owned()));
            assert_eq!(look(1).0, []);

            fs::remove_file(dir.path().join("web.key")).unwrap();
            let told = look(4).0;
            assert!(matches!(&told[..], [Err(CertificateFault::Unreadable { path, .. })] if path.ends_with("web.key")));
            write_both(dir.path(), "old.test", (2019, 2020));
            let (told, name) = look(4);
            assert!(matches!(&told[..], [Err(CertificateFault::Unusable(TlsError::Expired { .. }))]), "{told:?}");
            assert_eq!(name, "two.test", "what was in force stays");
            let told = certificates.reload(Now::read());
            assert!(matches!(&told[..], [(_, Err(_))]), "whoever asks is told again");
        }
    }

    #[test]
    fn what_the_clock_speaks_against_is_tried_again_each_minute_and_what_comes_back_is_taken_at_once() {
        const YEAR: u64 = 365 * 86_400;
        let wall = Now::read().wall.0;
        for (years, other_time) in [((2019, 2020), wall - 7 * YEAR), ((2050, 2060), wall + 30 * YEAR)] {
            for shown in [Shown::ToClients, Shown::ToUpstreams] {
                let dir = tempfile::tempdir().unwrap();
                write_authority(dir.path(), 2040);
                write_both(dir.path(), "one.test", (2010, 2070));
                let first = ["web.pem", "web.key"].map(|name| (name, fs::read(dir.path().join(name)).unwrap()));
                let mut certificates = Certificates::first(&loaded(dir.path(), shown)).unwrap();
                let (start, wall) = (Instant::now(), Timestamp(wall));
                let now = |wall, minutes| Now { wall, at: start + MINUTE * minutes };
                write_both(dir.path(), "two.test", years);
                let told = poll(&mut certificates, 3, now(wall, 0));
                assert!(matches!(&told[..], [Err(_)]), "{told:?}");
                assert_eq!(poll(&mut certificates, 3, now(wall, 1)), [], "told already");
                assert_eq!(names(&certificates), ["one.test"]);
                let other = Timestamp(other_time);
                assert_eq!(poll(&mut certificates, 3, now(other, 1)), [], "not before the next minute");
                assert_eq!(poll(&mut certificates, 3, now(other, 2)), [Ok(())]);
                assert_eq!(names(&certificates), ["two.test"]);

                write_both(dir.path(), "two.test", years);
                assert_eq!(poll(&mut certificates, 2, now(wall, 3)).len(), 1);
                first.iter().for_each(|(name, bytes)| fs::write(dir.path().join(name), bytes).unwrap());
                assert_eq!(poll(&mut certificates, 2, now(wall, 3)), [Ok(())]);
                assert_eq!(names(&certificates), ["one.test"]);
                assert_eq!(poll(&mut certificates, 2, now(wall, 9)), [], "there is nothing left to try");
            }
        }
    }

    #[test]
    fn a_start_without_certificates_says_which_file_and_where_it_is_named() {
        for (shown, line) in [(Shown::ToClients, "leastgate.yaml:6"), (Shown::ToUpstreams, "leastgate.yaml:3")] {
            let dir = tempfile::tempdir().unwrap();
            write_authority(dir.path(), 2040);
            let told = || format!("{:?}", Certificates::first(&loaded(dir.path(), shown)).unwrap_err());
            assert!(told().contains("web.pem can't be opened") && told().contains(line), "{}", told());
            write_both(dir.path(), "one.test", (2020, 2040));
            write(dir.path(), "two.test", (2020, 2040));
            assert!(told().contains("does not belong to"), "{}", told());
        }
    }

    #[test]
    fn an_end_that_is_near_or_past_is_told() {
        let lines = |shown, years, authority| {
            let dir = tempfile::tempdir().unwrap();
            write_authority(dir.path(), authority);
            write_both(dir.path(), "one.test", years);
            let lines = Certificates::first(&loaded(dir.path(), shown)).unwrap().warnings();
            lines.into_iter().map(|line| line.replace(dir.path().to_str().unwrap(), ".")).collect::<Vec<_>>()
        };
        let clients = |years| lines(Shown::ToClients, years, 2040);
        assert_eq!(clients((2019, 2020)), ["the certificate in ./web.pem: it has expired, and clients refuse it"]);
        let early = "the certificate in ./web.pem: it is not valid yet by this machine's clock, and clients refuse it";
        assert_eq!(clients((2050, 2060)), [early]);
        assert_eq!(
            lines(Shown::ToUpstreams, (2019, 2020), 2020),
            [
                "the certificate in ./web.pem: it has expired, and upstreams refuse it",
                "an authority in ./ca.pem: it has expired",
            ]
        );
        assert_eq!(lines(Shown::ToUpstreams, (2019, 2040), 2040), [""; 0]);
        let end = |hours: u64| Term {
            what: "the certificate",
            refused_by: None,
            view: CertificateView {
                origin: "a".into(),
                names: Vec::new(),
                begins: None,
                expires: Some(Timestamp(1_000_000 + hours * 3600)),
            },
        };
        assert_eq!(end(8 * 24).tell(Timestamp(1_000_000)), None);
        assert_eq!(end(30).tell(Timestamp(1_000_000)).unwrap(), "the certificate in a: it expires in 30 hours");
    }
}
