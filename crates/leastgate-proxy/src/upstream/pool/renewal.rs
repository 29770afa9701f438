//! What becomes of connections when the files change that they began with: an authority that is gone must not go on
//! vouching for who is connected already, nor a certificate that was withdrawn speak for the gateway.
//!
//! - No request goes over a connection that began under others than those in force: the idle ones are closed before the
//!   next request and within seconds without one, one that is lent is closed when its request is done, and one that is
//!   being opened serves the request it is opened for.
//! - A request that is under way stays. Its upstream was trusted when it was sent, and to cut it would leave its sender
//!   not knowing whether it was done; one with WebSocket or gRPC streams ends with them, as after a change of address.
//! - It keeps its place among `max_connections` until then. Where streams last for hours and a worker's share is one, every
//!   request of that worker is refused for as long: the share must be two at least.
//! - That holds for any change. Whether it took something away can't be told from a changed file, and a handshake for each
//!   connection is a small price a few times a month. Files that hold the same as before are no change, however often they
//!   are read (`upstream/tls.rs`).

use std::rc::Rc;

use super::Pool;

impl Pool {
    /// Leaves every endpoint as it is to those who use it, for a new one in its place. How the old one did is forgotten:
    /// the change may be what mends it.
    pub(super) fn renew(&self) {
        let Some(offer) = &self.settings.connector.tls else { return };
        let mut known = self.known.borrow_mut();
        if known.as_ref().is_some_and(|known| offer.is_still(known)) {
            return;
        }
        // Before the endpoints: what is put in force meanwhile is looked at the next time.
        *known = Some(offer.known());
        for endpoint in self.endpoints.borrow_mut().iter_mut() {
            let renewed = self.settings.endpoint(Rc::clone(&endpoint.target), endpoint.address);
            endpoint.retire();
            endpoint.health.untold();
            *endpoint = renewed;
        }
        self.places.call_all();
    }
}
