//! A small blocking client of the admin API, for the commands: over the unix socket of a local gateway, or over TCP
//! with a credential, with TLS or without.
//!
//! Each call makes a connection and a runtime of its own and throws both away: a command makes one call or two.

mod endpoint;
mod error;
mod exchange;
mod target;
mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use zeroize::Zeroizing;

pub use self::endpoint::{Endpoint, InvalidEndpoint};
pub use self::error::ClientError;
use self::exchange::{Ask, exchange, refused};
pub use self::target::{ListEvents, ListTokens};
use self::target::{query, segment};
pub use self::tls::TlsFault;
use crate::api::{
    AdminList, AdminRevoked, CheckRequest, CheckResult, CreateAdmin, CreateChild, CreateToken, CreateTokens, EventList,
    ExportedTokens, FindingList, GrantScope, ImportTokens, ImportedTokens, IssuedAdminView, IssuedTokenView,
    IssuedTokens, PatchToken, PolicyView, ReasonRequest, RestrictToken, RevokeTokens, RevokedTokens, RotateToken,
    RotatedToken, RotationView, StatusView, TokenChanged, TokenEdited, TokenList, TokenUsage, TokenView,
};

/// A client of one gateway.
#[derive(Clone)]
pub struct Client {
    endpoint: Endpoint,
    tls: Option<Arc<ClientConfig>>,
    credential: Option<Zeroizing<String>>,
    timeout: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.endpoint)
            .field("has_credential", &self.credential.is_some())
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// The one call with a body that changes nothing.
const CHECK: &str = "/v1/check";

/// The answer of every call.
pub type Answered<T> = Result<T, ClientError>;

impl Client {
    /// A client without a credential, as the unix socket needs none. `timeout` is for a whole call.
    #[must_use]
    pub fn new(endpoint: Endpoint, timeout: Duration) -> Self {
        Self { endpoint, tls: None, credential: None, timeout }
    }

    /// Judges an endpoint with TLS by these authorities, and shows it this certificate; there is no call to one without.
    #[must_use]
    pub fn with_tls(self, tls: Arc<ClientConfig>) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Sends this credential along; surrounding blanks, such as a file's last line break, are not part of it.
    #[must_use]
    pub fn with_credential(mut self, credential: &str) -> Self {
        self.credential = Some(Zeroizing::new(credential.trim().to_owned()));
        self
    }

    /// The same client, with so long for a whole call.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// How long a whole call may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Where it goes.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// One page of tokens.
    ///
    /// # Errors
    /// As every call: no connection, a refusal, an answer that can't be read.
    pub fn tokens(&self, list: &ListTokens) -> Answered<TokenList> {
        self.get(&list.target())
    }

    /// One token.
    ///
    /// # Errors
    /// As every call.
    pub fn token(&self, token: &str) -> Answered<TokenView> {
        self.get(&format!("/v1/tokens/{}", segment(token)?))
    }

    /// Makes a token.
    ///
    /// # Errors
    /// As every call.
    pub fn create_token(&self, token: &CreateToken) -> Answered<IssuedTokenView> {
        self.post("/v1/tokens", token)
    }

    /// Makes many tokens alike.
    ///
    /// # Errors
    /// As every call.
    pub fn create_tokens(&self, tokens: &CreateTokens) -> Answered<IssuedTokens> {
        self.post("/v1/tokens/bulk", tokens)
    }

    /// One page of tokens to be handed to another gateway.
    ///
    /// # Errors
    /// As every call.
    pub fn export_tokens(&self, cursor: &Option<String>) -> Answered<ExportedTokens> {
        self.get(&query("/v1/exports", &[("cursor", cursor)]))
    }

    /// Takes tokens of another gateway.
    ///
    /// # Errors
    /// As every call.
    pub fn import_tokens(&self, tokens: &ImportTokens) -> Answered<ImportedTokens> {
        self.post("/v1/tokens/import", tokens)
    }

    /// Revokes all tokens that fit a filter, or says which it would be.
    ///
    /// # Errors
    /// As every call.
    pub fn revoke_tokens(&self, filter: &RevokeTokens) -> Answered<RevokedTokens> {
        self.post("/v1/revocations", filter)
    }

    /// Has a token succeeded by a new one.
    ///
    /// # Errors
    /// As every call.
    pub fn rotate_token(&self, token: &str, rotation: &RotateToken) -> Answered<RotatedToken> {
        self.post(&format!("/v1/tokens/{}/rotate", segment(token)?), rotation)
    }

    /// How far a rotation is.
    ///
    /// # Errors
    /// As every call.
    pub fn rotation(&self, token: &str) -> Answered<RotationView> {
        self.get(&format!("/v1/tokens/{}/rotation", segment(token)?))
    }

    /// Gives a token a scope for a while.
    ///
    /// # Errors
    /// As every call.
    pub fn grant_scope(&self, token: &str, grant: &GrantScope) -> Answered<TokenEdited> {
        self.post(&format!("/v1/tokens/{}/grants", segment(token)?), grant)
    }

    /// Takes from a token.
    ///
    /// # Errors
    /// As every call.
    pub fn restrict_token(&self, token: &str, restriction: &RestrictToken) -> Answered<TokenEdited> {
        self.post(&format!("/v1/tokens/{}/restrict", segment(token)?), restriction)
    }

    /// Changes a token, if it is as it was seen still. It is named by its accessor: its name may be a successor's by now.
    ///
    /// # Errors
    /// As every call.
    pub fn edit_token(&self, seen: &TokenView, patch: &PatchToken) -> Answered<TokenEdited> {
        let body = to_json(patch)?;
        let condition = format!("\"{}.{}\"", seen.accessor, seen.version.unwrap_or_default());
        self.send(Method::PATCH, &format!("/v1/tokens/{}", segment(&seen.accessor)?), Some(body), Some(condition))
    }

    /// Makes a token that stands in for another one.
    ///
    /// # Errors
    /// As every call.
    pub fn create_child(&self, token: &str, child: &CreateChild) -> Answered<IssuedTokenView> {
        self.post(&format!("/v1/tokens/{}/children", segment(token)?), child)
    }

    /// Prolongs the life of a token that stands in for another one.
    ///
    /// # Errors
    /// As every call.
    pub fn renew_child(&self, token: &str, child: &CreateChild) -> Answered<TokenEdited> {
        self.post(&format!("/v1/tokens/{}/renew", segment(token)?), child)
    }

    /// Revokes a token, for good.
    ///
    /// # Errors
    /// As every call.
    pub fn revoke_token(&self, token: &str, reason: &str) -> Answered<TokenChanged> {
        self.change_token(token, "revoke", reason)
    }

    /// Disables a token until it is enabled again.
    ///
    /// # Errors
    /// As every call.
    pub fn disable_token(&self, token: &str, reason: &str) -> Answered<TokenChanged> {
        self.change_token(token, "disable", reason)
    }

    /// Enables a disabled token.
    ///
    /// # Errors
    /// As every call.
    pub fn enable_token(&self, token: &str, reason: &str) -> Answered<TokenChanged> {
        self.change_token(token, "enable", reason)
    }

    /// What a token was used for.
    ///
    /// # Errors
    /// As every call.
    pub fn usage(&self, token: &str) -> Answered<TokenUsage> {
        self.get(&format!("/v1/tokens/{}/usage", segment(token)?))
    }

    /// Explains one decision.
    ///
    /// # Errors
    /// As every call.
    pub fn check(&self, request: &CheckRequest) -> Answered<CheckResult> {
        self.post(CHECK, request)
    }

    /// One recorded decision: an event of the audit stream.
    ///
    /// # Errors
    /// As every call.
    pub fn decision(&self, id: &str) -> Answered<Value> {
        self.get(&format!("/v1/decisions/{}", segment(id)?))
    }

    /// Recorded events.
    ///
    /// # Errors
    /// As every call.
    pub fn events(&self, list: &ListEvents) -> Answered<EventList> {
        self.get(&list.target())
    }

    /// What somebody should look at, of one type or of all.
    ///
    /// # Errors
    /// As every call.
    pub fn findings(&self, kind: &Option<String>) -> Answered<FindingList> {
        self.get(&query("/v1/findings", &[("type", kind)]))
    }

    /// How the gateway is.
    ///
    /// # Errors
    /// As every call.
    pub fn status(&self) -> Answered<StatusView> {
        self.get("/v1/status")
    }

    /// The policy in force.
    ///
    /// # Errors
    /// As every call.
    pub fn policy(&self) -> Answered<PolicyView> {
        self.get("/v1/policy")
    }

    /// All administrators.
    ///
    /// # Errors
    /// As every call.
    pub fn admins(&self) -> Answered<AdminList> {
        self.get("/v1/admins")
    }

    /// Makes an administrator.
    ///
    /// # Errors
    /// As every call.
    pub fn create_admin(&self, admin: &CreateAdmin) -> Answered<IssuedAdminView> {
        self.post("/v1/admins", admin)
    }

    /// Revokes an administrator, by name or id.
    ///
    /// # Errors
    /// As every call.
    pub fn revoke_admin(&self, admin: &str, reason: &str) -> Answered<AdminRevoked> {
        self.post(&format!("/v1/admins/{}/revoke", segment(admin)?), &ReasonRequest { reason: reason.to_owned() })
    }

    fn change_token(&self, token: &str, change: &str, reason: &str) -> Answered<TokenChanged> {
        self.post(&format!("/v1/tokens/{}/{change}", segment(token)?), &ReasonRequest { reason: reason.to_owned() })
    }

    fn get<T: DeserializeOwned>(&self, target: &str) -> Answered<T> {
        self.call(Method::GET, target, None)
    }

    fn post<T: DeserializeOwned>(&self, target: &str, body: &impl Serialize) -> Answered<T> {
        self.call(Method::POST, target, Some(to_json(body)?))
    }

    fn call<T: DeserializeOwned>(&self, method: Method, target: &str, body: Option<Vec<u8>>) -> Answered<T> {
        self.send(method, target, body, None)
    }

    /// `condition`: the entity tag that a change is for.
    fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Option<Vec<u8>>,
        condition: Option<String>,
    ) -> Answered<T> {
        let ask = Ask {
            method,
            target: target.to_owned(),
            credential: self.credential.as_ref().map(|text| text.as_str()),
            is_change: body.is_some() && target != CHECK,
            condition,
            body,
        };
        let answer = exchange(&self.endpoint, self.tls.as_ref(), &ask, self.timeout)?;
        if !(200..300).contains(&answer.status) {
            return Err(refused(&self.endpoint, &answer));
        }
        serde_json::from_slice(&answer.body).map_err(|error| ClientError::Protocol { detail: error.to_string() })
    }
}

fn to_json(body: &impl Serialize) -> Answered<Vec<u8>> {
    serde_json::to_vec(body).map_err(|error| ClientError::Protocol { detail: error.to_string() })
}

/// Asks the ops listener, for `health`: the status and the text of the answer.
///
/// # Errors
/// No connection, or no answer in time.
pub fn ops(address: SocketAddr, path: &str, timeout: Duration) -> Answered<(u16, String)> {
    let endpoint = Endpoint::Tcp(address.to_string());
    let ask = Ask {
        method: Method::GET,
        target: path.to_owned(),
        credential: None,
        body: None,
        condition: None,
        is_change: false,
    };
    let answer = exchange(&endpoint, None, &ask, timeout)?;
    Ok((answer.status, String::from_utf8_lossy(&answer.body).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_keeps_the_credential() {
        let client =
            Client::new("http://127.0.0.1:1".parse().unwrap(), Duration::from_secs(1)).with_credential("lga_x\n");
        assert!(!format!("{client:?}").contains("lga_x"));
        assert_eq!(client.credential.unwrap().as_str(), "lga_x");
    }
}
