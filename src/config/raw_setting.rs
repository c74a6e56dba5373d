//! Values as they were given, before any type is known.

use serde_json::Value;

use super::fault::Origin;

/// A value somebody gave to a setting.
pub(super) struct RawSetting {
    pub path: String,
    pub value: Value,
    pub origin: Origin,
}
