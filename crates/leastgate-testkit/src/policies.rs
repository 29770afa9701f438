//! The policies the suites run under, and the tokens that go with them.

use std::collections::BTreeMap;

use crate::token::Token;

/// An orders API as in the scope language's example, on host `orders.test`, with a few more hosts to confuse it with,
/// a scope that allows nearly everything, denies under it, and a boundary.
pub const ORDERS: &str = r#"version: 1
environments: [test, other]
apis:
  orders:
    hosts: [orders.test]
    base: /
    upstream: orders
    disclose: full
    public: [ "GET /healthz", "GET /public/{name}" ]
  catalog: { hosts: [catalog.test], base: /catalog, upstream: orders, disclose: conceal }
  plain: { hosts: [plain.test], base: /catalog, upstream: orders }
  misc: { hosts: ["*.wild.test", "port.test:8443", "[::1]"], base: /, upstream: orders }
scopes:
  orders:read:
    api: orders
    allow:
      - GET /v1/orders
      - GET /v1/orders/{order_id:hex}
      - GET /v1/orders/{order_id:hex}/items/**
      - GET /v1/a.b
    deny:
      - GET /v1/orders/*/payment-details
  orders:write:
    api: orders
    allow: [ "POST /v1/orders", "PATCH /v1/orders/{order_id:hex}" ]
  orders:refund:
    api: orders
    sensitivity: high
    allow:
      - match: POST /v1/orders/{order_id:hex}/refunds
        when:
          header: { x-change-ticket: "INC-*" }
          query: { currency: [ eur, usd ] }
  orders:wide:
    api: orders
    allow: [ "* /**" ]
    deny: [ "* /admin/**", "GET /files/private/**" ]
  orders:admin:
    api: orders
    allow: [ "* /admin/**" ]
  catalog:read: { api: catalog, allow: [ "GET /catalog/items" ] }
  plain:read: { api: plain, allow: [ "GET /catalog/items" ] }
  misc:read: { api: misc, allow: [ "GET /misc/**" ] }
roles:
  reader: { scopes: [orders:read] }
  writer: { inherits: [reader], scopes: [orders:write] }
  wide: { scopes: [orders:wide] }
  refunder: { scopes: [orders:refund] }
  misc: { scopes: [misc:read] }
boundaries:
  - { apis: [orders], deny: [ "* /internal/**", "* /public/sealed" ] }
token_rules: { require_expiry: true, max_ttl: 90d, require_owner: true }
"#;

/// The tokens of [`ORDERS`], by the placeholder they have in `config/attacks.tsv`.
#[must_use]
pub fn orders_tokens() -> BTreeMap<&'static str, Token> {
    BTreeMap::from([
        ("READER", Token::new("reader", &["reader"])),
        ("WRITER", Token::new("writer", &["writer"])),
        ("WIDE", Token::new("wide", &["wide"])),
        ("REFUND", Token::new("refunder", &["refunder"])),
        ("MISC", Token::new("misc", &["misc"])),
        ("NONE", Token::new("nobody", &[])),
        ("EXPIRED", Token::new("expired", &["reader"]).expired()),
        ("REVOKED", Token::new("revoked", &["reader"]).in_state("revoked")),
        ("DISABLED", Token::new("disabled", &["reader"]).in_state("disabled")),
        ("NOTYET", Token::new("not-yet", &["reader"]).not_yet()),
        ("ELSEWHERE", Token::new("elsewhere", &["reader"]).only_from("10.0.0.0/8")),
        ("UNKNOWN", Token::new("unknown", &["reader"]).unlisted()),
        ("FOREIGN", Token::of("other", "foreign", &["reader"]).unlisted()),
        ("ADMIN", Token::admin("administrator")),
    ])
}

/// Lines that `ORDERS` is told apart by in a test of reloads: the same scopes in another order.
#[must_use]
pub fn reordered(policy: &str) -> String {
    let (head, rest) = policy.split_once("scopes:\n").expect("a policy has scopes");
    let (scopes, tail) = rest.split_once("roles:\n").expect("a policy has roles");
    let mut blocks: Vec<String> = Vec::new();
    for line in scopes.split_inclusive('\n') {
        match blocks.last_mut() {
            Some(block) if line.starts_with("   ") => block.push_str(line),
            _ => blocks.push(line.to_owned()),
        }
    }
    blocks.reverse();
    format!("{head}scopes:\n{}roles:\n{tail}", blocks.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reordering_keeps_every_line() {
        let turned = reordered(ORDERS);
        assert_ne!(turned, ORDERS);
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&turned), sorted(ORDERS));
    }
}
