//! Why a call has no answer: each message says what to do.

use std::time::Duration;

use super::tls::TlsFault;
use crate::api::ProblemView;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error("no gateway answers at {endpoint} ({source}): is `leastgate serve` running? --admin-url says where it is")]
    Connect {
        /// Where it was looked for.
        endpoint: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The socket is there, and this user may not use it.
    #[error(
        "{endpoint} may only be used by root and the gateway's own user: run the command as one of them (sudo -u), or use \
             http:// with a credential"
    )]
    NotPermitted {
        /// The socket.
        endpoint: String,
    },
    /// TLS did not come about.
    #[error("{endpoint} {fault}")]
    Tls {
        /// Who was asked.
        endpoint: String,
        /// What is wrong.
        fault: TlsFault,
    },
    /// What answers does not speak HTTP in the clear.
    #[error("{endpoint} does not speak plain HTTP: if this is an admin listener with TLS, say https://")]
    NotHttp {
        /// Who was asked.
        endpoint: String,
    },
    /// The answer did not come in time.
    #[error("{endpoint} did not answer within {waited:?}{}", if *.is_change { ": the change may still be made; look before you repeat it" } else { "" })]
    Timeout {
        /// Who was asked.
        endpoint: String,
        /// How long.
        waited: Duration,
        /// Whether the call changes anything.
        is_change: bool,
    },
    /// What came is not an answer of the admin API.
    #[error("the answer can't be read ({detail}): is this the admin listener of a gateway of the same version?")]
    Protocol {
        /// What is wrong with it.
        detail: String,
    },
    /// A gateway answered, and not its admin API.
    #[error(
        "{endpoint} is not an admin API: a gateway's data listener answered; `listeners.admin` in its file says where it is"
    )]
    DataListener {
        /// Who was asked.
        endpoint: String,
    },
    /// The credential is missing, not valid, or may not do this: 401 or 403.
    #[error("{}", told(.0))]
    Unauthorized(ProblemView),
    /// Any other refusal.
    #[error("{}", told(.0))]
    Refused(ProblemView),
    /// Not a name and not an accessor.
    #[error("this is neither a name (a-z, 0-9 and -) nor an accessor (10 of 0-9, A-Z and a-z)")]
    InvalidId,
    /// No thread or descriptor was to be had.
    #[error("the call can't be made: {0}")]
    Runtime(#[source] std::io::Error),
}

fn told(problem: &ProblemView) -> String {
    problem.hint.as_ref().map_or_else(|| problem.detail.clone(), |hint| format!("{}; {hint}", problem.detail))
}

impl ClientError {
    /// Whether it is about who calls: exit code 4.
    #[must_use]
    pub fn is_authentication(&self) -> bool {
        match self {
            Self::Unauthorized(_) | Self::NotPermitted { .. } => true,
            Self::Tls { fault, .. } => fault.is_authentication(),
            _ => false,
        }
    }

    /// The refusal's document, where there is one.
    #[must_use]
    pub fn problem(&self) -> Option<&ProblemView> {
        match self {
            Self::Unauthorized(problem) | Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }
}
