//! Networks that a token may be used from: so many and no more, and none twice, whichever call names them.

use serde_json::{Value, json};

use crate::fixture::start;

fn nets(count: usize, of: u8) -> Vec<String> {
    (0..count).map(|at| format!("10.{of}.{}.{}/32", at / 256, at % 256)).collect()
}

fn bot(name: &str, networks: &[String]) -> Value {
    json!({"name": name, "owner": "team", "roles": ["reader"], "ttl": "1h", "allow_cidr": networks})
}

#[test]
fn no_call_leaves_a_token_with_more_than_so_many() {
    let plane = start();
    let (most, more) = (nets(256, 1), nets(257, 1));
    plane.make(&bot("most", &most));
    let mut exported = plane.get(&plane.root, "/v1/exports").json()["items"][0].clone();
    exported["accessor"] = json!("AAAAAAAAA1");
    exported["name"] = json!("foreign");
    exported["restrictions"]["source_ip"] = json!(more);
    let post = |path: &str, body: &Value| plane.post(&plane.root, path, body);
    for refused in [
        post("/v1/tokens", &bot("bot", &more)),
        post("/v1/tokens/bulk", &json!({"token": bot("bot", &more), "count": 2})),
        post("/v1/tokens/import", &json!({"tokens": [exported], "reason": "r"})),
        post("/v1/tokens/most/restrict", &json!({"allow_cidr": more, "reason": "r"})),
        plane.patch(&plane.root, "/v1/tokens/most", "*", &json!({"allow_cidr": more, "reason": "r"})),
    ] {
        refused.refused(422, "invalid-value");
        assert!(refused.body.contains("257 networks"), "{refused:?}");
    }
    // One of its networks is parted into 255, and another one holds all the rest.
    let parted: Vec<String> = (0..255).map(|at| format!("10.2.{at}.0/24")).chain(["10.1.0.0/16".to_owned()]).collect();
    let held: Vec<String> = nets(200, 1).into_iter().chain(["10.2.0.0/16".to_owned()]).collect();
    plane.make(&bot("parted", &held));
    let refused = post("/v1/tokens/parted/restrict", &json!({"allow_cidr": parted, "reason": "r"}));
    refused.refused(422, "invalid-value");
    assert!(refused.body.contains("455 networks"), "{refused:?}");
    assert_eq!(post("/v1/tokens/parted/restrict", &json!({"allow_cidr": nets(256, 1), "reason": "r"})).status, 200);
}

#[test]
fn none_is_named_twice_however_it_is_written() {
    let plane = start();
    for twice in [["10.0.0.0/8", "10.0.0.0/8"], ["192.0.2.7", "192.0.2.7/32"], ["2001:db8::/32", "2001:DB8:0::/32"]] {
        let refused = plane.post(&plane.root, "/v1/tokens", &bot("bot", &twice.map(str::to_owned)));
        refused.refused(422, "invalid-value");
        assert!(refused.body.contains("twice"), "{refused:?}");
    }
    plane.make(&bot("bot", &["10.0.0.0/8", "10.1.0.0/16"].map(str::to_owned)));
}
