//! What is known of a call before it is made: its path, who may make it, the work, and what goes over the wire. The router
//! and the API's document are both made of it, so neither can know a call that the other one doesn't.

use std::borrow::Cow;

use leastgate_store::AdminRole;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, ToSchema};

use crate::call::{Effect, MOST_BYTES, MOST_BYTES_OF_MANY, Operation, Run};
use crate::problem::Kind;

/// A call: where it is, what it does, and what is said of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) verb: Verb,
    pub(crate) path: &'static str,
    pub(crate) operation: Operation,
    pub(crate) run: Run,
    pub(crate) says: Says,
}

/// The methods of this API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verb {
    Get,
    Post,
    Patch,
}

/// What the document says of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Says {
    pub(crate) summary: &'static str,
    /// What else there is to know; of a change, what its repetition does.
    pub(crate) notes: &'static str,
    pub(crate) query: Option<fn() -> Vec<Parameter>>,
    pub(crate) body: Option<Shape>,
    /// A body as somebody would write it, in JSON.
    pub(crate) example: &'static str,
    pub(crate) answer: Option<Shape>,
    /// Whether the answer is 201 with a `Location`.
    pub(crate) is_made: bool,
    /// Whether the answer of a repetition is 200.
    pub(crate) is_repeated_as_200: bool,
    /// Whether the answer has an `ETag`.
    pub(crate) is_tagged: bool,
    pub(crate) condition: Condition,
    /// Whether it takes an `Idempotency-Key`.
    pub(crate) is_once: bool,
    /// Refusals beside those that the role, the effect and the path bring along.
    pub(crate) refusals: &'static [Kind],
}

/// What a call does with `If-Match`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    None,
    Taken,
    Needed,
}

/// A type of the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) name: fn() -> Cow<'static, str>,
    /// The type's own schema and those it refers to, by name.
    pub(crate) schemas: fn() -> Vec<(String, RefOr<Schema>)>,
}

/// A call that only reads.
pub(crate) const fn get(path: &'static str, name: &'static str, role: AdminRole, run: Run) -> Route {
    route(Verb::Get, path, name, role, Effect::Reads, run)
}

/// A call that reads what must not leave unseen.
pub(crate) const fn hand_out(path: &'static str, name: &'static str, role: AdminRole, run: Run) -> Route {
    route(Verb::Get, path, name, role, Effect::HandsOut, run)
}

pub(crate) const fn post(
    path: &'static str,
    name: &'static str,
    (role, effect): (AdminRole, Effect),
    run: Run,
) -> Route {
    route(Verb::Post, path, name, role, effect, run)
}

pub(crate) const fn patch(
    path: &'static str,
    name: &'static str,
    (role, effect): (AdminRole, Effect),
    run: Run,
) -> Route {
    route(Verb::Patch, path, name, role, effect, run)
}

const fn route(verb: Verb, path: &'static str, name: &'static str, role: AdminRole, effect: Effect, run: Run) -> Route {
    let operation = Operation { name, role, effect, most_bytes: MOST_BYTES };
    Route { verb, path, operation, run, says: Says::NOTHING }
}

impl Says {
    const NOTHING: Self = Self {
        summary: "",
        notes: "",
        query: None,
        body: None,
        example: "",
        answer: None,
        is_made: false,
        is_repeated_as_200: false,
        is_tagged: false,
        condition: Condition::None,
        is_once: false,
        refusals: &[],
    };
}

impl Route {
    pub(crate) const fn says(mut self, summary: &'static str, notes: &'static str) -> Self {
        self.says.summary = summary;
        self.says.notes = notes;
        self
    }

    pub(crate) const fn asks<T: IntoParams>(mut self) -> Self {
        self.says.query = Some(parameters::<T>);
        self
    }

    pub(crate) const fn takes<T: ToSchema>(mut self) -> Self {
        self.says.body = Some(Shape::of::<T>());
        self
    }

    /// A body as somebody would write it.
    pub(crate) const fn like(mut self, example: &'static str) -> Self {
        self.says.example = example;
        self
    }

    /// A body of many tokens.
    pub(crate) const fn takes_many<T: ToSchema>(mut self) -> Self {
        self.operation.most_bytes = MOST_BYTES_OF_MANY;
        self.takes::<T>()
    }

    pub(crate) const fn answers<T: ToSchema>(mut self) -> Self {
        self.says.answer = Some(Shape::of::<T>());
        self
    }

    /// Answers 201, and where to find what was made.
    pub(crate) const fn makes<T: ToSchema>(mut self) -> Self {
        self.says.is_made = true;
        self.answers::<T>()
    }

    /// The answer has an `ETag`.
    pub(crate) const fn tagged(mut self) -> Self {
        self.says.is_tagged = true;
        self
    }

    pub(crate) const fn condition(mut self, condition: Condition) -> Self {
        self.says.condition = condition;
        self
    }

    /// It takes an `Idempotency-Key`.
    pub(crate) const fn once(mut self) -> Self {
        self.says.is_once = true;
        self
    }

    pub(crate) const fn repeated_as_200(mut self) -> Self {
        self.says.is_repeated_as_200 = true;
        self
    }

    pub(crate) const fn refuses(mut self, refusals: &'static [Kind]) -> Self {
        self.says.refusals = refusals;
        self
    }

    /// Whether a request for `path` would be one for this route, were there no other one.
    pub(crate) fn covers(&self, path: &str) -> bool {
        let (mut own, mut asked) = (self.path.split('/'), path.split('/'));
        loop {
            match (own.next(), asked.next()) {
                (None, None) => return true,
                (Some(own), Some(asked)) if own == asked || own.starts_with('{') => {}
                _ => return false,
            }
        }
    }
}

impl Shape {
    pub(crate) const fn of<T: ToSchema>() -> Self {
        Self { name: T::name, schemas: schemas::<T> }
    }
}

fn schemas<T: ToSchema>() -> Vec<(String, RefOr<Schema>)> {
    let mut schemas = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut schemas);
    schemas
}

fn parameters<T: IntoParams>() -> Vec<Parameter> {
    T::into_params(|| Some(ParameterIn::Query))
}
