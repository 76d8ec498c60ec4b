//! What a rule sees: one event with the process it belongs to and everything known about both.

use std::marker::PhantomData;

/// One decoded and enriched event.
pub struct Event<'a> {
    arena: PhantomData<&'a ()>,
}
