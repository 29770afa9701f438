//! The same table of keys as JSON Schema (draft 2020-12), for editors and for CI.

use serde_json::{Map, Value, json};

use super::{Field, Need, Shape, Tagged};

/// The schema of a file of `shape`, named `title`.
pub(crate) fn schema(title: &str, shape: &Shape) -> Value {
    let mut schema = of(shape);
    if let Value::Object(members) = &mut schema {
        members.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        members.insert("title".to_owned(), json!(title));
    }
    schema
}

fn of(shape: &Shape) -> Value {
    match shape {
        Shape::Text(notation) => match notation.pattern {
            Some(pattern) => json!({ "type": "string", "pattern": pattern }),
            None => json!({ "type": "string", "minLength": 1 }),
        },
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Count(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Shape::CountOr(word, min, max) => {
            json!({ "anyOf": [{ "const": word }, { "type": "integer", "minimum": min, "maximum": max }] })
        }
        Shape::Choice(words, _) => json!({ "enum": words }),
        Shape::List(item, min, max) => list(item, *min, max.map(|(most, _)| most)),
        Shape::Map(name, item) => map(name.pattern, item),
        Shape::Object(fields) | Shape::Vault(fields) => object(fields),
        Shape::Secret(fields) => json!({ "oneOf": fields.iter().map(one_key).collect::<Vec<_>>() }),
        Shape::Tagged(tagged) => alternatives(tagged),
        Shape::Either(scalar, compound) => json!({ "anyOf": [of(scalar), of(compound)] }),
        Shape::Later(_) => json!(false),
    }
}

fn list(item: &Shape, min: usize, max: Option<usize>) -> Value {
    let mut schema = json!({ "type": "array" });
    // An item schema beside `maxItems: 0` would say nothing.
    if max != Some(0) {
        schema["items"] = of(item);
    }
    if min > 0 {
        schema["minItems"] = json!(min);
    }
    if let Some(max) = max {
        schema["maxItems"] = json!(max);
    }
    schema
}

fn map(name: Option<&str>, item: &Shape) -> Value {
    let mut schema = json!({ "type": "object", "additionalProperties": of(item) });
    if let Some(pattern) = name {
        schema["propertyNames"] = json!({ "pattern": pattern });
    }
    schema
}

fn object(fields: &[Field]) -> Value {
    let built = || fields.iter().filter(|field| !field.shape.is_later());
    let properties: Map<String, Value> = built().map(|field| (field.name.to_owned(), property(field))).collect();
    let required: Vec<&str> =
        built().filter(|field| matches!(field.need, Need::Required)).map(|field| field.name).collect();
    let mut schema = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn property(field: &Field) -> Value {
    let mut schema = of(&field.shape);
    schema["description"] = json!(field.doc.trim());
    if let Need::Default(text) = field.need
        && !text.starts_with('{')
    {
        schema["default"] = default_value(text, &field.shape);
    }
    schema
}

fn default_value(text: &str, shape: &Shape) -> Value {
    match shape {
        Shape::Flag | Shape::Count(..) | Shape::List(..) => serde_json::from_str(text).unwrap_or(Value::Null),
        _ => json!(text),
    }
}

fn one_key(field: &Field) -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": { field.name: property(field) },
        "required": [field.name],
    })
}

fn alternatives(tagged: &Tagged) -> Value {
    let alternative = |(word, fields): &(&str, &[Field])| {
        let mut schema = object(fields);
        schema["properties"][tagged.tag] = json!({ "const": word });
        schema
    };
    json!({ "oneOf": tagged.variants.iter().map(alternative).collect::<Vec<_>>() })
}
