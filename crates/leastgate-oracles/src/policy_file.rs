//! The policy's file: bytes to a policy in force, or to errors with their places.

use leastgate_config::{LoadedPolicy, parse_policy};
use leastgate_policy::{PolicySnapshot, PolicySpec, SpecError};

use crate::fields::with_tokens;
use crate::text_file::{check_errors, in_time};
use crate::world::compile;

const NAME: &str = "policy.yaml";

pub(crate) fn body(bytes: &[u8]) {
    let Ok(text) = String::from_utf8(with_tokens(bytes)) else { return };
    match in_time(|| parse_policy(&[(NAME, &text)])) {
        Err(errors) => check_errors(&errors, NAME, &text),
        Ok(policy) => check(&policy, &text),
    }
}

fn check(policy: &LoadedPolicy, text: &str) {
    let again = parse_policy(&[(NAME, text)]).unwrap();
    assert_eq!(again.spec, policy.spec, "one text, two policies");
    assert_eq!(again.fingerprint(), policy.fingerprint());
    assert_eq!(again.revision, policy.revision);
    let compiled = in_time(|| compile(&policy.spec, &policy.revision));
    assert_eq!(told(&compiled), told(&compile(&policy.spec, &policy.revision)), "one policy, two meanings");
    let reversed = compile(&reversed(&policy.spec), &policy.revision);
    match (compiled, reversed) {
        (Ok(compiled), Ok(reversed)) => {
            assert_eq!(told(&Ok(compiled)), told(&Ok(reversed)), "the order of a policy means something");
        }
        (Err(errors), Err(_)) => {
            assert!(!errors.is_empty(), "refused without an error");
            check_errors(&policy.diagnose(errors), NAME, text);
        }
        (compiled, reversed) => panic!("{:?}, in another order {:?}", told(&compiled), told(&reversed)),
    }
}

/// The same sets in another order.
fn reversed(spec: &PolicySpec) -> PolicySpec {
    let mut spec = spec.clone();
    spec.environments.reverse();
    spec.apis.reverse();
    spec.scopes.reverse();
    spec.roles.reverse();
    spec.boundaries.reverse();
    spec.tokens.reverse();
    for scope in &mut spec.scopes {
        scope.allow.reverse();
        scope.deny.reverse();
    }
    for role in &mut spec.roles {
        role.scopes.reverse();
    }
    spec
}

/// What a policy came to, as far as it can be seen from outside.
fn told(compiled: &Result<PolicySnapshot, Vec<SpecError>>) -> String {
    match compiled {
        Err(errors) => format!("{errors:?}"),
        Ok(snapshot) => {
            let apis: Vec<_> = snapshot.apis().iter().map(|api| (&api.name, &api.upstream, api.disclose)).collect();
            let rules: Vec<_> = snapshot.rules().iter().map(|rule| (&rule.id, &rule.scope, rule.route)).collect();
            let ids: Vec<_> = rules.iter().map(|rule| rule.0).collect();
            assert!(ids.is_sorted_by(|one, next| one < next), "{ids:?}");
            let mut tokens: Vec<_> = snapshot.declared_tokens().iter().map(|token| format!("{token:?}")).collect();
            tokens.sort();
            format!("{apis:?} {rules:?} {:?} {tokens:?}", snapshot.routes())
        }
    }
}
