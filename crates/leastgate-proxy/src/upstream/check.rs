//! The gateway's own question to an endpoint, whether it is well: one fixed path, over a connection of its own. Nothing of
//! a client's request is in it, and nothing of the answer goes further than its status.

use std::time::Duration;

use http::Uri;
use tokio::time::timeout;

use super::connect::Connection;
use super::http2::Stream;
use super::target::Target;
use crate::body::OutboundBody;
use crate::headers;

/// Longest wait for the answer.
const DEADLINE: Duration = Duration::from_secs(2);

/// What endpoints are asked, and how often.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) path: Uri,
    pub(super) interval: Duration,
}

impl Check {
    /// Whether the answer comes in time, and is a 2xx that a request's answer could be framed like.
    pub(super) async fn is_passed(&self, connection: Connection, target: &Target) -> bool {
        let mut request = headers::own_request(&self.path, target.authority.as_ref(), OutboundBody::empty());
        let answer = async {
            match connection {
                Connection::Exclusive(mut connection) => connection.sender.send_request(request).await,
                Connection::Shared(connection) => {
                    headers::to_http2(&mut request, target.is_https);
                    Stream::new(&connection).sender.send_request(request).await
                }
            }
        };
        let Ok(Ok(response)) = timeout(DEADLINE, answer).await else { return false };
        // One that frames this answer so that no other of it would be passed on is not well.
        response.status().is_success() && headers::check_framing(response.status(), response.headers()).is_ok()
    }
}
