//! §5, §7: roles and grants, credentials, shadow, and which step names the reason.

use super::{WS, check, leak};

const ROLES: &str = "
api a
scope one
 allow GET /one
scope two
 allow GET /two
scope three
 allow GET /three
 deny GET /one
role base scopes=one
role mid inherits=base scopes=two environments=prod
role top inherits=mid
role away inherits=base scopes=two environments=staging
role under inherits=away
role deny scopes=three
token base roles=base
token top roles=top
token away roles=away
token under roles=under
token denied roles=base,deny
token mixed roles=away,base
token gone roles=nothing scopes=nothing,one
token past scopes=one@-1,two@+1
token edge scopes=one@+0";

#[test]
fn section_5_roles_and_grants() {
    check(
        ROLES,
        &[
            ("a role confers its scopes", "GET /one | as base", "scope_granted"),
            ("and what it inherits", "GET /one | as top", "scope_granted"),
            ("in the environments of every role on the way", "GET /two | as top", "scope_granted"),
            ("and in no other", "GET /two | as away", "insufficient_scope two"),
            ("nor what it inherits from a role that holds in all", "GET /one | as away", "insufficient_scope one"),
            ("nor through a role that holds in all", "GET /one | as under", "insufficient_scope one"),
            ("another way to it suffices", "GET /one | as mixed", "scope_granted"),
            ("a deny of an effective scope denies", "GET /one | as denied", "explicit_deny three/deny/GET /one"),
            ("a name the policy lacks grants nothing", "GET /one | as gone", "scope_granted"),
            ("really nothing", "GET /two | as gone", "insufficient_scope two"),
            ("a grant that has ended", "GET /one | as past", "insufficient_scope one"),
            ("one that has not", "GET /two | as past", "scope_granted"),
            ("ended to the second", "GET /one | as edge", "insufficient_scope one"),
            ("a scope that would deny would not have allowed", "GET /one | as edge", "insufficient_scope one"),
        ],
    );
    check(
        &ROLES.replacen('\n', "\ngateway environment=staging\n", 1),
        &[
            ("there the other ones hold", "GET /two | as away", "scope_granted"),
            ("through inheritance", "GET /two | as under", "scope_granted"),
            ("and these do not", "GET /two | as top", "insufficient_scope two"),
            ("nor what is below them", "GET /one | as top", "insufficient_scope one"),
        ],
    );
}

const TOKENS: &str = "
api a hosts=a.test
 public GET /public
scope s
 allow GET /x
boundary
 forbid * /never
 forbid * /public when header x-block=*
token t scopes=s
token revoked scopes=s state=revoked expires=-1
token disabled scopes=s state=disabled source_ip=10.0.0.0/8
token expired scopes=s expires=+0
token living scopes=s expires=+1
token rotating scopes=s state=rotating expires=+1
token ended scopes=s state=rotating expires=-5
token early scopes=s not_before=+1
token begun scopes=s not_before=+0
token bound scopes=s source_ip=10.0.0.0/8,2001:db8::/32
token everything scopes=s source_ip=10.0.0.0/8 not_before=+1 expires=-1";

#[test]
fn section_5_and_7_credentials() {
    check(
        TOKENS,
        &[
            ("no credential", "GET /x", "credential_missing"),
            ("another scheme", "GET /x | authorization: Basic dTpw", "credential_missing"),
            ("the scheme in any case", "GET /x | authorization: bEARER $t", "scope_granted"),
            ("a scheme and nothing else", "GET /x | authorization: Bearer", "credential_malformed"),
            ("not a token", "GET /x | authorization: Bearer abc", "credential_malformed"),
            ("a wrong checksum", "GET /x | authorization: Bearer $t0", "credential_malformed"),
            ("a token and more", "GET /x | authorization: Bearer $t $t", "credential_malformed"),
            ("an admin credential is no token", "GET /x | authorization: Bearer $admin", "token_unknown"),
            ("unknown", "GET /x | as nobody", "token_unknown"),
            ("of another environment", "GET /x | as stranger", "environment_mismatch"),
            ("revoked, though expired", "GET /x | as revoked", "token_revoked"),
            ("disabled, from wherever", "GET /x | as disabled", "token_disabled"),
            ("expired to the second", "GET /x | as expired", "token_expired"),
            ("not yet", "GET /x | as living", "scope_granted"),
            ("rotating is as good as active", "GET /x | as rotating", "scope_granted"),
            ("until its grace ends", "GET /x | as ended", "token_grace_ended"),
            ("not yet valid", "GET /x | as early", "token_not_yet_valid"),
            ("valid to the second", "GET /x | as begun", "scope_granted"),
            ("from where it may", "GET /x | as bound | from 10.1.1.1", "scope_granted"),
            ("from elsewhere", "GET /x | as bound", "source_not_allowed"),
            ("a restriction that is unknown fails", "GET /x | as bound | from 192.0.2.1", "source_not_allowed"),
            ("restrictions before any rule", "GET /nowhere | as early", "token_not_yet_valid"),
            ("before boundaries", "GET /never | as expired", "token_expired"),
            ("the source first", "GET /x | as everything", "source_not_allowed"),
            ("then the beginning", "GET /x | as everything | from 10.1.1.1", "token_not_yet_valid"),
            ("a public rule needs no credential", "GET /public", "public_rule"),
            ("nor is one verified", "GET /public | as nobody", "public_rule"),
            ("whatever it is", "GET /public | authorization: Bearer x", "public_rule"),
            ("boundaries bind public requests too", "GET /public | x-block: 1", "boundary_deny"),
            ("a boundary does not need a token to exist, but the request does", "GET /never", "credential_missing"),
        ],
    );
}

#[test]
fn section_7_a_misplaced_credential() {
    check(
        TOKENS,
        &[
            ("in the query", "GET /x?access_token=$t", "credential_misplaced"),
            ("though there is one in its place", "GET /x?a=b&t=$t | as t", "credential_misplaced"),
            ("escaped", "GET /x?t=%6Cgt%5Fprod_0000000000_x", "credential_missing"),
            ("in a cookie", "GET /x | as t | cookie: a=b; s=$t", "credential_misplaced"),
            ("in another header", "GET /x | as t | x-api-key: $t", "credential_misplaced"),
            ("in Proxy-Authorization", "GET /x | as t | proxy-authorization: Bearer $t", "credential_misplaced"),
            ("two", "GET /x | as t | as t", "credential_misplaced"),
            ("under another scheme", "GET /x | authorization: Basic $t", "credential_misplaced"),
            ("a list", "GET /x | authorization: Bearer $t, Bearer $t", "credential_misplaced"),
            ("two, of whichever scheme", "GET /x | as t | authorization: Basic dTpw", "credential_misplaced"),
            ("in the path", "GET /$t/x | as t", "credential_misplaced"),
            ("known or not", "GET /x?t=$nobody | as t", "credential_misplaced"),
            ("of any environment", "GET /x?t=$stranger | as t", "credential_misplaced"),
            ("without a valid checksum it is just text", "GET /x?t=lgt_prod_0000000000_x | as t", "scope_granted"),
            ("on public paths too", "GET /public?t=$t", "credential_misplaced"),
            ("after the api", "GET /x?t=$t | host: b.test", "host_unknown"),
            ("after the path", "GET /x//y?t=$t", "path_ambiguous"),
        ],
    );
    let other = TOKENS.replacen('\n', "\ngateway credential=x-api-key\n", 1);
    check(
        &other,
        &[
            ("another header carries it", "GET /x | x-api-key: $t", "scope_granted"),
            ("Authorization passes untouched", "GET /x | x-api-key: $t | authorization: Basic dTpw", "scope_granted"),
            ("a token there is misplaced", "GET /x | x-api-key: $t | as t", "credential_misplaced"),
            ("and is not the credential", "GET /x | authorization: Basic dTpw", "credential_missing"),
            ("two", "GET /x | x-api-key: $t | x-api-key: $t", "credential_misplaced"),
        ],
    );
}

const SHADOW: &str = "
api a hosts=a.test shadow=+86400
 public GET /public
api b hosts=b.test shadow=+0
scope s
 allow GET /x
 allow GET /c when header x-t=one
 allow GET /d
 deny GET /d
scope o
 allow GET /o
scope b api=b
 allow GET /x
boundary
 forbid * /never
token t scopes=s
token revoked scopes=s state=revoked
token late scopes=s expires=-1";

#[test]
fn section_5_shadow() {
    let ws = leak(&format!("GET /nowhere | as t | {WS}"));
    check(
        SHADOW,
        &[
            ("what is granted is granted", "GET /x | as t", "scope_granted"),
            ("insufficient_scope is advice", "GET /o | as t", "shadowed insufficient_scope"),
            ("no_matching_scope is advice", "GET /nowhere | as t", "shadowed no_matching_scope"),
            ("condition_failed is advice", "GET /c | as t", "shadowed condition_failed"),
            ("a scope's explicit_deny is advice", "GET /d | as t", "shadowed explicit_deny"),
            ("a whole handshake is tunnelled", ws, "shadowed no_matching_scope"),
            ("half a one is malformed", "GET /x | as t | upgrade: websocket", "request_malformed"),
            ("boundaries bind", "GET /never | as t", "boundary_deny"),
            ("the path binds", "GET /x//y | as t", "path_ambiguous"),
            ("the credential binds", "GET /x", "credential_missing"),
            ("revocation binds", "GET /x | as revoked", "token_revoked"),
            ("expiry binds", "GET /x | as late", "token_expired"),
            ("the environment binds", "GET /x | as stranger", "environment_mismatch"),
            ("after its date the api enforces", "GET /nowhere | as t | host: b.test", "no_matching_scope"),
            ("to the second", "GET /x | as t | host: b.test", "insufficient_scope b"),
        ],
    );
}

#[test]
fn section_5_the_first_failing_step_names_the_reason() {
    let policy = "
api a hosts=a.test cors=*
 public OPTIONS /public
scope s
 allow GET /x when header x-t=one
 allow GET /denied
 deny GET /denied
 deny GET /never
scope o
 allow GET /x
boundary
 forbid * /never
token t scopes=s
token expired scopes=s expires=-1 source_ip=10.0.0.0/8";
    check(
        policy,
        &[
            ("request before path", "GET /x//y?t=$t | no host", "request_malformed"),
            ("path before api", "GET /x//y?t=$t | host: b.test", "path_ambiguous"),
            ("api before the misplaced credential", "OPTIONS /public?t=$t | host: b.test", "host_unknown"),
            (
                "misplaced before preflight",
                "OPTIONS /public?t=$t | origin: x | access-control-request-method: GET",
                "credential_misplaced",
            ),
            (
                "preflight before public",
                "OPTIONS /public | origin: x | access-control-request-method: GET",
                "preflight",
            ),
            ("public before the credential", "OPTIONS /public | as nobody", "public_rule"),
            ("credential before restrictions", "GET /never | as nobody", "token_unknown"),
            ("restrictions before boundaries", "GET /never | as expired", "source_not_allowed"),
            ("boundary before explicit deny", "GET /never | as t", "boundary_deny"),
            ("explicit deny before everything that allows", "GET /denied | as t", "explicit_deny"),
            ("condition before insufficient scope", "GET /x | as t", "condition_failed"),
        ],
    );
}
