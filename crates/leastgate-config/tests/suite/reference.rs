//! The files in `config/` are the reference: they load, with every key in force, and show the defaults.

use std::collections::BTreeSet;

use leastgate_config::{GatewayInputs, Limits, load_gateway, load_policy, schema};
use serde_json::Value;

use crate::shipped;

/// Every key that a schema knows, as a path; `*` stands for a name or an item.
fn keys(schema: &Value, path: &str, out: &mut BTreeSet<String>) {
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}/{name}");
        keys(inner, &path, out);
        out.insert(path);
    }
    for inner in [&schema["items"], &schema["additionalProperties"]].into_iter().filter(|inner| inner.is_object()) {
        keys(inner, &format!("{path}/*"), out);
    }
    for alternative in ["anyOf", "oneOf"].iter().filter_map(|word| schema[word].as_array()).flatten() {
        keys(alternative, path, out);
    }
}

/// Every key that a document has, likewise.
fn used(document: &Value, schema: &Value, path: &str, out: &mut BTreeSet<String>) {
    let named = schema["properties"].as_object();
    for (name, inner) in document.as_object().into_iter().flatten() {
        let known = named.and_then(|named| named.get(name));
        let path = format!("{path}/{}", if known.is_some() { name } else { "*" });
        used(inner, known.unwrap_or(&schema["additionalProperties"]), &path, out);
        out.insert(path);
    }
    for item in document.as_array().into_iter().flatten() {
        used(item, &schema["items"], &format!("{path}/*"), out);
    }
    for alternative in ["anyOf", "oneOf"].iter().filter_map(|word| schema[word].as_array()).flatten() {
        used(document, alternative, path, out);
    }
}

fn document(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

#[test]
fn the_reference_file_has_every_key_and_every_default() {
    let inputs = GatewayInputs { file: Some(shipped("leastgate.yaml")), ..GatewayInputs::default() };
    let config = load_gateway(&inputs).unwrap_or_else(|errors| panic!("{errors}")).config;
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.upstreams[0].connect_timeout, config.limits.upstream_connect);
    let text = std::fs::read_to_string(shipped("leastgate.yaml")).unwrap();
    let (mut known, mut found) = (BTreeSet::new(), BTreeSet::new());
    keys(&schema::gateway(), "", &mut known);
    used(&document(&text), &schema::gateway(), "", &mut found);
    // Of the places a secret can be read from, a file names one.
    known.retain(|key| !key.starts_with("/pepper/") || !(key.ends_with("/env") || key.ends_with("/credential")));
    assert_eq!(known.difference(&found).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn the_reference_file_is_what_its_defaults_are() {
    let text = std::fs::read_to_string(shipped("leastgate.yaml")).unwrap();
    let (document, schema) = (document(&text), schema::gateway());
    fn compare(document: &Value, schema: &Value, path: &str) {
        if let Some(default) = schema.get("default") {
            assert_eq!(document, default, "{path}");
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            compare(&document[name], inner, &format!("{path}/{name}"));
        }
    }
    compare(&document, &schema, "");
}

#[test]
fn the_example_policy_has_every_key_that_serve_takes() {
    let file = shipped("policy.yaml");
    load_policy(&[&file]).unwrap_or_else(|errors| panic!("{errors}"));
    let text = std::fs::read_to_string(&file).unwrap();
    // The declared token is commented out: nobody holds its secret.
    let (start, end) = (text.find("# tokens:\n").unwrap(), text.len());
    let text = format!("{}{}", &text[..start], text[start..end].replace("# ", ""));
    leastgate_config::parse_policy(&[("policy.yaml", &text)]).unwrap_or_else(|errors| panic!("{errors}"));
    let (mut known, mut found) = (BTreeSet::new(), BTreeSet::new());
    keys(&schema::policy(), "", &mut known);
    used(&document(&text), &schema::policy(), "", &mut found);
    let missing: Vec<&String> = known.difference(&found).filter(|key| !key.contains("/cors")).collect();
    // The example conditions an allow; a deny takes the same.
    let missing: Vec<_> = missing.into_iter().filter(|key| !key.contains("/deny/*/")).collect();
    assert_eq!(missing, ["/apis/*/until"]);
}
