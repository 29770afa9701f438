//! The endpoints behind names: waited for once, and followed from then on.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::watch;
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
        let names: Vec<_> = self.named.borrow().iter().map(|(_, answers)| answers.clone()).collect();
        let failure = timeout_at(deadline, first_address(names)).await.map_err(|_| ConnectError::TimedOut)?;
        self.refresh();
        if !self.endpoints.borrow().is_empty() {
            return Ok(());
        }
        Err(failure.map_or(ConnectError::TimedOut, ConnectError::Unresolved))
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
                endpoint.health.untold();
            }
            stays
        });
        for address in addresses {
            if !endpoints.iter().any(|endpoint| is_of_target(endpoint) && endpoint.address.ip() == *address) {
                let address = SocketAddr::new(*address, target.port);
                endpoints.push(self.settings.endpoint(Rc::clone(target), address));
            }
        }
    }
}

/// Waits until one of the names has an address, whichever that is; or why none has, once all are known to have none.
async fn first_address(names: Vec<watch::Receiver<Answer>>) -> Option<Arc<io::Error>> {
    type Asked = Pin<Box<dyn Future<Output = Answer>>>;
    let ask = |answers| -> Asked { Box::pin(first_answer(answers)) };
    let mut asked: Vec<Asked> = names.into_iter().map(ask).collect();
    let mut failure = None;
    poll_fn(|cx| {
        let mut has_address = false;
        asked.retain_mut(|answer| match answer.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(Answer::Failed(error)) => {
                failure = Some(error);
                false
            }
            Poll::Ready(_) => {
                has_address = true;
                false
            }
        });
        if has_address || asked.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    failure
}

async fn first_answer(mut answers: watch::Receiver<Answer>) -> Answer {
    let answer = answers.wait_for(|answer| !matches!(answer, Answer::Unknown)).await;
    answer.map_or(Answer::Unknown, |answer| answer.clone())
}
