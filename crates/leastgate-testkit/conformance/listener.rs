//! testssl.sh and sslyze against the TLS listener: what they find beyond what is wanted fails.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use leastgate_testkit::deadline::PATIENCE;
use leastgate_testkit::gateway::TestGateway;
use leastgate_testkit::paths::program;
use leastgate_testkit::process::Process;
use leastgate_testkit::recorder::RecorderUpstream;
use serde_json::Value;

use crate::bed::{Tokens, over_tls};
use crate::peer::{package, python};
use crate::report::{Report, Subject};

/// What testssl.sh finds fault with that is none of the listener's: the test's own certificate has no authority's
/// infrastructure behind it, `.test` has no DNS, and its own OpenSSL lacks an engine.
const NOT_OURS: &[&str] = &["cert_revocation", "DNS_CAArecord", "engine_problem"];

pub(crate) fn run(report: &mut Report) {
    let testssl = report.wants("testssl.sh").then(|| package_version("testssl.sh"));
    let sslyze = report.wants("sslyze").then(|| package("sslyze"));
    if testssl.is_none() && sslyze.is_none() {
        return;
    }
    let subject = |peer: &str, version: &str| Subject { kind: "listener", peer: peer.into(), version: version.into() };
    let upstream = RecorderUpstream::start();
    let starting = subject("testssl.sh", testssl.as_deref().unwrap_or("?"));
    let start = || over_tls(Tokens::new().setup().upstream("orders", &upstream.url())).start();
    let Some(gateway) = report.prepare(&starting, "starts", start) else { return };
    if let Some(version) = testssl {
        run_testssl(report, &subject("testssl.sh", &version), &gateway);
    }
    if let Some(version) = sslyze {
        run_sslyze(report, &subject("sslyze", &version), &gateway);
    }
}

/// What Debian calls the version of a package, for programs that do not say their own.
pub(crate) fn package_version(package: &str) -> String {
    let mut query = Command::new("dpkg-query");
    let ended = Process::run("dpkg-query", query.args(["-Wf", "${Version}", package]), PATIENCE);
    ended.stdout.split(['-', '+']).next().unwrap_or("?").to_owned()
}

/// Protocols, ciphers, forward secrecy, the certificate, and every known vulnerability.
fn run_testssl(report: &mut Report, subject: &Subject, gateway: &TestGateway) {
    let file = gateway.path().join("testssl.json");
    let port = gateway.data().port();
    let mut command = Command::new(program("testssl"));
    command.args(["--quiet", "--color", "0", "--warnings", "off", "--ip", "127.0.0.1", "-p", "-s", "-f", "-S", "-U"]);
    command.arg("--add-ca").arg(gateway.path().join("ca.pem")).arg("--jsonfile").arg(&file);
    command.arg(format!("https://orders.test:{port}")).current_dir(gateway.path());
    let findings = report.prepare(subject, "scans", || {
        let ended = Process::run("testssl", &mut command, Duration::from_secs(300));
        read(&file).as_array().cloned().unwrap_or_else(|| panic!("no findings: {}", ended.stdout))
    });
    let Some(findings) = findings else { return };
    let finding = |id: &str| {
        let of_id = |one: &&Value| one["id"] == id;
        findings.iter().find(of_id).and_then(|one| one["finding"].as_str()).unwrap_or("nothing").to_owned()
    };
    report.cell(subject, "TLS 1.2 and 1.3 only", || {
        for id in ["SSLv2", "SSLv3", "TLS1", "TLS1_1"] {
            assert_eq!(finding(id), "not offered", "{id}");
        }
        assert_eq!((finding("TLS1_2").as_str(), finding("TLS1_3").as_str()), ("offered", "offered with final"));
        String::new()
    });
    report.cell(subject, "forward secrecy only", || {
        for id in ["NULL", "aNULL", "EXPORT", "LOW", "3DES_IDEA", "AVERAGE"] {
            assert_eq!(finding(&format!("cipherlist_{id}")), "not offered", "{id}");
        }
        finding("PFS_ciphers")
    });
    report.cell(subject, "certificate", || {
        assert_eq!(finding("cert_chain_of_trust"), "passed.");
        finding("cert_trust")
    });
    report.cell(subject, "ALPN", || format!("{}, {}", finding("ALPN_HTTP2"), finding("ALPN")));
    report.cell(subject, "no finding above INFO", || {
        let is_bad = |one: &&Value| !["OK", "INFO"].contains(&one["severity"].as_str().unwrap_or_default());
        let is_ours = |one: &&Value| !NOT_OURS.contains(&one["id"].as_str().unwrap_or_default());
        let bad: Vec<&Value> = findings.iter().filter(is_bad).filter(is_ours).collect();
        assert!(bad.is_empty(), "{bad:?}");
        let vulnerable = findings.iter().filter(|one| one["finding"].to_string().contains("not vulnerable")).count();
        format!("{} findings, {vulnerable} times not vulnerable", findings.len())
    });
}

fn read(file: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(file).unwrap_or_default()).unwrap_or_default()
}

fn run_sslyze(report: &mut Report, subject: &Subject, gateway: &TestGateway) {
    const SCANS: &[&str] = &[
        "certinfo",
        "sslv2",
        "sslv3",
        "tlsv1",
        "tlsv1_1",
        "tlsv1_2",
        "tlsv1_3",
        "compression",
        "reneg",
        "heartbleed",
        "openssl_ccs",
        "fallback",
        "robot",
        "early_data",
        "elliptic_curves",
        "resum",
    ];
    let file = gateway.path().join("sslyze.json");
    let mut command = python();
    command.args(["-m", "sslyze", "--sni", "orders.test"]).args(SCANS.iter().map(|scan| format!("--{scan}")));
    command.arg("--certinfo_ca_file").arg(gateway.path().join("ca.pem")).arg("--json_out").arg(&file);
    command.arg(gateway.data().to_string());
    let results = report.prepare(subject, "scans", || {
        let ended = Process::run("sslyze", &mut command, Duration::from_secs(120));
        let scan = read(&file)["server_scan_results"][0].take();
        assert_eq!(scan["scan_status"], "COMPLETED", "{}", ended.stdout);
        scan["scan_result"].clone()
    });
    let Some(results) = results else { return };
    let of = |scan: &str| {
        assert_eq!(results[scan]["status"], "COMPLETED", "{scan}");
        results[scan]["result"].clone()
    };
    report.cell(subject, "TLS 1.2 and 1.3 only", || {
        for (scan, is_wanted) in [("ssl_2_0", false), ("ssl_3_0", false), ("tls_1_0", false), ("tls_1_1", false)]
            .into_iter()
            .chain([("tls_1_2", true), ("tls_1_3", true)])
        {
            assert_eq!(of(&format!("{scan}_cipher_suites"))["is_tls_version_supported"], is_wanted, "{scan}");
        }
        String::new()
    });
    report.cell(subject, "forward secrecy only", || {
        let suites = of("tls_1_2_cipher_suites");
        let names: Vec<&str> = suites["accepted_cipher_suites"].as_array().unwrap().iter().map(name).collect();
        let is_strong =
            |name: &&str| name.starts_with("TLS_ECDHE_") && (name.contains("_GCM_") || name.contains("POLY1305"));
        assert!(!names.is_empty() && names.iter().all(is_strong), "{names:?}");
        format!("{} suites of TLS 1.2", names.len())
    });
    report.cell(subject, "certificate", || {
        let deployments = of("certificate_info")["certificate_deployments"].clone();
        let paths = deployments[0]["path_validation_results"].as_array().unwrap().clone();
        // The other stores do not know the test's own authority.
        assert!(paths.iter().any(|path| path["was_validation_successful"] == true), "{paths:?}");
        assert_eq!(deployments[0]["received_chain_has_valid_order"], true);
        String::new()
    });
    report.cell(subject, "no finding", || {
        assert_eq!(of("tls_compression")["supports_compression"], false);
        assert_eq!(of("tls_1_3_early_data")["supports_early_data"], false);
        assert_eq!(of("openssl_ccs_injection")["is_vulnerable_to_ccs_injection"], false);
        assert_eq!(of("heartbleed")["is_vulnerable_to_heartbleed"], false);
        assert_eq!(of("robot")["robot_result"], "NOT_VULNERABLE_RSA_NOT_SUPPORTED");
        let renegotiation = of("session_renegotiation");
        assert_eq!(renegotiation["is_vulnerable_to_client_renegotiation_dos"], false);
        assert_eq!(renegotiation["client_renegotiations_success_count"], 0);
        "no compression, early data, renegotiation, CCS, Heartbleed, ROBOT".to_owned()
    });
}

fn name(suite: &Value) -> &str {
    suite["cipher_suite"]["name"].as_str().unwrap_or_default()
}
