//! No part of a secret comes out, wherever a client puts it: every window of twelve bytes of every minted secret, raw, in
//! base64, in hex and percent-encoded, is looked for in everything that was written.

use leastgate_policy::Accessor;
use leastgate_policy::token::mint;
use leastgate_policy::{Reason, TokenKind};
use leastgate_telemetry::{AdminEvent, LifecycleEvent};
use proptest::prelude::*;

use crate::support::{Captured, DEADLINE, START, World, telemetry, verify};

fn windows(secret: &str) -> Vec<Vec<u8>> {
    let raw: Vec<Vec<u8>> = secret.as_bytes().windows(12).map(<[u8]>::to_vec).collect();
    let mut all = raw.clone();
    for window in &raw {
        all.push(base64(window).into_bytes());
        all.push(window.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes());
        all.push(window.iter().map(|byte| format!("%{byte:02X}")).collect::<String>().into_bytes());
    }
    all
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let sextets = |chunk: &[u8]| {
        let bits = chunk.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte));
        [18, 12, 6, 0].map(|shift| char::from(ALPHABET[(bits >> shift & 63) as usize]))
    };
    bytes.chunks(3).flat_map(sextets).collect()
}

/// The token as a hostile or clumsy client may write it.
fn disguised(token: &str, disguise: u8) -> String {
    token
        .bytes()
        .enumerate()
        .map(|(index, byte)| match disguise {
            0 => char::from(byte).to_string(),
            1 => format!("%{byte:02x}"),
            2 if index % 3 == 0 => format!("%{byte:02X}"),
            3 if index < 4 => format!("%25{byte:02x}"),
            4 => format!("%2525{byte:02X}"),
            _ => char::from(byte).to_string(),
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    #[test]
    fn no_window_of_a_secret_comes_out(
        secret in any::<[u8; 32]>(), accessor in any::<u64>(), admin in any::<bool>(), disguise in 0..5_u8, cut in 20..80_usize,
    ) {
        let kind = if admin { TokenKind::Admin } else { TokenKind::Token };
        let minted = mint(kind, "prod", Accessor::from_random(accessor), &secret);
        let token = minted.expose();
        let written = disguised(token, disguise);
        let shortened = &token[..cut.min(token.len())];
        let (world, captured) = (World::new(), Captured::default());
        let (telemetry, _) = telemetry(|config| {
            config.sinks.push(captured.sink("main"));
            config.unauthenticated_per_source = 1000;
        });
        telemetry.policy_loaded(&world.snapshot);
        let worker = telemetry.worker();
        for path in [
            format!("/v1/orders/{written}"),
            format!("/v1/x{written}?{written}=1&token={written}"),
            format!("/v1/{shortened}"),
            format!("/clinic/{written}/file"),
            format!("/v1/a%2Fb/{written}"),
        ] {
            let recorder = world.record(&worker, "GET", &path, Some(&world.reader));
            recorder.user_agent(format!("{}{written}", "u".repeat(cut * 3)).as_bytes());
            recorder.trace(Some(&written), Some(shortened), Some(&written));
            recorder.stream_open();
            recorder.finish();
        }
        let recorder = worker.begin("192.0.2.7:1".parse().unwrap(), START);
        recorder.request(&http::Method::GET, Some(written.as_bytes()), &http::Uri::from_static("/"), http::Version::HTTP_11);
        recorder.refused(Reason::RequestMalformed);
        recorder.finish();
        world.record(&worker, "GET", "/v1/orders", Some(token)).finish();
        telemetry.admin(
            &AdminEvent {
                operation: "token.revoke".into(),
                target: Some(written.clone()),
                reason: Some(format!("leaked as {written}")),
                details: vec![(written.clone(), token.to_owned())],
                ..AdminEvent::default()
            },
            None,
        );
        telemetry.lifecycle(&LifecycleEvent { result: written.clone(), target: Some(token.to_owned()), ..LifecycleEvent::default() });
        prop_assert!(telemetry.shut_down(DEADLINE));
        let mut output = captured.bytes();
        prop_assert!(verify(&output).of_kind("decision").len() == 7);
        output.extend(telemetry.render_metrics());
        let part = &token[token.len() - 50..];
        for window in windows(part) {
            let found = output.windows(window.len()).any(|place| place == window);
            prop_assert!(!found, "{} in the output of {written}", String::from_utf8_lossy(&window));
        }
    }
}
