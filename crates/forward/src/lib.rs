//! Delivers messages to HTTP targets, until they take them.
