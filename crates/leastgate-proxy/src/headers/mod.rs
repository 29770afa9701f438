//! Everything in the data plane that names a header: what is refused, what is removed, what is added.
//!
//! The credential's own header is the policy's business until it has been judged; here it is only taken away.

mod request;
mod response;
mod screen;
mod table;

pub(crate) use request::{Framing, Identity, Outgoing, client_request_id, prepare_request};
pub(crate) use response::{BadResponse, check_framing, clean_response, close_after};
pub(crate) use screen::{Screen, expects_continue, screen};
