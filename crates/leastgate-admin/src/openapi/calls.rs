//! One call, as the document describes it.

use serde_json::{Value, json};

use super::refusals;
use crate::route::{Condition, Route, Shape, Verb};
use crate::tag::TokenTag;

pub(super) const fn method(verb: Verb) -> &'static str {
    match verb {
        Verb::Get => "get",
        Verb::Post => "post",
        Verb::Patch => "patch",
    }
}

/// `route` at `path`, which is its own or one that hides it.
pub(super) fn operation(path: &str, route: &Route) -> Value {
    let mut operation = json!({
        "operationId": id(path, route),
        "tags": [route.operation.name.split('.').next()],
        "summary": route.says.summary,
        "description": description(path, route),
        "parameters": parameters(path, route),
        "responses": responses(route),
        "x-role": route.operation.role.as_str(),
    });
    if let Some(shape) = route.says.body {
        let mut content = json!({"schema": reference(shape)});
        if let Ok(example) = serde_json::from_str::<Value>(route.says.example) {
            content["example"] = example;
        }
        operation["requestBody"] = json!({"required": true, "content": {"application/json": content}});
    }
    operation
}

/// The operation's name, and what is hidden where it is.
fn id(path: &str, route: &Route) -> String {
    let hiding = path.split('/').zip(route.path.split('/')).find(|(here, own)| here != own);
    hiding.map_or_else(|| route.operation.name.to_owned(), |(here, _)| format!("{}.{here}", route.operation.name))
}

fn description(path: &str, route: &Route) -> String {
    let hidden = (path != route.path).then(|| format!("The same as {} for what has this name.", route.path));
    let role = format!("Needs the role {}.", route.operation.role);
    let limit = route
        .operation
        .effect
        .has_body()
        .then(|| format!("The body has at most {} KiB.", route.operation.most_bytes / 1024));
    let notes = Some(route.says.notes.to_owned()).filter(|notes| !notes.is_empty());
    let parts = hidden.into_iter().chain(notes).chain([role]).chain(limit);
    parts.collect::<Vec<_>>().join(" ")
}

fn reference(shape: Shape) -> Value {
    json!({"$ref": format!("#/components/schemas/{}", (shape.name)())})
}

fn parameters(path: &str, route: &Route) -> Value {
    let mut parameters: Vec<Value> = path.split('/').filter_map(path_parameter).collect();
    for parameter in route.says.query.map(|parameters| parameters()).unwrap_or_default() {
        let mut parameter = serde_json::to_value(parameter).unwrap_or_default();
        never_null(&mut parameter["schema"]);
        parameters.push(parameter);
    }
    if route.says.condition != Condition::None {
        parameters.push(json!({
            "name": "If-Match", "in": "header", "required": route.says.condition == Condition::Needed,
            "description": "The change is for this token and this version of it: the `ETag` of the token as it was read. Whoever has its \
                            name by now is another token, and not meant. `*` is any.",
            "schema": {"type": "string", "pattern": format!(r"^({}|\*)$", TokenTag::PATTERN)},
            "examples": {"any": {"value": "*"}, "version": {"value": "\"0aZ9000001.3\""}},
        }));
    }
    if route.says.is_once {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": "A repetition with the same key and body, by the same caller, makes nothing a second time and \
                            tells no secret. The last 1,024 keys are remembered, until the gateway ends.",
            "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
        }));
    }
    json!(parameters)
}

fn path_parameter(segment: &str) -> Option<Value> {
    let name = segment.strip_prefix('{')?.strip_suffix('}')?;
    let description = match name {
        "token" => "A token's name or accessor.",
        _ => "The public id; an administrator's name will do as well.",
    };
    Some(json!({
        "name": name, "in": "path", "required": true, "description": description,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-][A-Za-z0-9_.-]*$"},
    }))
}

/// A parameter is there or it isn't: it has no null.
fn never_null(schema: &mut Value) {
    if let Some(types) = schema.get("type").and_then(Value::as_array) {
        let one = types.iter().find(|one| *one != "null").cloned();
        schema["type"] = json!(one);
    }
    if let Some(choices) = schema.get("oneOf").and_then(Value::as_array) {
        let some: Vec<Value> = choices.iter().filter(|choice| choice["type"] != "null").cloned().collect();
        if let [only] = some.as_slice() {
            *schema = only.clone();
        }
    }
}

fn responses(route: &Route) -> Value {
    let mut responses = refusals::of(route);
    let (status, done) = if route.says.is_made { ("201", "It was made.") } else { ("200", "It was done.") };
    responses[status] = answer(route, done, route.says.is_made);
    if route.says.is_repeated_as_200 {
        responses["200"] = answer(route, "It was made before, by the call that this one repeats.", false);
    }
    responses
}

fn answer(route: &Route, description: &str, is_made: bool) -> Value {
    let mut answer = json!({"description": description});
    if let Some(shape) = route.says.answer {
        answer["content"] = json!({"application/json": {"schema": reference(shape)}});
    }
    if route.says.is_tagged {
        answer["headers"]["ETag"] = json!({
            "description": "Which one this is: of a token its accessor and its version, for `If-Match`.",
            "schema": {"type": "string", "pattern": r#"^"[0-9A-Za-z.]+"$"#},
        });
    }
    if is_made {
        answer["headers"]["Location"] = json!({
            "description": "Where it is.", "required": true, "schema": {"type": "string", "format": "uri-reference"},
        });
    }
    answer
}
