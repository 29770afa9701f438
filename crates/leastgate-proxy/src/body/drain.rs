//! What to do with the body of a refused request (P19).

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use http_body::Body;

/// A body up to this size is read and thrown away, if it is already here.
const DRAIN_BYTES: u64 = 64 * 1024;

/// How often in a row the connection may come up with nothing before the rest counts as not here.
const PATIENCE: u8 = 2;

/// Reads what has already arrived of a refused body. `true`: nothing of it is left, and the connection may be used on.
/// It waits for no byte: the connection's task is asked again at once, and reads what the socket holds.
pub(crate) async fn drain_buffered<B: Body<Data = Bytes> + Unpin>(mut body: B) -> bool {
    if body.size_hint().lower() > DRAIN_BYTES {
        return false;
    }
    let mut left = DRAIN_BYTES;
    let mut patience = PATIENCE;
    poll_fn(|cx| {
        loop {
            if body.is_end_stream() {
                return Poll::Ready(true);
            }
            match Pin::new(&mut body).poll_frame(cx) {
                Poll::Ready(None) => return Poll::Ready(true),
                Poll::Ready(Some(Err(_))) => return Poll::Ready(false),
                Poll::Ready(Some(Ok(frame))) => {
                    let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                    let Some(rest) = left.checked_sub(bytes) else { return Poll::Ready(false) };
                    left = rest;
                    patience = PATIENCE;
                }
                Poll::Pending if patience == 0 => return Poll::Ready(false),
                Poll::Pending => {
                    patience -= 1;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt, stream};
    use http_body::Frame;
    use http_body_util::{Empty, Full, StreamBody};

    use super::*;

    #[tokio::test]
    async fn small_and_here_is_drained_the_rest_is_not() {
        assert!(drain_buffered(Empty::new()).await);
        assert!(drain_buffered(Full::new(Bytes::from(vec![0; 64 * 1024]))).await);
        assert!(!drain_buffered(Full::new(Bytes::from(vec![0; 64 * 1024 + 1]))).await);
        let chunk = || Ok::<_, Infallible>(Frame::data(Bytes::from(vec![0; 40_000])));
        assert!(!drain_buffered(StreamBody::new(stream::iter([chunk(), chunk()]))).await);
        let never_ends = stream::iter([chunk()]).chain(stream::pending());
        assert!(!drain_buffered(StreamBody::new(Box::pin(never_ends))).await);
    }
}
