//! What the API's document says of values that the types alone don't tell: texts of a form, and types of other crates.

use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, KnownFormat, ObjectBuilder, OneOfBuilder, Schema, SchemaFormat, Type,
};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::moment::Moment;
use super::secret::SecretText;
use super::ttl::Ttl;

/// A word for people, in one line.
pub(crate) struct Text;

/// The name of a token or of an administrator.
pub(crate) struct Name;

/// A public id.
pub(crate) struct AccessorText;

/// What an administrator may do.
pub(crate) struct Role;

/// `"*"`, or a list of names.
pub(crate) struct NamesShape;

/// [`super::Ceiling`].
pub(crate) struct CeilingShape;

/// An event of the audit stream.
pub(crate) struct Event;

/// The document itself.
pub(crate) struct Document;

/// Characters that a line for people may have: no control character among them.
const LINE: &str = r"^[^\x00-\x1f\x7f-\x9f]*$";

fn text(description: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(description))
}

fn form(description: &str, pattern: &str) -> RefOr<Schema> {
    text(description).pattern(Some(pattern)).into()
}

impl PartialSchema for Text {
    fn schema() -> RefOr<Schema> {
        let text = text("A text for people: one line, not blank, and nothing in it that looks like a token.");
        text.min_length(Some(1)).max_length(Some(500)).pattern(Some(LINE)).into()
    }
}

impl ToSchema for Text {}

impl PartialSchema for Name {
    fn schema() -> RefOr<Schema> {
        form("A name: 1 to 63 of a-z, 0-9 and -.", "^[a-z0-9-]{1,63}$")
    }
}

impl ToSchema for Name {}

impl PartialSchema for AccessorText {
    fn schema() -> RefOr<Schema> {
        form("A public id: ten of 0-9, A-Z and a-z.", "^[0-9A-Za-z]{10}$")
    }
}

impl ToSchema for AccessorText {
    fn name() -> std::borrow::Cow<'static, str> {
        "Accessor".into()
    }
}

impl PartialSchema for Role {
    fn schema() -> RefOr<Schema> {
        let role = text("What an administrator may do; each role includes the one before.");
        role.enum_values(Some(["viewer", "operator", "admin"])).into()
    }
}

impl ToSchema for Role {}

impl PartialSchema for Moment {
    fn schema() -> RefOr<Schema> {
        let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
        text("A moment since 1970, as RFC 3339 writes it. Answers have whole seconds, in UTC.")
            .format(Some(format))
            .into()
    }
}

impl ToSchema for Moment {}

impl PartialSchema for Ttl {
    fn schema() -> RefOr<Schema> {
        form(
            "How long something lives: one unit of s, m, h, d and w, from a second to a hundred years.",
            "^0*[1-9][0-9]*[smhdw]$",
        )
    }
}

impl ToSchema for Ttl {}

impl PartialSchema for SecretText {
    fn schema() -> RefOr<Schema> {
        form("The text of a credential, told this once and kept by nobody.", "^lg[ta]_[!-~]+$")
    }
}

impl ToSchema for SecretText {}

impl PartialSchema for NamesShape {
    fn schema() -> RefOr<Schema> {
        let every = text("Every name.").enum_values(Some(["*"]));
        let these = ArrayBuilder::new().items(ObjectBuilder::new().schema_type(Type::String));
        OneOfBuilder::new().item(every).item(these.description(Some("These names."))).into()
    }
}

impl ToSchema for NamesShape {
    fn name() -> std::borrow::Cow<'static, str> {
        "Names".into()
    }
}

impl PartialSchema for CeilingShape {
    fn schema() -> RefOr<Schema> {
        let names = || Ref::from_schema_name("Names");
        let life = ObjectBuilder::new()
            .schema_type([Type::Integer, Type::Null].into_iter().collect::<utoipa::openapi::schema::SchemaType>())
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::UInt64)))
            .minimum(Some(0))
            .description(Some("Their longest life in seconds; left out, as the policy says."));
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some("The most an administrator may give to others, by name."))
            .property("environments", names())
            .required("environments")
            .property("roles", names())
            .required("roles")
            .property("scopes", names())
            .required("scopes")
            .property("max_ttl", life)
            .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)))
            .into()
    }
}

impl ToSchema for CeilingShape {
    fn name() -> std::borrow::Cow<'static, str> {
        "Ceiling".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((NamesShape::name().into_owned(), NamesShape::schema()));
    }
}

fn object(description: &str) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::Object).description(Some(description)).into()
}

impl PartialSchema for Event {
    fn schema() -> RefOr<Schema> {
        object("An event of the audit stream, version 1, as it was recorded.")
    }
}

impl ToSchema for Event {}

impl PartialSchema for Document {
    fn schema() -> RefOr<Schema> {
        object("An OpenAPI 3.1 document.")
    }
}

impl ToSchema for Document {
    fn name() -> std::borrow::Cow<'static, str> {
        "OpenApi".into()
    }
}
