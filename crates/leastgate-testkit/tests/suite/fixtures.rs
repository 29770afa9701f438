//! The gateway most suites start: the orders policy in front of a recorder.

use std::collections::BTreeMap;

use leastgate_testkit::gateway::{Setup, TestGateway};
use leastgate_testkit::policies::{ORDERS, orders_tokens};
use leastgate_testkit::recorder::RecorderUpstream;
use leastgate_testkit::token::Token;

pub(crate) struct Orders {
    pub(crate) gateway: TestGateway,
    pub(crate) upstream: RecorderUpstream,
    tokens: BTreeMap<&'static str, Token>,
}

impl Orders {
    pub(crate) fn start() -> Self {
        Self::start_with(|setup| setup)
    }

    /// The same with a changed set-up.
    pub(crate) fn start_with(change: impl FnOnce(Setup) -> Setup) -> Self {
        Self::start_by(|setup| change(setup).start())
    }

    /// The same started in another way.
    pub(crate) fn start_by(start: impl FnOnce(Setup) -> TestGateway) -> Self {
        let upstream = RecorderUpstream::start();
        let tokens = orders_tokens();
        let setup = setup(&tokens).upstream("orders", &upstream.url());
        Self { gateway: start(setup), upstream, tokens }
    }

    pub(crate) fn token(&self, placeholder: &str) -> &Token {
        &self.tokens[placeholder]
    }

    pub(crate) fn tokens(&self) -> BTreeMap<&str, &Token> {
        self.tokens.iter().map(|(name, token)| (*name, token)).collect()
    }

    pub(crate) fn reader(&self) -> &Token {
        self.token("READER")
    }
}

/// The gateway with another policy, for the same tokens.
pub(crate) fn with_policy(policy: &str) -> Orders {
    with_policy_and(policy, |setup| setup)
}

/// The same with a changed set-up.
pub(crate) fn with_policy_and(policy: &str, change: impl FnOnce(Setup) -> Setup) -> Orders {
    let upstream = RecorderUpstream::start();
    let tokens = orders_tokens();
    let setup = Setup::new(policy).tokens(tokens.values()).upstream("orders", &upstream.url());
    let gateway = change(setup).start();
    Orders { gateway, upstream, tokens }
}

/// The orders policy with its tokens, without an upstream.
pub(crate) fn setup(tokens: &BTreeMap<&'static str, Token>) -> Setup {
    Setup::new(ORDERS).tokens(tokens.values())
}

/// A request with a body of known length.
pub(crate) fn with_body(method: &str, path: &str, token: &Token, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "{method} {path} HTTP/1.1\r\nHost: orders.test\r\n{}\r\nContent-Length: {}\r\n\r\n",
        token.header(),
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
