//! What can be wrong with a policy, in words for the one who wrote it.

use crate::answer::OWN_TOKEN_PATH;
use crate::host::HostError;
use crate::issue::IssueRefusal;
use crate::source::NetworkError;
use crate::spec::Origin;
use crate::template::TemplateError;
use crate::token::LimitsError;

/// One error of a policy and where it was written.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{kind}")]
pub struct SpecError {
    /// Where it was written.
    pub origin: Origin,
    /// What is wrong.
    pub kind: SpecErrorKind,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its variant means")]
pub enum SpecErrorKind {
    #[error("`{0}` is not a name: letters, digits and `._:-`, beginning with a letter, at most 63")]
    Name(String),
    #[error("`{0}` is not an environment name: a lower-case letter, then at most 15 lower-case letters and digits")]
    EnvironmentName(String),
    #[error("{kind} `{name}` is defined twice")]
    Duplicate { kind: &'static str, name: String },
    #[error("there is no {kind} `{name}`")]
    Unknown { kind: &'static str, name: String, known: Vec<String> },
    #[error("this gateway's environment `{0}` is not in the policy's `environments`")]
    ForeignEnvironment(String),
    #[error("host `{host}`: {error}")]
    Host { host: String, error: HostError },
    #[error("base `{0}` must be `/` or whole literal segments without a final `/`")]
    Base(String),
    #[error("apis `{0}` and `{1}` overlap: some host and path would belong to both")]
    Overlap(String, String),
    #[error("shadow may end at most 30 days from now")]
    ShadowTooLong,
    #[error("`*` as an origin does not go with credentials")]
    CorsAnyWithCredentials,
    #[error("a rule is `METHOD[,METHOD] TEMPLATE`, such as `GET /v1/orders`")]
    RuleForm,
    #[error("`{0}` is not a method a rule can name")]
    Method(String),
    #[error("{0} stands alone, not in a list of methods")]
    ProtocolInList(&'static str),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error("template `{template}` lies outside its api's base `{base}`")]
    OutsideBase { template: String, base: String },
    #[error("a deny takes no type but `in(…)`: a typed parameter would let other spellings through")]
    TypedDeny,
    #[error("a public rule has only literals and `{{name}}`, no `**`, `*` or types")]
    PublicTemplate,
    #[error("a public rule names its methods")]
    PublicMethod,
    #[error("GET and HEAD of `{OWN_TOKEN_PATH}` are answered by the gateway itself: no rule on them is ever asked")]
    NeverAsked,
    #[error("rule `{0}` is written twice")]
    DuplicateRule(String),
    #[error("`{0}` is not a header name")]
    HeaderName(String),
    #[error("no condition can read `{0}`: the gateway removes or writes it")]
    GatewayHeader(String),
    #[error(
        "`{0}` can't be met: a `*` stands only at the end, and only in header values, which are trimmed visible ASCII"
    )]
    ConditionValue(String),
    #[error("a condition needs at least one value")]
    EmptyCondition,
    #[error("condition `{0}` is written twice")]
    DuplicateCondition(String),
    #[error("`{network}`: {error}")]
    Network { network: String, error: NetworkError },
    #[error("a boundary that names no api or no environment binds nothing")]
    EmptyBoundary,
    #[error("roles inherit in a circle: {0}")]
    Cycle(String),
    #[error("inheritance is deeper than 8 roles")]
    Depth,
    #[error("`{0}` is not an accessor: 10 characters of 0-9, A-Z and a-z")]
    Accessor(String),
    #[error("`{0}` is not a token name: lower-case letters, digits and `-`, at most 63")]
    TokenName(String),
    #[error("a digest is `blake3:` and 64 lower-case hexadecimal digits")]
    Digest,
    #[error("token `{token}`: {error}")]
    Limits { token: String, error: LimitsError },
    #[error("token `{token}`: {refusal}")]
    Issue { token: String, refusal: IssueRefusal },
}

impl SpecErrorKind {
    /// What to do about it, where there is more to say than the message does.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::ForeignEnvironment(name) => {
                Some(format!("add `{name}` to `environments`, or change `environment` in leastgate.yaml"))
            }
            Self::TypedDeny => Some("write `*` instead".into()),
            Self::OutsideBase { base, .. } => {
                Some(format!("templates are whole paths; this api's begin with `{base}`"))
            }
            Self::Overlap(..) => Some("give them different hosts or bases; there is no precedence".into()),
            Self::Template(TemplateError::Form(_)) => Some("a literal star is written `%2A`".into()),
            Self::Method(_) => Some("methods are upper-case; `*` is any".into()),
            Self::NeverAsked => {
                Some("name other methods, or set `listeners.data.well_known` to false in leastgate.yaml".into())
            }
            Self::EmptyBoundary => Some("leave the list out to bind all".into()),
            _ => None,
        }
    }

    /// Names that would have been right, for a "did you mean".
    #[must_use]
    pub fn candidates(&self) -> &[String] {
        match self {
            Self::Unknown { known, .. } => known,
            _ => &[],
        }
    }
}
