//! The choice among endpoints, against real sockets.

use std::io;
use std::sync::Arc;

use leastgate_telemetry::{Clock, EjectionCause, SystemClock, Telemetry, TelemetryConfig};
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn target(host: &str, port: u16) -> Target {
    Target { host: host.to_owned(), port, authority: None, is_https: false, server_name: None }
}

fn pool(targets: Vec<Target>, names: &Names, most: usize) -> Rc<Pool> {
    let connector = Connector { timeout: Duration::from_secs(2), tls: None, http2: None };
    let idle_timeout = Duration::from_secs(30);
    let telemetry = telemetry().worker();
    let settings =
        PoolSettings { name: "up".into(), telemetry, idle_timeout, max_connections: most, connector, check: None };
    Pool::new(settings, targets, names)
}

fn telemetry() -> Telemetry {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    Telemetry::start(TelemetryConfig::default(), clock).unwrap()
}

pub(in crate::upstream) fn pool_of(addresses: &[SocketAddr], most: usize) -> Rc<Pool> {
    let targets = addresses.iter().map(|address| target(&address.ip().to_string(), address.port())).collect();
    pool(targets, &Names::new(std::iter::empty()), most)
}

/// Connections to it are made by the system alone.
async fn listening() -> (TcpListener, SocketAddr) {
    listening_at("127.0.0.1:0").await
}

async fn listening_at(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn address(lease: &Lease) -> SocketAddr {
    lease.endpoint().address
}

async fn run(test: impl Future<Output = ()>) {
    timeout(PATIENCE, LocalSet::new().run_until(test)).await.expect("no wait without an end");
}

#[tokio::test]
async fn a_request_goes_where_the_fewest_are() {
    run(async {
        let ((_a, first), (_b, second), (_c, third)) = (listening().await, listening().await, listening().await);
        let pool = pool_of(&[first, second, third], 10);
        let mut leases = Vec::new();
        for _ in 0..9 {
            leases.push(pool.lend().await.unwrap());
        }
        let count = |leases: &[Lease], wanted| leases.iter().filter(|lease| address(lease) == wanted).count();
        assert_eq!([first, second, third].map(|wanted| count(&leases, wanted)), [3, 3, 3]);
        let gone = leases.iter().position(|lease| address(lease) == second).unwrap();
        drop(leases.remove(gone));
        assert_eq!(address(&pool.lend().await.unwrap()), second);
    })
    .await;
}

#[tokio::test]
async fn an_idle_connection_makes_room_for_one_elsewhere() {
    run(async {
        let ((first, one), (second, other)) = (listening().await, listening().await);
        let pool = pool_of(&[one, other], 2);
        let both = [pool.lend().await.unwrap(), pool.lend().await.unwrap()];
        let (_held, _) = first.accept().await.unwrap();
        let (mut closing, _) = second.accept().await.unwrap();
        let (idle, mut busy): (Vec<_>, Vec<_>) = both.into_iter().partition(|lease| address(lease) == other);
        idle.into_iter().for_each(Lease::give_back);
        let (third, elsewhere) = listening().await;
        let target = pool.endpoints.borrow()[0].target.clone();
        pool.endpoints.borrow_mut().push(Rc::new(Endpoint::new(target, elsewhere)));
        pool.endpoints.borrow()[1].health.eject(EjectionCause::Connect, PATIENCE);
        busy.push(pool.lend().await.unwrap());
        assert_eq!(address(&busy[1]), elsewhere);
        let _open = third.accept().await.unwrap();
        let closed = tokio::io::AsyncReadExt::read(&mut closing, &mut [0]).await;
        assert!(matches!(closed, Ok(0) | Err(_)), "the idle one gave its place");
        assert!(pool.places.take().is_none(), "both places are taken");
    })
    .await;
}

/// Leaves idle connections that nobody is told of.
async fn leave_idle(pool: &Rc<Pool>, count: usize) {
    let endpoint = Rc::clone(&pool.endpoints.borrow()[0]);
    for _ in 0..count {
        let place = pool.own_places.take_beyond();
        let opened = pool.settings.connector.connect(&endpoint, place, &pool.own_places).await;
        let Connection::Exclusive(connection) = opened.unwrap() else { panic!("HTTP/2 was not offered") };
        while !connection.is_ready() {
            tokio::task::yield_now().await;
        }
        endpoint.keep(connection);
    }
}

#[tokio::test]
async fn who_has_waited_to_the_end_looks_once_more() {
    run(async {
        let (_listener, address) = listening().await;
        let pool = pool_of(&[address], 1);
        let _all = pool.places.take().unwrap();
        let (lent, ()) = tokio::join!(pool.lend(), leave_idle(&pool, 1));
        assert!(lent.expect("it was there all the time").is_reused());
    })
    .await;
}

#[tokio::test]
async fn who_takes_one_of_several_calls_the_next() {
    run(async {
        let (_listener, address) = listening().await;
        let pool = pool_of(&[address], 1);
        let _all = pool.places.take().unwrap();
        let began = Instant::now();
        let (first, second, third, ()) = tokio::join!(pool.lend(), pool.lend(), pool.lend(), async {
            leave_idle(&pool, 3).await;
            pool.call_next();
        });
        assert!([first, second, third].into_iter().all(|lent| lent.unwrap().is_reused()));
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    })
    .await;
}

#[tokio::test]
async fn a_dead_connection_is_replaced_at_another_endpoint_if_there_is_one() {
    run(async {
        let ((_a, first), (_b, second)) = (listening().await, listening().await);
        let pool = pool_of(&[first, second], 10);
        for _ in 0..4 {
            let lease = pool.lend().await.unwrap();
            let failed = address(&lease);
            let instead = pool.lend_instead(lease).await.unwrap();
            assert_ne!(address(&instead), failed);
            assert!(!instead.is_reused());
            instead.give_back();
        }
        let alone = pool_of(&[first], 1);
        let lease = alone.lend().await.unwrap();
        assert!(!alone.lend_instead(lease).await.unwrap().is_reused());
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_out_until_it_is_back() {
    run(async {
        let ((_a, well), (listener, gone)) = (listening().await, listening().await);
        drop(listener);
        let pool = pool_of(&[well, gone], 10);
        for _ in 0..4 {
            let lease = pool.lend().await.expect("another endpoint is tried");
            assert_eq!(address(&lease), well);
            lease.give_back();
        }
        assert!(pool.endpoints.borrow()[1].health.is_ejected());
        let back = Instant::now();
        let _listener = TcpListener::bind(gone).await.unwrap();
        let mut leases = Vec::new();
        while !leases.iter().any(|lease| address(lease) == gone) {
            sleep(Duration::from_millis(10)).await;
            leases.truncate(2);
            leases.push(pool.lend().await.unwrap());
        }
        assert!(back.elapsed() < Duration::from_secs(1), "{:?}", back.elapsed());
    })
    .await;
}

#[tokio::test]
async fn where_all_are_out_the_one_out_longest_is_tried() {
    run(async {
        let (listener, first) = listening().await;
        let (other, second) = listening().await;
        drop((listener, other));
        let pool = pool_of(&[first, second], 10);
        for _ in 0..3 {
            assert!(matches!(pool.lend().await, Err(ConnectError::Refused(_))));
        }
        assert!(pool.endpoints.borrow().iter().all(|endpoint| endpoint.health.is_ejected()));
        let _listener = TcpListener::bind(first).await.unwrap();
        assert_eq!(address(&pool.lend().await.unwrap()), first, "the next request finds it");
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_whose_connections_break_is_out_for_longer_each_time() {
    run(async {
        let ((_a, well), (_b, broken)) = (listening().await, listening().await);
        let pool = pool_of(&[well, broken], 10);
        let endpoint = Rc::clone(&pool.endpoints.borrow()[1]);
        (0..2).for_each(|_| pool.broke(&endpoint));
        assert!(!endpoint.health.is_ejected(), "twice may be chance");
        pool.broke(&endpoint);
        assert!(endpoint.health.is_ejected());
        while endpoint.health.is_ejected() {
            sleep(Duration::from_millis(5)).await;
        }
        let again = Instant::now();
        pool.broke(&endpoint);
        while endpoint.health.is_ejected() {
            sleep(Duration::from_millis(5)).await;
        }
        assert!(again.elapsed() >= Duration::from_millis(200), "{:?}", again.elapsed());
    })
    .await;
}

#[tokio::test]
async fn what_is_asked_takes_no_place_and_keeps_none() {
    run(async {
        let ((_a, well), (listener, out)) = (listening().await, listening().await);
        let pool = pool_of(&[well, out], 1);
        let endpoint = Rc::clone(&pool.endpoints.borrow()[1]);
        let all = pool.places.take().unwrap();
        let (first, second) = tokio::join!(pool.is_well(&endpoint), pool.is_well(&endpoint));
        assert!(first && second, "neither waits for a place, nor for the other");
        drop(all);
        assert!(pool.is_well(&endpoint).await);
        assert!(endpoint.idle_longest().is_none() && pool.places.take().is_some());
        for _ in 0..3 {
            let (mut asked, _) = listener.accept().await.unwrap();
            let closed = tokio::io::AsyncReadExt::read(&mut asked, &mut [0]).await;
            assert!(matches!(closed, Ok(0) | Err(_)));
        }
    })
    .await;
}

#[tokio::test]
async fn of_several_names_the_first_that_has_an_address_will_do() {
    run(async {
        for failing in [None, Some("failing.internal")] {
            let (_listener, address) = listening().await;
            let hosts = ["silent.internal", "failing.internal", "there.internal"];
            let names = Names::new(hosts.into_iter());
            let pool = pool(hosts.map(|host| target(host, address.port())).to_vec(), &names, 10);
            let began = Instant::now();
            let (lent, ()) = tokio::join!(pool.lend(), async {
                tokio::task::yield_now().await;
                failing.iter().for_each(|host| names.answer(host, Err(io::Error::other("no such name"))));
                tokio::task::yield_now().await;
                names.answer("there.internal", Ok(vec![address.ip()]));
            });
            assert_eq!(lent.unwrap().endpoint().address, address);
            assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        }
        let names = Names::new(["one.internal", "two.internal"].into_iter());
        let pool = pool(vec![target("one.internal", 80), target("two.internal", 80)], &names, 10);
        let fail = |host| names.answer(host, Err(io::Error::other("no such name")));
        fail("one.internal");
        let (lent, ()) = tokio::join!(pool.lend(), async {
            tokio::task::yield_now().await;
            fail("two.internal");
        });
        assert!(matches!(lent, Err(ConnectError::Unresolved(_))), "all of them have failed");
    })
    .await;
}

#[tokio::test]
async fn a_name_is_all_its_addresses_and_the_old_ones_are_left() {
    run(async {
        let (listener, first) = listening().await;
        let (_other, second) = listening_at(&format!("127.0.0.2:{}", first.port())).await;
        let names = Names::new(["up.internal"].into_iter());
        let answer = |found: &[SocketAddr]| names.answer("up.internal", Ok(found.iter().map(SocketAddr::ip).collect()));
        let pool = pool(vec![target("up.internal", first.port())], &names, 10);
        let waiting = pool.lend();
        let (early, ()) = tokio::join!(waiting, async {
            tokio::task::yield_now().await;
            answer(&[first]);
        });
        early.expect("it waited for the first answer").give_back();
        let (mut idle, _) = listener.accept().await.unwrap();

        answer(&[second]);
        pool.tend();
        let closed = tokio::io::AsyncReadExt::read(&mut idle, &mut [0]).await;
        assert!(matches!(closed, Ok(0) | Err(_)), "a connection to an address that is none any more is closed");
        let lease = pool.lend().await.unwrap();
        assert_eq!(address(&lease), second);

        answer(&[first]);
        pool.tend();
        lease.give_back();
        assert_eq!(address(&pool.lend().await.unwrap()), first, "what was under way does not come back");
    })
    .await;
}

#[tokio::test]
async fn an_address_takes_its_series_along_when_it_goes() {
    run(async {
        let names = Names::new(["up.internal"].into_iter());
        let answer =
            |found: &[&str]| names.answer("up.internal", Ok(found.iter().map(|ip| ip.parse().unwrap()).collect()));
        let (telemetry, connector) = (telemetry(), Connector { timeout: PATIENCE, tls: None, http2: None });
        let settings = PoolSettings {
            name: "up".into(),
            telemetry: telemetry.worker(),
            idle_timeout: PATIENCE,
            max_connections: 10,
            connector,
            check: None,
        };
        let pool = Pool::new(settings, vec![target("up.internal", 8080)], &names);
        let told = || {
            let text = String::from_utf8(telemetry.render_metrics()).unwrap();
            let series = "leastgate_upstream_endpoint_workers{endpoint=\"";
            let told = text.lines().filter_map(|line| line.strip_prefix(series)?.split_once('"'));
            told.map(|(address, _)| address.to_owned()).step_by(2).collect::<Vec<_>>()
        };
        answer(&["10.0.0.1", "10.0.0.2"]);
        pool.tend();
        assert_eq!(told(), ["10.0.0.1:8080", "10.0.0.2:8080"]);
        let under_way = Pending::of(&pool.endpoints.borrow()[0]);
        answer(&["10.0.0.2", "10.0.0.3"]);
        pool.tend();
        assert_eq!(told(), ["10.0.0.2:8080", "10.0.0.3:8080"], "whoever still has a request there");
        drop(under_way);
        drop(pool);
        assert_eq!(told(), [""; 0]);
    })
    .await;
}

#[tokio::test]
async fn a_name_without_an_address_is_said_so_and_one_without_an_answer_in_time() {
    run(async {
        let names = Names::new(["up.internal"].into_iter());
        let pool = pool(vec![target("up.internal", 80)], &names, 10);
        let began = Instant::now();
        assert!(matches!(pool.lend().await, Err(ConnectError::TimedOut)));
        assert!((2..4).contains(&began.elapsed().as_secs()));
        names.answer("up.internal", Err(io::Error::other("no such name")));
        assert!(matches!(pool.lend().await, Err(ConnectError::Unresolved(_))));
    })
    .await;
}
