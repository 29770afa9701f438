//! The phases of a connection, under a clock that is moved.

use super::*;

#[tokio::test]
async fn a_worn_out_connection_says_so() {
    let limits = PhaseLimits {
        first_byte: Duration::from_secs(5),
        head: Duration::from_secs(10),
        idle: Duration::from_secs(60),
        http2_idle: Duration::from_secs(120),
    };
    let state = ConnectionState::new(limits, SocketWatch::default(), None);
    state.exchange_begins();
    assert!(!state.is_worn_out(2, Duration::from_secs(60)));
    state.exchange_begins();
    assert!(state.is_worn_out(2, Duration::from_secs(60)));
    assert!(state.is_worn_out(9, Duration::ZERO));
    state.drain();
    assert!(state.is_worn_out(9, Duration::from_secs(60)));
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_idle_when_its_last_stream_ends_and_not_before() {
    let state = ConnectionState::new(
        PhaseLimits {
            first_byte: Duration::from_secs(5),
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            http2_idle: Duration::from_secs(120),
        },
        SocketWatch::default(),
        None,
    );
    state.bytes_arrived();
    state.speaks_http2();
    assert_eq!(state.phase(), Phase::Idle);
    state.exchange_begins();
    state.exchange_begins();
    state.exchange_ends();
    state.bytes_arrived();
    assert_eq!(state.phase(), Phase::Exchange);
    state.exchange_ends();
    assert_eq!(state.phase(), Phase::Idle);
    assert!(state.says_goodbye(), "once");
    assert!(!state.says_goodbye());
    assert!(!state.overstays());
    tokio::time::advance(GOODBYE + Duration::from_millis(1)).await;
    assert!(state.overstays());
    state.exchange_begins();
    state.exchange_begins();
    assert!(!state.overstays(), "the word may be on its way behind what the other takes");
    tokio::time::advance(GOODBYE_BEHIND_OTHERS).await;
    assert!(state.overstays());
}

/// Else an HTTP/2 connection would pay for one refused upload at its end, however much later.
#[tokio::test(start_paused = true)]
async fn who_was_still_sending_a_while_ago_is_not_sending_any_more() {
    const LASTS: Duration = Duration::from_secs(5);
    let limits = PhaseLimits { first_byte: LASTS, head: LASTS, idle: LASTS, http2_idle: LASTS };
    let state = ConnectionState::new(limits, SocketWatch::default(), None);
    state.speaks_http2();
    assert!(!state.is_client_sending(LASTS));
    state.client_is_sending();
    tokio::time::advance(LASTS).await;
    assert!(state.is_client_sending(LASTS));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!state.is_client_sending(LASTS));
}
