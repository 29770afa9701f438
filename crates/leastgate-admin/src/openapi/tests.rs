//! The document is of the table, whole, and refers to nothing that it doesn't have.

use std::collections::BTreeSet;

use super::*;
use crate::problem::Kind;

fn each<'a>(value: &'a Value, found: &mut Vec<&'a str>, wanted: &str) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(wanted).and_then(Value::as_str));
            fields.values().for_each(|value| each(value, found, wanted));
        }
        Value::Array(items) => items.iter().for_each(|value| each(value, found, wanted)),
        _ => {}
    }
}

#[test]
fn references_lead_somewhere_and_names_are_told_apart() {
    let document = document();
    let mut references = Vec::new();
    each(&document, &mut references, "$ref");
    assert!(references.len() > 100, "{}", references.len());
    for reference in references {
        assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
    }
    let mut ids = Vec::new();
    each(&document["paths"], &mut ids, "operationId");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    assert_eq!(ids.len(), served().count());
}

#[test]
fn every_kind_of_refusal_is_in_it() {
    let document = document();
    let mut told = BTreeSet::new();
    for response in document["components"]["responses"].as_object().unwrap().values() {
        let kinds = response.pointer("/content/application~1problem+json/schema/properties/type/enum").unwrap();
        told.extend(kinds.as_array().unwrap().iter().map(|kind| kind.as_str().unwrap().to_owned()));
    }
    let all = Kind::ALL.iter().map(|kind| format!("{}{}", crate::api::problem_prefix(), kind.name()));
    assert_eq!(told, all.collect());
}

#[test]
fn every_call_says_what_it_takes_and_answers() {
    for route in ROUTES {
        let (name, says) = (route.operation.name, &route.says);
        assert!(!says.summary.is_empty() && says.answer.is_some(), "{name}");
        assert_eq!(says.body.is_some(), route.operation.effect.has_body(), "{name}: a body");
        let is_example = serde_json::from_str::<Value>(says.example).is_ok();
        assert!(is_example || says.example.is_empty(), "{name}: {}", says.example);
        let is_change = matches!(route.operation.effect, crate::call::Effect::Gives | crate::call::Effect::Takes);
        assert!(!is_change || says.is_once || says.notes.contains("Repeated"), "{name}: what a repetition does");
    }
}

#[test]
fn bodies_have_no_fields_but_theirs() {
    let document = document();
    for body in ROUTES.iter().filter_map(|route| route.says.body) {
        let schema = &document["components"]["schemas"][&*(body.name)()];
        assert_eq!(schema["additionalProperties"], false, "{}: {schema}", (body.name)());
    }
}

#[test]
fn a_path_that_hides_another_serves_both() {
    let hidden: Vec<_> =
        served().filter(|(path, route)| *path != route.path).map(|(path, route)| (path, route.verb)).collect();
    let both = |path| [(path, crate::route::Verb::Get), (path, crate::route::Verb::Patch)];
    assert_eq!(hidden, [both("/v1/tokens/bulk"), both("/v1/tokens/import")].concat());
}

#[test]
fn what_goes_both_ways_is_whole_in_answers_and_lenient_in_requests() {
    let document = document();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let required = |name: &str| -> BTreeSet<String> {
        let names = schemas[name]["required"].as_array().into_iter().flatten();
        names.map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    for (name, always) in ways::ANSWERED {
        let (answered, taken) = (required(name), required(&ways::taken(name)));
        assert!(always.iter().all(|field| answered.contains(*field) && !taken.contains(*field)), "{name}");
        assert!(taken.is_subset(&answered), "{name}");
    }
    let import = serde_json::to_string(&schemas["ImportTokens"]).unwrap() + &schemas["ExportedToken.taken"].to_string();
    for name in ["ExportedToken", "GrantView", "LimitsView", "RestrictionsView"] {
        assert!(import.contains(&format!("/{name}.taken\"")) && !import.contains(&format!("/{name}\"")), "{import}");
    }
}
