//! The endpoints behind names: waited for once, and followed from then on.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use tokio::time::{Instant, timeout_at};

use super::super::connect::ConnectError;
use super::super::names::Answer;
use super::super::target::{Endpoint, Target};
use super::Pool;

impl Pool {
    /// Waits for a first answer, where there is only a name.
    pub(super) async fn resolved(&self, deadline: Instant) -> Result<(), ConnectError> {
        self.refresh();
        if !self.endpoints.borrow().is_empty() {
            return Ok(());
        }
        let mut names: Vec<_> = self.named.borrow().iter().map(|(_, answers)| answers.clone()).collect();
        let mut failure = None;
        for answers in &mut names {
            let answered = answers.wait_for(|answer| !matches!(answer, Answer::Unknown));
            let answer = timeout_at(deadline, answered).await.map_err(|_| ConnectError::TimedOut)?;
            match answer.as_deref() {
                Ok(Answer::Failed(error)) => failure = Some(ConnectError::Unresolved(error.clone())),
                _ => break,
            }
        }
        self.refresh();
        if self.endpoints.borrow().is_empty() { Err(failure.unwrap_or(ConnectError::TimedOut)) } else { Ok(()) }
    }

    /// Takes the names' new addresses over.
    pub(super) fn refresh(&self) {
        for (target, answers) in self.named.borrow_mut().iter_mut() {
            if !answers.has_changed().unwrap_or(false) {
                continue;
            }
            if let Answer::Addresses(addresses) = answers.borrow_and_update().clone() {
                self.moved(target, &addresses);
            }
        }
    }

    fn moved(&self, target: &Rc<Target>, addresses: &[IpAddr]) {
        let mut endpoints = self.endpoints.borrow_mut();
        let is_of_target = |endpoint: &Endpoint| Rc::ptr_eq(&endpoint.target, target);
        endpoints.retain(|endpoint| {
            let stays = !is_of_target(endpoint) || addresses.contains(&endpoint.address.ip());
            if !stays {
                endpoint.retire();
            }
            stays
        });
        for address in addresses {
            if !endpoints.iter().any(|endpoint| is_of_target(endpoint) && endpoint.address.ip() == *address) {
                let address = SocketAddr::new(*address, target.port);
                endpoints.push(Rc::new(Endpoint::new(Rc::clone(target), address)));
            }
        }
    }
}
