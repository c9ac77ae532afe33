//! OpenAPI schemas of what writes itself as text. Only with the feature `openapi`, for the server's document; what a
//! plan may hold is decided by `serde` and `Plan::check`, never here.

use std::borrow::Cow;

use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::openapi::{Object, RefOr};
use utoipa::{PartialSchema, ToSchema};

use crate::amount::{Amount, Percent};
use crate::plan::Plan;

/// Names one release exactly; stands for the type of `protocol`. Never made.
#[derive(Debug, ToSchema)]
#[schema(as = ReleaseRef)]
pub struct ReleaseSchema {
    /// As people write it, e.g. `1.1.0`.
    pub version: String,
    /// SHA-256 of the manifest, 64 hexadecimal digits.
    #[schema(min_length = 64, max_length = 64)]
    pub digest: String,
    /// Order within the model.
    pub counter: u64,
}

/// What may stand beside model, release and stages in a new rollout: the plan's own, without those. Never made.
#[derive(Debug)]
pub enum PlanOptions {}

/// What a new rollout says in its own way, or the server fills in.
const SAID_ELSEWHERE: [&str; 4] = ["model", "release", "fallbacks", "stages"];

impl PartialSchema for PlanOptions {
    fn schema() -> RefOr<Schema> {
        let mut schema = Plan::schema();
        if let RefOr::T(Schema::Object(plan)) = &mut schema {
            plan.properties.retain(|name, _| !SAID_ELSEWHERE.contains(&name.as_str()));
            plan.required.retain(|name| !SAID_ELSEWHERE.contains(&name.as_str()));
            // Others stand beside them in the same object.
            plan.additional_properties = None;
            plan.description = Some("Parts of a plan that have defaults. Durations are in seconds.".into());
        }
        schema
    }
}

impl ToSchema for PlanOptions {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("PlanOptions")
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Plan::schemas(schemas);
    }
}

fn percentage() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(r"^\d{1,3}(\.\d{1,3})?%$"))
        .description(Some("0 to 100 with at most three decimals, e.g. `\"12.5%\"`."))
        .build()
}

impl PartialSchema for Percent {
    fn schema() -> RefOr<Schema> {
        percentage().into()
    }
}

impl ToSchema for Percent {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Percent")
    }
}

impl PartialSchema for Amount {
    fn schema() -> RefOr<Schema> {
        let count = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
        OneOfBuilder::new()
            .item(count)
            .item(percentage())
            .description(Some("So many devices, e.g. `3`, or a share of the group, e.g. `\"12.5%\"`."))
            .into()
    }
}

impl ToSchema for Amount {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Amount")
    }
}
