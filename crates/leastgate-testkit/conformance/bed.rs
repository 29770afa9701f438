//! The gateway that every cell stands on: its policy, its tokens, its certificates.

use std::collections::BTreeMap;
use std::path::Path;

use leastgate_testkit::authority::{Authority, Signed, params, put};
use leastgate_testkit::clock;
use leastgate_testkit::gateway::Setup;
use leastgate_testkit::policies::{ORDERS, orders_tokens};
use leastgate_testkit::token::Token;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose};

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

/// `ca.pem` of an authority, and of it `cert.pem` with `key.pem` for `orders.test`.
pub(crate) fn certify(folder: &Path) {
    let authority = Authority::new("authority");
    let mut params = params(&["orders.test"], 2040);
    params.distinguished_name.push(DnType::CommonName, "orders.test");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    live_shortly(&mut params);
    let Signed { cert, key } = authority.sign(&params);
    authority.write(folder, "ca.pem");
    put(folder, "cert.pem", &(cert + &authority.pem()));
    put(folder, "key.pem", &key);
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
    certify(setup.path());
    setup.data_tls("cert: cert.pem, key: key.pem")
}
