//! The gateway that every cell stands on: its policy, its tokens, its certificates.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use leastgate_testkit::clock;
use leastgate_testkit::gateway::Setup;
use leastgate_testkit::policies::{ORDERS, orders_tokens};
use leastgate_testkit::token::Token;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// The orders policy, and for the token WIDE a WebSocket and gRPC calls too.
pub(crate) fn policy() -> String {
    let allowed = r#"[ "WS /v1/ws", "GRPC conformance.Echo/{method}" ]"#;
    let scope = format!("  conformance: {{ api: orders, allow: {allowed} }}\nroles:\n");
    let policy = ORDERS.replacen("roles:\n", &scope, 1);
    let wide = policy.replacen("wide: { scopes: [orders:wide] }", "wide: { scopes: [orders:wide, conformance] }", 1);
    assert_ne!(policy, wide, "the role has its scope");
    wide
}

/// The tokens of the orders policy, by their placeholders.
pub(crate) struct Tokens(BTreeMap<&'static str, Token>);

impl Tokens {
    pub(crate) fn new() -> Self {
        Self(orders_tokens())
    }

    pub(crate) fn wide(&self) -> &Token {
        &self.0["WIDE"]
    }

    pub(crate) fn reader(&self) -> &Token {
        &self.0["READER"]
    }

    pub(crate) fn by_placeholder(&self) -> BTreeMap<&str, &Token> {
        self.0.iter().map(|(name, token)| (*name, token)).collect()
    }

    /// A gateway with these tokens, still without an upstream.
    pub(crate) fn setup(&self) -> Setup {
        self.setup_with(&policy())
    }

    /// The same with another policy.
    pub(crate) fn setup_with(&self, policy: &str) -> Setup {
        Setup::new(policy).tokens(self.0.values())
    }
}

/// Signs the certificates of a run.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2040, 1, 1);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// `ca.pem`, and `cert.pem` with `key.pem` for `orders.test`.
    pub(crate) fn write(&self, folder: &Path) {
        let mut params = CertificateParams::new(["orders.test".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "orders.test");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        live_shortly(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        fs::write(folder.join("ca.pem"), self.0.pem()).unwrap();
        fs::write(folder.join("cert.pem"), cert.pem() + &self.0.pem()).unwrap();
        fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    }
}

/// From yesterday for 90 days, which is as long as authorities give today.
fn live_shortly(params: &mut CertificateParams) {
    let day = |days: i64| {
        let date = clock::date(clock::now().strict_add_signed(days * 86_400));
        let number = |at: usize| date.split('-').nth(at).and_then(|part| part.parse::<u16>().ok()).unwrap();
        let short = |at: usize| u8::try_from(number(at)).unwrap();
        rcgen::date_time_ymd(i32::from(number(0)), short(1), short(2))
    };
    (params.not_before, params.not_after) = (day(-1), day(89));
}

/// A gateway whose data listener speaks TLS.
pub(crate) fn over_tls(setup: Setup) -> Setup {
    Authority::new().write(setup.path());
    let loopback = "{ address: \"127.0.0.1:0\" }";
    let data = "{ address: \"127.0.0.1:0\", tls: { cert: cert.pem, key: key.pem } }";
    setup.section("listeners", &format!("\n  data: {data}\n  ops: {loopback}\n  admin: {loopback}"))
}
